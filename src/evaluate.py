"""Logits tables and scores of the original, the retrained model and `--method M`."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.unlearn import evaluate

    evaluate(config)


if __name__ == "__main__":
    sys.exit(main("evaluate", work))
