"""Runs units of work in several processes on this machine."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from lethe._util import collector, memory
from lethe._util.errors import RunFailed
from lethe.parallel.work_units import MAX_ATTEMPTS, STOP_TIMEOUT, Item, Outcome, attempt, describe, pack

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

log = logging.getLogger(__name__)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    unit: tuple[Any, int] | None = None  # the item it is running, and the number of the attempt

    @classmethod
    def start(cls, fn: Callable[[Any], Any], environment: dict[str, str]) -> "_Worker":
        spawn = multiprocessing.get_context("spawn")  # a forked process could use neither CUDA nor threads started before the fork
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, fn), daemon=True)
        # Set before the process imports anything: of the current folder, which may hold anybody's files, it imports nothing
        with _environment(environment | {"PYTHONSAFEPATH": "1"}):
            process.start()
        theirs.close()
        return cls(process, ours)

    def answer(self) -> tuple[Any, Exception | None] | None:
        """Return the result and the error of the worker's unit; None: the process died."""
        try:
            answer: tuple[Any, Exception | None] = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join(STOP_TIMEOUT)
            return None
        return answer

    def cause_of_death(self) -> str:
        code = self.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def run_in_processes(fn: Callable[[Item], Any], items: list[Item], workers: int, gpus: float | None) -> "Generator[Outcome[Item]]":
    """Run units in processes.

    Args:
        fn: Called with each item; must be at the top level of a module.
        items: The units; must be picklable.
        workers: Number of processes, which share the threads equally.
        gpus: 0: no GPU; otherwise each process uses one GPU, assigned in turn.

    Yields:
        Outcomes, in the order in which units finish.
    """
    waiting = deque((item, 1) for item in items)
    crew: dict[int, _Worker] = {}
    environments = _environments(workers, gpus)
    try:
        while True:
            for place in range(workers):
                if waiting and (place not in crew or not crew[place].unit):
                    if place not in crew or not crew[place].process.is_alive():
                        crew[place] = _Worker.start(fn, environments[place])
                    crew[place].unit = unit = waiting.popleft()
                    with contextlib.suppress(OSError):  # it has just died, which is noticed below
                        crew[place].pipe.send(unit[0])
            busy = [(place, worker, worker.unit) for place, worker in crew.items() if worker.unit]
            if not busy:
                return
            ready = wait([end for _, worker, _ in busy for end in (worker.pipe, worker.process.sentinel)])
            for place, worker, (item, attempts) in busy:
                if worker.pipe not in ready and worker.process.sentinel not in ready:
                    continue
                answer = worker.answer()
                worker.unit = None
                if answer:
                    yield item, *answer
                    continue
                del crew[place]
                if attempts == MAX_ATTEMPTS:
                    yield item, None, RunFailed(f"its process died {attempts} times, the last time {worker.cause_of_death()}")
                else:
                    log.warning("The process of %s died %s; it is tried again", describe(item), worker.cause_of_death())
                    waiting.appendleft((item, attempts + 1))
    finally:
        _stop(crew.values())


def _stop(crew: Iterable[_Worker]) -> None:
    """Close the pipes, which ends idle workers, and interrupt busy ones, which first finish what must not be interrupted."""
    try:
        for worker in crew:
            worker.pipe.close()
            if worker.unit:
                worker.process.terminate()
        for worker in crew:
            worker.process.join(STOP_TIMEOUT)
    finally:
        for worker in crew:
            worker.process.kill()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environments(workers: int, gpus: float | None) -> list[dict[str, str]]:
    """Return the environment variables of each worker: its share of the threads, and its GPU."""
    share = {name: str(max(1, int(os.environ.get(name, cores())) // workers)) for name in THREADS}
    return [share | ({"CUDA_VISIBLE_DEVICES": cards[place % len(cards)]} if (cards := _gpus(gpus)) else {}) for place in range(workers)]


def _gpus(gpus: float | None) -> list[str]:
    if gpus == 0:
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [card for card in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if card]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- in the worker's process ------------------------------------------------------------------------------------------


def _work(pipe: Connection, fn: Callable[[Any], Any]) -> None:
    """Run units until the pipe is closed. If interrupted, or if the parent dies, the process ends as after Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal also reaches the parent, which then interrupts us
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collector.spare()
    memory.keep()
    try:
        while True:
            pipe.send_bytes(pack(attempt(fn, pipe.recv())))
    except (EOFError, OSError):
        return
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(number: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second interrupt must not break the clean-up of the first
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(STOP_TIMEOUT)
    os._exit(130)
