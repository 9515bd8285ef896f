"""Places that may not be written, locks of other users, limits of processes and files, clocks that are set, two commands at once."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fault_kinds.scene import COMMANDS, Stage, half_written, last_words, traced, wrong, wrong_runs
from support.project import Project, clock_back, limited

NOBODY = 65534
REMEDY = re.compile(r"`python src/(?P<words>[^`]*)` creates it again")


def _one_line(done: "subprocess.CompletedProcess[str]", *codes: int) -> Iterator[str]:
    lines = done.stderr.strip().splitlines()
    if "Traceback" in done.stderr:
        yield traced(done.stderr)
    elif done.returncode not in codes:
        yield f"exit code {done.returncode}: {lines[-1:]}"
    elif done.returncode and not lines[-1].startswith(("failed: ", "error: ")):
        yield f"exit code {done.returncode}, and its last line is no reason: {lines[-1][:200]}"


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: the workspace, or a folder of it, can't be written."""
    command = COMMANDS[name]
    project = stage.set_up(command.after)
    folders = [project.root, *(path for path in project.root.iterdir() if path.is_dir() and path.name != "mlruns")]
    folder = folders[int(draw.integers(len(folders)))]
    with _read_only(folder):
        done = project.run(command.verb, *command.words)
    where = f" ({folder.relative_to(stage.disk)} is read-only)"
    yield from (f"{each}{where}" for each in _one_line(done, 0, 1, 2))
    if left := half_written(project):
        yield f"half-written: {', '.join(left[:3])}{where}"
    again = project.run(command.verb, *command.words)
    if again.returncode:
        yield f"when it can be written, it ended with {again.returncode}: {last_words(again.stderr)}{where}"
    yield from (f"{each}{where}" for each in wrong(project, stage.uninterrupted(command) if not again.returncode else None))


def of_another_user(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: another account gives the command in a workspace in which it may write some folders, or none."""
    command = COMMANDS[name]
    project = stage.set_up(command.after)
    open_ = [path for path in project.root.rglob("*") if path.is_dir() and draw.random() < 0.5]
    for path in open_:
        path.chmod(0o777)
    done = project.run(command.verb, *command.words, **limited(USER=NOBODY))
    yield from (f"{each} (as nobody; {len(open_)} folders may be written)" for each in _one_line(done, 0, 1, 2))


def limits(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: few files may be open, or few processes and threads started."""
    command = COMMANDS[name]
    project = stage.set_up(command.after)
    most = {"NOFILE": int(draw.integers(12, 80))} if draw.random() < 0.6 else {"NPROC": int(draw.integers(1, 5)), "USER": NOBODY}
    if "USER" in most:
        _give(project.root, NOBODY)
    done = project.run(command.verb, *command.words, **limited(**most))
    where = f" ({', '.join(f'{key} {value}' for key, value in most.items())})"
    yield from (f"{each}{where}" for each in _one_line(done, 0, 1))
    if left := half_written(project):
        yield f"half-written: {', '.join(left[:3])}{where}"
    _give(project.root, os.getuid())
    again = project.run(command.verb, *command.words)
    if again.returncode:
        yield f"without the limit, it ended with {again.returncode}: {last_words(again.stderr)}{where}"
    yield from (f"{each}{where}" for each in wrong(project, stage.uninterrupted(command) if not again.returncode else None))


def _give(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user)


def clock(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: the clock is set back whenever it is read, and the files are from the future."""
    command = COMMANDS[name]
    expected = stage.uninterrupted(command)
    project = stage.set_up(command.after)
    future = 4e9
    for path in project.root.rglob("*"):
        if path.is_file() and draw.random() < 0.5:
            os.utime(path, (future, future))
    back = float(draw.choice([0.5, 60, 86400]))
    done = project.run(command.verb, *command.words, **clock_back(back))
    yield from (f"{each} (back by {back:g} s)" for each in (*_one_line(done, 0), *wrong(project, expected), *_durations(project)))


def _durations(project: Project) -> Iterator[str]:
    for row in project.rows():
        for key in ("seconds", "epoch_seconds"):
            if any(value < 0 for _, value in row["metrics"].get(key, ())):
                yield f"{key} of {row['name']} is negative"


def pair(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: two commands at once in one workspace, `first+second`. Each does its work or says why not; then each does it."""
    commands = [COMMANDS[each] for each in name.split("+")]
    project = stage.set_up("result")
    started = [project.start(command.verb, *command.words) for command in commands]
    for command, one in zip(commands, started, strict=True):
        yield from (f"{command.verb}: {each}" for each in _one_line(one.wait(), 0, 1, 2))
    if left := half_written(project):
        yield f"half-written: {', '.join(left[:3])}"
    for command in commands:
        done = project.run(command.verb, *command.words)
        if done.returncode and (remedy := REMEDY.search(done.stderr)):  # a bank was made: scores by the retrained model alone are older
            script, *words = shlex.split(remedy["words"])
            project.run(script.removesuffix(".py"), *words)
            done = project.run(command.verb, *command.words)
        said = last_words(done.stderr)
        nothing_to_do = any(each.verb == "erase" for each in commands) and done.returncode == 2  # the request is gone
        if done.returncode and not nothing_to_do:
            yield f"then {command.verb} ended with {done.returncode}: {said}"
        if "Traceback" in done.stderr:
            yield f"then {command.verb}: {traced(done.stderr)}"
    yield from wrong_runs(project)
