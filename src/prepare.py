"""Images, labels, ids and the four splits: data/ in the workspace."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.workspace.workspace import prepare

    prepared = prepare(config, anew=True)
    counts = ", ".join(f"{name} {len(index):,}" for name, index in prepared.splits.items())
    print(f"{config.workspace / 'data'}: {len(prepared.images.classes)} classes; {counts}")


if __name__ == "__main__":
    sys.exit(main("prepare", work))
