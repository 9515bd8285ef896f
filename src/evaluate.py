"""Logits table and scores of `--method M`, or of `--method original` or `--method retrained`."""

import sys
from functools import partial

from unlearning.command import main
from unlearning.config import Config
from unlearning.scratch import STAGE


def work(config: Config, reference: str | None) -> None:
    from unlearning.unlearn import evaluate

    evaluate(config, reference)


def taken(said: list[str]) -> str | None:
    """The reference that `--method` names, taken out of `said`: it is no method, so the configuration would refuse it."""
    for at, word in enumerate(said):
        key, equals, value = word.partition("=")
        value = value if equals else "".join(said[at + 1 : at + 2])
        if key == "--method" and value in STAGE:
            del said[at : at + (1 if equals else 2)]
            return value
    return None


if __name__ == "__main__":
    said = sys.argv[1:]
    sys.exit(main("evaluate", partial(work, reference=taken(said)), said))
