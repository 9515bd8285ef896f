"""From a command line to an exit code: 0 done, 1 the run failed, 2 bad input, 130 stopped by the user."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from lethe._util.errors import RunFailed, UserError

try:
    from lethe._util import dvc_stage as under_dvc
    from lethe._util.redact import clean
    from lethe.config import loader as config
    from lethe.config.loader import Config
except ModuleNotFoundError as error:
    if str(error.name).startswith("lethe"):
        raise
    print(f"error: {sys.executable} has no {error.name}; `make env` builds .venv, which has: .venv/bin/python", file=sys.stderr)
    sys.exit(2)


def main(stage: str, work: Callable[[Config], None], argv: Sequence[str] | None = None, overlay: str | None = None) -> int:
    """Run a stage. Bad input is said in one line on stderr before anything is written; no traceback for what is the user's."""
    said = list(sys.argv[1:] if argv is None else argv)
    if "--help" in said or "-h" in said:
        print(config.manual(stage))
        return 0
    signal.signal(signal.SIGTERM, _stop)
    under_dvc.begin()
    try:
        work(config.load(said, overlay=overlay))
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
