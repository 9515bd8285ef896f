"""From a command line to an exit code: 0 done, 1 the run failed, 2 bad input, 130 stopped by the user."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from lethe._util.errors import RunFailed, UserError

try:
    from lethe._util import dvc_stage as under_dvc
    from lethe._util.redact import clean
    from lethe.cli import commands
    from lethe.config import loader
except ModuleNotFoundError as error:
    if str(error.name).startswith("lethe"):
        raise
    print(f"error: {sys.executable} has no {error.name}; `make env` builds .venv, which has: .venv/bin/python", file=sys.stderr)
    sys.exit(2)


def main(stage: str, argv: Sequence[str] | None = None) -> int:
    """Run a stage and return its exit code. Errors of the user are one line on stderr, without a traceback.

    Args:
        stage: the name of a script in src/, without its ending.
        argv: the words after it; None: those of this process."""
    words = list(sys.argv[1:] if argv is None else argv)
    if stage == "send":
        from lethe.cli import send

        return send.main(words)
    if "--help" in words or "-h" in words:
        print(loader.manual(stage))
        return 0
    signal.signal(signal.SIGTERM, _stop)
    under_dvc.begin()
    try:
        command = commands.parse(stage, words)
        config = loader.load(command.keys, overlay=command.overlay)
        command.load()(config, **command.arguments)
    except UserError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"failed: {clean(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `... | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does: resumable."""
    raise KeyboardInterrupt
