"""Files for DVC of what it cannot see itself: the listing of the images, the deletion request, every method's recipe."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("fingerprint"))
