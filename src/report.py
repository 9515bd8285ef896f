"""Tables and figures of a workspace: report/. `card`: the unlearning card of --method. `card --list <id>`: the cards that name an image."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("report"))
