"""A command is killed at a random moment, and the same command is given again."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import psutil

from fault_kinds.scene import COMMANDS, Command, Stage, half_written, last_words, traced, wrong, wrong_search
from support.project import Started, at, at_step

KILLED = -signal.SIGKILL
# Narrow moments, between two things that must not come apart, beside those that a clock finds; argument: how often it may come
MOMENTS = (
    lambda n: at_step(n),
    lambda n: at("pathlib:Path.replace", n),
    lambda n: at("lethe.tracking.outbox:Outbox.append", n),
    lambda n: at("lethe.tracking.outbox:Outbox.mark_sent", n),
    lambda n: at("lethe.engine.resume:Resume.done", min(n, 2)),
    lambda n: at("shutil:rmtree", n),
)


def killed(stage: Stage, command: Command, draw: np.random.Generator) -> str:
    """Kill a command: half of the time when a clock says so, else at a narrow moment. Returns when."""
    project, seconds = stage.set_up(command.after), stage.uninterrupted(command).seconds
    if draw.random() < 0.5:
        after = draw.uniform(0, seconds)
        started = project.start(command.verb, *command.words)
        kill_after(started, after)
        return f"after {after:.2f} of {seconds:.2f} s"
    chosen, times = int(draw.integers(len(MOMENTS))), int(draw.integers(1, 24))
    moment = MOMENTS[chosen](times)
    done = project.run(command.verb, *command.words, **moment)
    return f"{moment['HIT']}{'' if done.returncode == KILLED else ', which did not come'}"


def kill_after(started: Started, seconds: float, number: int = signal.SIGKILL) -> int:
    """Send a signal to a forked stage after some seconds; its exit code."""
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(started.pid, number)
    return started.wait().returncode


def worker(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: one of several workers is killed, and the command goes on."""
    command = COMMANDS[name]
    expected = stage.uninterrupted(command)
    project, after = stage.set_up(command.after), draw.uniform(0, expected.seconds)
    started = project.start(command.verb, *command.words)
    time.sleep(after)
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = [child for child in psutil.Process(started.pid).children() if child.name() == "spawned"]
    for child in children[:1]:
        child.kill()
    done = started.wait()
    where = f" (a worker killed after {after:.2f} of {expected.seconds:.2f} s)" if children else " (no worker was there)"
    if done.returncode:
        yield f"the command ended with {done.returncode}: {last_words(done.stderr)}{where}"
    if "Traceback" in done.stderr:
        yield f"{traced(done.stderr)}{where}"
    compare = wrong_search if name == "search_workers" else wrong
    yield from (f"{fault}{where}" for fault in compare(project, expected))


def kill(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: the command is killed, given again, and everything is as if it had not been."""
    command = COMMANDS[name]
    expected = stage.uninterrupted(command)
    when = killed(stage, command, draw)
    project = stage.project
    done = project.run(command.verb, *command.words)
    faults = [f"the same command ended with {done.returncode}: {last_words(done.stderr)}"] if done.returncode else []
    if "Traceback" in done.stderr:
        faults.append(traced(done.stderr))
    faults += wrong(project, expected)
    if left := half_written(project):
        faults.append(f"half-written: {', '.join(left[:3])}")
    yield from (f"{fault} (killed {when})" for fault in faults)
