"""The main job on the bundled digits: params.yaml with its section `demo` laid over it, the same stages."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.unlearn import unlearn

    unlearn(config)


if __name__ == "__main__":
    sys.exit(main("demo", work, overlay="demo"))
