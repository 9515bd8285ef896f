"""From a command line to an exit code: 0 done, 1 the run failed, 2 bad input, 130 stopped by the user."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from lethe._util.errors import RunFailed, UserError

try:
    from lethe._util import collector, dvc_stage
    from lethe._util.redact import clean
    from lethe.cli import completion
    from lethe.cli import help as manual
    from lethe.cli.stages import STAGES, nearest
except ModuleNotFoundError as error:
    if str(error.name).startswith("lethe"):
        raise
    print(f"error: {sys.executable} has no {error.name}; `make env` builds .venv, which has: .venv/bin/python", file=sys.stderr)
    sys.exit(2)

HELP = frozenset(("--help", "-h", "--help-all"))
STOPS = (UserError, RunFailed, KeyboardInterrupt, BrokenPipeError)  # what ends a command without a traceback


def lethe() -> int:
    """Run the console command `lethe <verb> [...]`.

    Returns:
        The exit code of the verb; 2 if there is no such verb.
    """
    verb, *words = sys.argv[1:] or [""]
    if verb in STAGES:
        return main(verb, words, program=f"lethe {verb}")
    try:
        if verb == "--completion":
            print(completion.script(" ".join(words)))
        else:
            _without_verb(verb)
    except STOPS as error:
        return _exit_code(error)
    return 0


def _without_verb(word: str) -> None:
    pages = {"--help": manual.verbs, "-h": manual.verbs, "--list": manual.registries, "--version": manual.version}
    if word not in pages:
        wrong = f"{word} is not a verb; nearest: {nearest(word)}" if word else "no verb is given"
        raise UserError(f"{wrong}; `lethe --help` lists them")
    print(pages[word]())


def main(verb: str, argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a stage.

    Args:
        verb: Name of the stage in `STAGES`.
        argv: Words after the program's name; None: those of this process.
        program: How the stage was called, for its help; None: as the script in src/.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    collector.spare()
    try:
        if not HELP.isdisjoint(words):
            print(manual.stage(verb, program or f"python src/{verb}.py", words, every="--help-all" in words))
            return 0
        signal.signal(signal.SIGTERM, _stop)
        dvc_stage.begin()
        work = STAGES[verb].parse(words).work(verb)
        code = work()
        return code if isinstance(code, int) else 0
    except STOPS as error:
        return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Print an error that the user can fix as one line on stderr, without a traceback; return its exit code."""
    if isinstance(error, UserError):
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 2
    if isinstance(error, RunFailed):
        print(f"failed: {clean(str(error))}", file=sys.stderr)
        return 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `... | head`: the reader has enough
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """End a run on SIGTERM as on Ctrl-C: resumable."""
    raise KeyboardInterrupt
