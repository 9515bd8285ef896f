"""The original, trained on retain and forget, or taken from pretrain.checkpoint."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("pretrain"))
