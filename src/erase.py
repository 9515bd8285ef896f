"""Erase the images of an unlearned deletion request wherever they are kept: a plan; `--yes` erases, `--check` searches for what is left."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("erase"))
