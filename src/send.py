"""Send MLflow records that are still on disk: `send.py [workspace ...]`, by default every workspace in this checkout."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("send"))
