"""The reference bank: pretrain.seeds originals and retrain.seeds retrained models, each kept as its logits table."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("bank"))
