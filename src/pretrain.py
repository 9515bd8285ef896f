"""The original trained on retain and forget, or taken from pretrain.checkpoint."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.pipeline import references
    from lethe.workspace import scores as results
    from lethe.workspace.workspace import prepare

    prepared = prepare(config)
    references.weights(prepared, "original", anew=True, launched=True)
    print(results.show([("original", results.scores(prepared, "original"))]))


if __name__ == "__main__":
    sys.exit(main("pretrain", work))
