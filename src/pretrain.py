"""The original trained on retain and forget, or taken from pretrain.checkpoint."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning import references, results
    from unlearning.workspace import prepare

    prepared = prepare(config)
    references.weights(prepared, "original", anew=True, launched=True)
    print(results.show([("original", results.scores(prepared, "original"))]))


if __name__ == "__main__":
    sys.exit(main("pretrain", work))
