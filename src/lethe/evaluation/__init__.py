"""Arithmetic on logits tables: every measure, its uncertainty, and the verdict."""
