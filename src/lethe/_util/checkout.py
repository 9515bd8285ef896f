"""Where the program was installed from, which folder relative paths resolve against, and the commit that runs."""

import contextlib
import os
import shlex
import subprocess
from pathlib import Path

from lethe._util import dvc_stage

_PACKAGE = Path(__file__).resolve().parents[1]
_ABOVE = _PACKAGE.parents[1]
# The checkout that the package is in; None where it was installed from a wheel
CHECKOUT = _ABOVE if _PACKAGE.parent.name == "src" and (_ABOVE / "MLproject").is_file() else None


def root() -> Path:
    """Return the folder that relative paths in keys and the default store resolve against.

    DVC_ROOT when it is set, else the checkout, else the current folder."""
    return Path(os.environ.get("DVC_ROOT") or CHECKOUT or Path.cwd())


def here() -> Path:
    """Return the folder of params.yaml, which run.workspace is relative to.

    As `root()`, except under DVC: it runs a queued experiment in a copy of the checkout, as current folder, while DVC_ROOT stays the
    user's own."""
    return Path.cwd() if dvc_stage.active() else root()


def params_file() -> Path:
    """Return the params.yaml to read: that of `here()`; without a checkout and with none there, the packaged one."""
    own = here() / "params.yaml"
    return own if CHECKOUT or own.exists() else default_params()


def default_params() -> Path:
    """Return the params.yaml that comes with the program."""
    return (CHECKOUT or _PACKAGE) / "params.yaml"


def command(stage: str, *words: str) -> str:
    """Return how a stage is typed here: as a script of the checkout, without one as a verb of `lethe`.

    Args:
        stage: its verb.
        *words: the rest of the command line, quoted where a shell needs it.

    Returns:
        The command, in one line.
    """
    return shlex.join([*(["python", f"src/{stage}.py"] if CHECKOUT else ["lethe", stage]), *words])


def send_command(home: Path) -> str:
    """Return the command that sends the outboxes of a workspace, as it is typed.

    Args:
        home: The workspace.
    """
    return command("send", *([] if home.resolve() == root().resolve() else ["--run.workspace", str(home.resolve())]))


def commit() -> tuple[str, bool] | None:
    """Return the commit that runs and whether tracked files are modified; None unless the checkout is the top of a Git repository.

    In an experiment of DVC they are: what it changes is no commit, and Git, which looks at size and second, may not see it."""
    prefix, _, head = _git("rev-parse", "--show-prefix", "HEAD").rpartition("\n")
    if prefix or not head:
        return None
    return head, dvc_stage.experiment() or bool(_git("status", "--porcelain", "-uno"))


def addresses() -> set[str]:
    """Return how a launcher may name this project as the source of its run."""
    return {str(CHECKOUT), f"file://{CHECKOUT}", _git("config", "remote.origin.url")} - {""} if CHECKOUT else set()


def _git(*arguments: str) -> str:
    """Return what git prints in the checkout; "" without a checkout, git or a repository."""
    if CHECKOUT:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=20)
            return done.stdout.strip("\n")
    return ""
