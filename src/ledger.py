"""`verify`: check the chain of a workspace's ledger, in which each deletion request's events are recorded."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("ledger"))
