"""Logits tables and scores of `--method M`; M is a method, original, retrained, several of these (model_1,model_3), or all."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
