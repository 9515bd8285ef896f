"""Read every file of a workspace: which are damaged, how to make them again, and which belong to nothing."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("verify"))
