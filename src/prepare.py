"""Images, labels, ids and the four splits: data/ in the workspace."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("prepare"))
