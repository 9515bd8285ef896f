"""The reference bank: pretrain.seeds originals and retrain.seeds retrained models, each kept as its logits table."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.pipeline.bank_training import grow

    grow(config)


if __name__ == "__main__":
    sys.exit(main("bank", work))
