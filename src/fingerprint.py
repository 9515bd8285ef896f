"""What DVC can't see by itself: the listing of the images, the deletion request, every method's recipe."""

import sys

from unlearning.command import main
from unlearning.config import Config


def work(config: Config) -> None:
    from unlearning.fingerprint import fingerprint

    fingerprint(config)


if __name__ == "__main__":
    sys.exit(main("fingerprint", work))
