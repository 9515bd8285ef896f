"""Kinds of faults, one module each: what happens to a command, and what must be true afterwards."""
