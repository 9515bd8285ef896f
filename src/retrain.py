"""The reference, trained on retain alone, or taken from retrain.checkpoint."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("retrain"))
