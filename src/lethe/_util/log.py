"""Messages for the person at the terminal."""

import sys


def log(text: str) -> None:
    """Print a line on stderr: stdout has nothing but result tables, so that it can be piped."""
    print(text, file=sys.stderr, flush=True)
