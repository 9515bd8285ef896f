"""The reference bank: pretrain.seeds originals and retrain.seeds retrained models, each kept as its logits table."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.grow import grow

    grow(config)


if __name__ == "__main__":
    sys.exit(main("bank", work))
