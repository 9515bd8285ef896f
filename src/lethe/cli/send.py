"""Send MLflow records that are still on disk because the tracking server did not answer."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lethe._util.checkout import root
from lethe._util.files import OUTBOX
from lethe.tracking.mlflow_delivery import send


def main(words: Sequence[str]) -> int:
    """Send the records of the named workspaces, by default of every workspace in this checkout.

    Returns:
        The exit code: 0 nothing is left, 1 something is (the reason is logged), 2 no such folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workspace", nargs="*", type=Path, help="folders whose .lethe/ holds unsent records (default: all here)")
    homes: list[Path] = parser.parse_args(words).workspace
    for home in homes:
        if not home.is_dir():
            print(f"{home} is no folder", file=sys.stderr)
            return 2
    homes = homes or [home for home in (root(), *root().glob("*/")) if (home / OUTBOX).is_dir()]
    unsent = send(homes)
    held = sum(len(list((home / OUTBOX).glob("*/"))) for home in homes)
    if unsent:
        print(f"{unsent} records are not sent")
    else:
        print(f"{held} rows are left to the processes that run them" if held else "Everything is sent")
    return 1 if unsent else 0
