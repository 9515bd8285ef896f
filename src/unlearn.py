"""Unlearn by `--method M`, doing first what is missing. `--explain [--time]`: only say what would happen."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.unlearn import unlearn

    unlearn(config)


def explain(config: Config) -> None:
    from unlearning.explain import explain

    print(explain(config, measure="--time" in sys.argv))


if __name__ == "__main__":
    said = [word for word in sys.argv[1:] if word not in ("--explain", "--time")]
    sys.exit(main("unlearn", explain if "--explain" in sys.argv else work, said))
