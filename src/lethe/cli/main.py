"""From a command line to an exit code: 0 done, 1 the run failed, 2 bad input, 130 stopped by the user."""

import sys

try:
    import contextlib
    import errno
    import importlib
    import os
    import signal
    import sysconfig
    import threading
    import traceback
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from lethe._util import collector, dvc_stage, in_use, memory
    from lethe._util.errors import RunFailed, UserError, one_line
    from lethe._util.files import FULL, unwritable
    from lethe._util.integrity import Damaged
    from lethe._util.log import log
    from lethe._util.names import nearest
    from lethe._util.redact import clean
    from lethe.cli import completion
    from lethe.cli import help as manual
    from lethe.cli.stages import STAGES
except ModuleNotFoundError as error:
    if str(error.name).startswith("lethe"):
        raise
    print(f"error: {sys.executable} has no {error.name}; `make env` builds .venv, which has: .venv/bin/python", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # Ctrl-C in the first second
    sys.exit(130)

LIMITS = {errno.EMFILE: " (`ulimit -n`)", errno.EAGAIN: " (`ulimit -u`)"}  # what the user can raise
HELP = frozenset(("--help", "-h", "--help-all"))
STOPS = (UserError, RunFailed, KeyboardInterrupt, OSError, MemoryError)  # what ends a command without a traceback
INSTALLED = frozenset(("site-packages", "dist-packages"))  # folders of packages, also of the user's account and of the system
NO_THREAD = "can't start new thread"  # RuntimeError's text where the limit of processes is reached


def lethe() -> int:
    """Run the console command `lethe <verb> [...]`.

    Returns:
        The exit code of the verb; 2 if there is no such verb.
    """
    verb, *words = sys.argv[1:] or [""]
    if verb in STAGES:
        with _last():
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
        wrong = f"{word} is not a verb; nearest: {nearest(word, STAGES)}" if word else "no verb is given"
        raise UserError(f"{wrong}; `lethe --help` lists them")
    print(pages[word]())


def main(verb: str, argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a stage. A program that calls it has its signal handlers back afterwards.

    Args:
        verb: Name of the stage in `STAGES`.
        argv: Words after the program's name; None: those of this process.
        program: How the stage was called, for its help; None: as the script in src/.

    Returns:
        The exit code.
    """
    if argv is None:
        with _last():
            return main(verb, sys.argv[1:], program)
    words, stopped = list(argv), ""
    try:
        if not HELP.isdisjoint(words):
            print(manual.stage(verb, program or f"python src/{verb}.py", words, every="--help-all" in words))
            return 0
        with _stopped_by_signals():
            dvc_stage.begin()
            command = STAGES[verb].parse(words)
            stopped = command.stopped
            code = command.work(verb)()
        return code if isinstance(code, int) else 0
    except STOPS as error:
        if stopped and isinstance(error, KeyboardInterrupt):
            log(stopped)
        return _exit_code(error)
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        return _exit_code(RunFailed("no further thread can be started: the limit of processes and threads is reached (`ulimit -u`)"))
    finally:
        in_use.leave()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored (by nohup), end what runs as Ctrl-C does. Only a main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else [])]
    before = {number: signal.signal(number, _stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that Python did not set


@contextlib.contextmanager
def _last() -> Iterator[None]:
    """The process is this command's. Afterwards the interpreter ends, which takes a moment: from then on a signal ends it at once, as
    there is nothing to lose."""
    collector.spare()
    memory.keep()
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


def _exit_code(error: BaseException) -> int:
    """Print an error that the user can fix as one line on stderr, without a traceback; return its exit code."""
    if isinstance(error, UserError | RunFailed):
        text, code = clean(_with_remedy(error)), 2 if isinstance(error, UserError) else 1
        print(f"{'error' if code == 2 else 'failed'}: {text}", file=sys.stderr, flush=True)
        if os.environ.get("MLFLOW_RUN_ID"):
            importlib.import_module("lethe.tracking.launched_run").note_error(text)
        return code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, MemoryError):
        return _exit_code(RunFailed("this machine has not enough memory for that"))
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        named = error.filename2 or error.filename  # of a copy, what was to be written
        if (error.filename is None and error.errno is None) or _of_others(error):  # a bug, or their own file: the place must be seen
            raise error
        if error.errno in FULL and named is not None:
            return _exit_code(unwritable(Path(named), error))
        where = f"{error.filename}: " if error.filename is not None else ""
        return _exit_code(RunFailed(f"{where}{error.strerror or error}{LIMITS.get(error.errno or 0, '')}"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `... | head`: the reader has enough
    return 0


def _with_remedy(error: UserError | RunFailed) -> str:
    """The message; of a damaged file of a workspace with the command that makes it again."""
    if isinstance(error, Damaged):
        with contextlib.suppress(OSError, UserError):
            if remedy := importlib.import_module("lethe.workspace.repair").remedy(error.path):
                return one_line(f"{error.path} {error.reason}; {remedy}")
    return str(error)


def _of_others(error: BaseException) -> bool:
    """Whether an error comes out of code that is neither this program's nor installed: a user's own model, method, source or measure."""
    folders = (str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    known = ("<", *(folder + os.sep for folder in folders))
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(not file.startswith(known) and INSTALLED.isdisjoint(Path(file).parts) for file in files)


def _stop(number: int, frame: FrameType | None) -> None:
    """End a run on SIGTERM, and on SIGHUP when its terminal is closed, as on Ctrl-C: resumable."""
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            if os.isatty(stream):  # writing to it would be an error
                os.dup2(nowhere, stream)
    raise KeyboardInterrupt
