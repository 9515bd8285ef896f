"""The reference trained on retain alone, or taken from retrain.checkpoint."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning import references, results
    from unlearning.workspace import prepare

    prepared = prepare(config)
    references.weights(prepared, "retrained", anew=True, launched=True)
    print(results.show([("retrained", results.scores(prepared, "retrained"))]))


if __name__ == "__main__":
    sys.exit(main("retrain", work))
