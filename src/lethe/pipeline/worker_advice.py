"""Advice to run units of work in parallel: one line before a command runs them one after another, where that takes longer.

It is advice and not a default: a run with another number of threads ends at other last digits, so what one process with all threads began
is not continued by workers with one thread each unless somebody says so. The numbers are those of bench/threads.py (docs/team.md).
"""

import os
import platform
from collections.abc import Callable

import psutil
import torch

from lethe._util.log import log
from lethe.parallel.processes import cores
from lethe.workspace import timing
from lethe.workspace.workspace import Prepared

START = 10.0  # seconds until a worker has imported everything and read the images
FURTHER_THREAD = 0.5  # by which a further thread speeds up the steps of a large network with large batches; smaller ones gain less
CROWDED = 1.1  # the time of a step next to other workers' steps, in that of a step alone
WORTH_SAYING = 60.0  # seconds that workers must save
MEMORY = 1.5  # a worker's peak, in what this process holds before it trains

_advised: set[str] = set()


def faster_workers(units: int, seconds: float, threads: int, most: int) -> tuple[int, float]:
    """Choose between one process with several threads and several processes with one thread each.

    Args:
        units: equal units of work.
        seconds: that each takes in one process with all threads.
        threads: of that process.
        most: number of processes for which there are cores and memory.

    Returns:
        The number of processes, 1 where several save less than WORTH_SAYING, and the seconds that it takes.
    """
    alone = seconds * (1 + FURTHER_THREAD * (threads - 1)) * CROWDED  # a unit on one thread
    took = {workers: START + -(-units // workers) * alone for workers in range(2, min(most, units) + 1)}
    best = min(took, key=lambda workers: took[workers], default=1)
    here = units * seconds
    return (best, took[best]) if best > 1 and here - took[best] >= WORTH_SAYING else (1, here)


def advise(prepared: Prepared, key: str, units: int, share: Callable[[], float], what: str) -> None:
    """Log one line where units that are about to run one after another would be finished sooner in parallel.

    At most one line a process. None where `key` was given, on a GPU, on a cluster, or where this machine did not train the retrained
    model: its time is the measure.

    Args:
        prepared: the images and splits.
        key: that says how many run in parallel.
        units: to run.
        share: computes the work of each, next to training the retrained model.
        what: the units, in words.
    """
    if key in prepared.config.given or os.environ.get("RAY_ADDRESS") or prepared.compute.device.type != "cpu":
        return
    clock = timing.retraining(prepared.layout)
    if (clock.get("machine"), clock.get("device")) != (platform.node(), "cpu"):
        return
    room = int(psutil.virtual_memory().available / (MEMORY * psutil.Process().memory_info().rss))
    threads = torch.get_num_threads()
    each = share() * clock["seconds"]
    workers, seconds = faster_workers(units, each, threads, min(cores(), room))
    if workers > 1 and not _advised:
        _advised.add(key)
        digits = ", which changes last digits" if threads > 1 else ""
        here, there = (f"{number / 60:.0f}" for number in (units * each, seconds))
        how = f"--{key} {workers} (one thread each{digits})"
        log(f"{what}: about {here} minutes one after another, {there} by {how}; what is finished is kept")
