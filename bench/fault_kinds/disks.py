"""A command on a disk that becomes full, and again once there is room."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from fault_kinds.scene import COMMANDS, Stage, half_written, last_words, traced, wrong

SIZES = (8_000_000, 80_000_000)  # bytes of the disk, at least and at most
SPARE = 40_000_000  # bytes that a state and all that the commands write to it fit in


@contextmanager
def mounted(stage: Stage, size: int) -> Iterator[None]:
    """Mount a disk of so many bytes for the project."""
    shutil.rmtree(stage.disk, ignore_errors=True)
    stage.disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "lethe-faults", str(stage.disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(stage.disk)], check=True)


def resize(stage: Stage, size: int) -> None:
    """Change the size of the mounted disk."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(stage.disk)], check=True, capture_output=True)


def used(stage: Stage) -> int:
    """Bytes in use on the mounted disk."""
    about = os.statvfs(stage.disk)
    return (about.f_blocks - about.f_bfree) * about.f_frsize


def full(stage: Stage, name: str, draw: np.random.Generator) -> Iterator[str]:
    """One try: the disk has room for a part of what the command writes; in every second try that room comes and goes."""
    command = COMMANDS[name]
    expected = stage.uninterrupted(command)
    stage.set_up(command.after)  # made here, on a disk that is large enough
    with mounted(stage, SIZES[1]):
        project = stage.set_up(command.after)
        before = used(stage)
        room = int(draw.uniform(0, 1.2 * max(expected.grows, 200_000)))
        resize(stage, before + room)
        stop, comes_and_goes = threading.Event(), bool(draw.random() < 0.5)
        filler = threading.Thread(target=_fill_and_empty, args=(stage, before + room, stop, int(draw.integers(1 << 30))))
        if comes_and_goes:
            filler.start()
        done = project.run(command.verb, *command.words)
        stop.set()
        if comes_and_goes:
            filler.join()
        lines = done.stderr.strip().splitlines()
        where = f" (room for {room:,} bytes{', coming and going' if comes_and_goes else ''})"
        if "Traceback" in done.stderr:
            yield f"{traced(done.stderr)}{where}"
        elif done.returncode not in (0, 1):
            yield f"exit code {done.returncode}: {lines[-1:]}{where}"
        elif done.returncode and not (lines[-1].startswith("failed: ") and ("full" in lines[-1] or "No space" in lines[-1])):
            yield f"its last line does not say that the disk is full: {lines[-1][:200]}{where}"
        if left := half_written(project):
            yield f"half-written: {', '.join(left[:3])}{where}"
        resize(stage, SIZES[1] + SPARE)
        again = project.run(command.verb, *command.words)
        if again.returncode or "Traceback" in again.stderr:
            yield f"with room, the same command ended with {again.returncode}: {last_words(again.stderr)}{where}"
        yield from (f"{each}{where}" for each in wrong(project, expected))


def _fill_and_empty(stage: Stage, size: int, stop: threading.Event, seed: int) -> None:
    """Give the disk half a megabyte more for a moment, take it again, and so on."""
    draw = np.random.default_rng(seed)
    while not stop.is_set():
        time.sleep(draw.uniform(0, 0.4))
        with suppress(subprocess.CalledProcessError):  # it can't be smaller than what is on it
            resize(stage, size + 500_000 * int(draw.integers(2)))
