"""Architectures, checkpoints, device and precision."""
