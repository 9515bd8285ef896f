"""Unlearn by `--method M`; train what is missing first. `--explain [--time]`: print what would happen."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("unlearn"))
