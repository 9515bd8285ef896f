"""Lethe: machine unlearning you can trust, track and repeat."""
