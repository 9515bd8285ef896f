"""Signals that stop a command, at random moments, the first second of an interpreter among them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from fault_kinds.kills import kill_after
from fault_kinds.scene import COMMANDS, ROOT, Stage, half_written, last_words, traced, wrong, wrong_runs

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
STOPPED = 130


def stopped(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: a signal stops the command, which says so, leaves nothing half-written, and goes on when it is given again."""
    command = COMMANDS[name]
    expected = stage.uninterrupted(command)
    project = stage.set_up(command.after)
    number, after = SIGNALS[int(draw.integers(len(SIGNALS)))], draw.uniform(0, expected.seconds)
    started = project.start(command.verb, *command.words)
    code = kill_after(started, after, number)
    said = started.err.read_text()
    where = f" ({number.name} after {after:.2f} of {expected.seconds:.2f} s)"
    if code not in (0, STOPPED, -number):  # the last: before the program could ask for it
        yield f"exit code {code}: {last_words(said)}{where}"
    if "Traceback" in said:
        yield f"{traced(said)}{where}"
    if left := half_written(project):
        yield f"half-written: {', '.join(left[:3])}{where}"
    if code == STOPPED:
        yield from (f"before it is given again: {each}{where}" for each in wrong_runs(project))
    if (done := project.run(command.verb, *command.words)).returncode:
        yield f"the same command ended with {done.returncode}: {last_words(done.stderr)}{where}"
    yield from (f"{each}{where}" for each in wrong(project, expected))


def first_second(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: a signal in the first second of an interpreter, while it imports."""
    command = COMMANDS[name]
    project = stage.set_up(command.after)
    number, after = SIGNALS[int(draw.integers(len(SIGNALS)))], draw.uniform(0.05, 1)
    words = [sys.executable, str(ROOT / "src" / f"{command.verb}.py"), *command.words]
    process = subprocess.Popen(
        words, cwd=project.root, env=project.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(after)
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
    _, said = process.communicate()
    where = f" ({number.name} after {after:.2f} s)"
    if process.returncode not in (0, STOPPED, -number):
        yield f"exit code {process.returncode}: {last_words(said)}{where}"
    if "Traceback" in said:
        yield f"{traced(said)}{where}"
    if left := half_written(project):
        yield f"half-written: {', '.join(left[:3])}{where}"
