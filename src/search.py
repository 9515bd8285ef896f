"""Search the arguments of --search.method. `adopt <trial> [<name>]`: write a trial to params.yaml as a variant."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("search"))
