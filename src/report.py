"""Tables 7 and 8 and four figures out of the score files and epoch tables of a workspace: report/."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.report import report

    report(config)


if __name__ == "__main__":
    sys.exit(main("report", work))
