"""Unlearn by `--method M`, doing first what is missing. `--explain [--time]`: only say what would happen."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.pipeline.unlearn import unlearn

    unlearn(config)


def explain(config: Config) -> None:
    from lethe.pipeline.dry_run import explain

    print(explain(config, measure="--time" in sys.argv))


if __name__ == "__main__":
    said = [word for word in sys.argv[1:] if word not in ("--explain", "--time")]
    sys.exit(main("unlearn", explain if "--explain" in sys.argv else work, said))
