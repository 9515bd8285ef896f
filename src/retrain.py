"""The reference trained on retain alone, or taken from retrain.checkpoint."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.pipeline import references
    from lethe.workspace import scores as results
    from lethe.workspace.workspace import prepare

    prepared = prepare(config)
    references.weights(prepared, "retrained", anew=True, launched=True)
    print(results.show([("retrained", results.scores(prepared, "retrained"))]))


if __name__ == "__main__":
    sys.exit(main("retrain", work))
