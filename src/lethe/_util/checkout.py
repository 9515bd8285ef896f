"""Where the program stands: its checkout, what relative paths stand under, and what git says of it."""

import contextlib
import os
import subprocess
from pathlib import Path

from lethe._util import dvc_stage as under_dvc

CHECKOUT = Path(__file__).resolve().parents[3]


def root() -> Path:
    """What relative paths in keys, and the default store, stand under: DVC_ROOT when it is set, else the checkout."""
    return Path(os.environ.get("DVC_ROOT") or CHECKOUT)


def here() -> Path:
    """What params.yaml and run.workspace stand under: the same, but for DVC, which runs a queued experiment in a copy of the
    checkout, as current folder, while DVC_ROOT stays the user's own."""
    return Path.cwd() if under_dvc.runs() else root()


def commit() -> tuple[str, bool] | None:
    """The commit that runs and whether it is edited, where the checkout is a repository of its own."""
    prefix, _, head = _git("rev-parse", "--show-prefix", "HEAD").rpartition("\n")
    if prefix or not head:
        return None
    return head, bool(_git("status", "--porcelain", "-uno"))


def addresses() -> set[str]:
    """How a launcher names this project as the source of its row."""
    return {str(CHECKOUT), f"file://{CHECKOUT}", _git("config", "remote.origin.url")} - {""}


def _git(*arguments: str) -> str:
    """Its answer; nothing where there is no git or no repository."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip("\n")
    return ""
