"""What DVC can't see by itself: the listing of the images, the deletion request, every method's recipe."""

import sys

from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.workspace.fingerprint import fingerprint

    fingerprint(config)


if __name__ == "__main__":
    sys.exit(main("fingerprint", work))
