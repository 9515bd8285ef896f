"""Erase what a deletion request named, wherever it is kept, and check that nothing of it is left."""
