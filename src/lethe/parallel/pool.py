"""Where units of work run: here, one after the other; in processes beside each other; on the machines of a Ray cluster. Nothing
else starts a process, and Ray is imported only where RAY_ADDRESS names a cluster.

A unit keeps its own result (its file, its MLflow row, its trial) and finds it again, so that a kill costs what was running.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import clean, summarize_error

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome = tuple[Item, Any, Exception | None]

TRIES = 3  # of a unit whose process dies
STOPPING = 60.0  # seconds that a unit which is told to stop may take
CARRIED = ("MLFLOW_", "DVC_", "PG", "AWS_")  # what of the environment goes to another machine: where rows, trials and files are kept
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

log = logging.getLogger(__name__)


def spread(
    fn: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 1, gpus: float | None = None, fail_fast: bool = False
) -> Iterator[tuple[Item, Result]]:
    """Pairs of an item and `fn(item)`, as they are finished.

    With `workers` above 1 in so many processes, each with its share of the threads and, unless `gpus` is 0, one of the GPUs in
    turn. With RAY_ADDRESS set as tasks of that cluster, `workers` at once; `gpus` is the share of a GPU that each takes (None: a
    whole one, if there is any), and the machines have this checkout and the workspace at the same place. In both cases `fn` is
    a function of a module, and it and the items can be pickled.
    A process or machine that dies costs its own unit, which is tried again. A unit that raises does not stop the others: the first
    such error is raised behind them all, naming its item; with `fail_fast` at once, and the others are stopped.
    Whoever stops, stops them all (KeyboardInterrupt in `fn`)."""
    units = list(items)
    workers = min(workers, len(units))
    first: Exception | None = None
    with contextlib.closing(_outcomes(fn, units, workers, gpus)) as outcomes:
        for item, result, error in outcomes:
            if error is None:
                yield item, result
                continue
            if fail_fast:
                raise _naming(item, error)
            if len(units) > 1:
                log.warning("%s failed (%s); the others go on", _named(item), error)
            first = first or _naming(item, error)
    if first:
        raise first


def _outcomes(fn: Callable[[Item], Result], items: list[Item], workers: int, gpus: float | None) -> "Generator[Outcome[Item]]":
    if items and os.environ.get("RAY_ADDRESS"):
        return _tasks(fn, items, workers, gpus)
    return _processes(fn, items, workers, gpus) if workers > 1 else _loop(fn, items)


def _named(item: Any) -> str:
    """The item on one line of bearable length, without passwords."""
    text = clean(" ".join(str(item).split()))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _naming(item: Any, error: Exception) -> Exception:
    if isinstance(error, UserError | RunFailed):
        return type(error)(f"{_named(item)}: {error}")
    error.add_note(f"in the unit {_named(item)}")
    return error


def _loop(fn: Callable[[Item], Result], items: Iterable[Item]) -> "Generator[Outcome[Item]]":
    for item in items:
        try:
            result = fn(item)
        except Exception as error:
            yield item, None, error
        else:
            yield item, result, None


# ---- processes ------------------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    unit: tuple[Any, int] | None = None  # what it is at, and which try that is

    @classmethod
    def start(cls, fn: Callable[[Any], Any], environment: dict[str, str]) -> "_Worker":
        spawn = multiprocessing.get_context("spawn")  # a fork can't use CUDA, nor threads that were there before it
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, fn), daemon=True)
        with _set(environment):  # before anything is imported there
            process.start()
        theirs.close()
        return cls(process, ours)

    def answer(self) -> tuple[Any, Exception | None] | None:
        """What it made of its unit, or None: it died."""
        try:
            answer: tuple[Any, Exception | None] = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join(STOPPING)
            return None
        return answer

    def died(self) -> str:
        code = self.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _processes(fn: Callable[[Any], Any], items: list[Any], workers: int, gpus: float | None) -> "Generator[Outcome[Any]]":
    waiting = deque((item, 1) for item in items)
    crew: dict[int, _Worker] = {}
    places = _places(workers, gpus)
    try:
        while True:
            for place in range(workers):
                if waiting and (place not in crew or not crew[place].unit):
                    if place not in crew or not crew[place].process.is_alive():
                        crew[place] = _Worker.start(fn, places[place])
                    crew[place].unit = unit = waiting.popleft()
                    with contextlib.suppress(OSError):  # it died in this moment: seen below
                        crew[place].pipe.send(unit[0])
            busy = [(place, worker, worker.unit) for place, worker in crew.items() if worker.unit]
            if not busy:
                return
            ready = wait([end for _, worker, _ in busy for end in (worker.pipe, worker.process.sentinel)])
            for place, worker, (item, tried) in busy:
                if worker.pipe not in ready and worker.process.sentinel not in ready:
                    continue
                answer = worker.answer()
                worker.unit = None
                if answer:
                    yield item, *answer
                    continue
                del crew[place]
                if tried == TRIES:
                    yield item, None, RunFailed(f"its process died {tried} times, the last time {worker.died()}")
                else:
                    log.warning("The process of %s died %s; it is tried again", _named(item), worker.died())
                    waiting.appendleft((item, tried + 1))
    finally:
        _stop(crew.values())


def _stop(crew: Iterable[_Worker]) -> None:
    """The idle ones see the end of their pipe; the others are told, and may end what they do."""
    try:
        for worker in crew:
            worker.pipe.close()
            if worker.unit:
                worker.process.terminate()
        for worker in crew:
            worker.process.join(STOPPING)
    finally:
        for worker in crew:
            worker.process.kill()


def _places(workers: int, gpus: float | None) -> list[dict[str, str]]:
    """What differs in the environment of each: a share of the threads, and one GPU of those that are there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = {name: str(max(1, int(os.environ.get(name, cores)) // workers)) for name in THREADS}
    return [share | ({"CUDA_VISIBLE_DEVICES": cards[place % len(cards)]} if (cards := _gpus(gpus)) else {}) for place in range(workers)]


def _gpus(gpus: float | None) -> list[str]:
    if gpus == 0:
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [card for card in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if card]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def _set(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---- Ray ------------------------------------------------------------------------------------------------------------


def _tasks(fn: Callable[[Any], Any], items: list[Any], workers: int, gpus: float | None) -> "Generator[Outcome[Any]]":
    ray = _cluster()
    share = gpus if gpus is not None else float("GPU" in ray.cluster_resources())
    task = ray.remote(num_gpus=share, max_retries=TRIES - 1)(_task)
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    surroundings = ray.put((carried, str(Path.cwd())))  # not Ray's runtime_env: its logs and pages show that, passwords and all
    waiting, running = deque(items), dict[Any, Any]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                item = waiting.popleft()
                running[task.remote(fn, item, surroundings)] = item
            (ready,), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(ready)
            try:
                answer = pickle.loads(ray.get(ready))
            except ray.exceptions.RayTaskError as error:
                answer = None, RunFailed(f"a machine of {os.environ['RAY_ADDRESS']} can't run it: {error.cause}")
            except ray.exceptions.RayError as error:
                answer = None, RunFailed(f"its process died {TRIES} times: {summarize_error(error)}")
            yield item, *answer
    finally:
        for force in (False, True):  # told, as a process is; then ended
            for reference in running:
                ray.cancel(reference, force=force)
            if running and not force:
                ray.wait(list(running), num_returns=len(running), timeout=STOPPING)


def _cluster() -> Any:
    """Ray, connected."""
    address = os.environ["RAY_ADDRESS"]
    try:
        import ray
    except ImportError:
        raise UserError(f"RAY_ADDRESS is {address}, and Ray is not installed: make ray, on every machine") from None
    try:
        ray.init(ignore_reinit_error=True, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"RAY_ADDRESS is {address}, where no Ray cluster can be used: {summarize_error(error)}") from None
    return ray


def _task(fn: Callable[[Any], Any], item: Any, surroundings: tuple[dict[str, str], str]) -> bytes:
    carried, folder = surroundings
    os.environ.update(carried)
    os.chdir(folder)
    return _packed(_answer(fn, item))


# ---- in the process -------------------------------------------------------------------------------------------------


def _work(pipe: Connection, fn: Callable[[Any], Any]) -> None:
    """Units until the pipe ends. Told to stop, or behind a parent that is gone, it ends as Ctrl-C ends a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent gets it too and tells us
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        while True:
            pipe.send_bytes(_packed(_answer(fn, pipe.recv())))
    except (EOFError, OSError):
        return
    except KeyboardInterrupt:
        sys.exit(130)


def _answer(fn: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return fn(item), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RunFailed(f"{type(error).__name__}: {error}")
        return None, error


def _packed(answer: tuple[Any, Exception | None]) -> bytes:
    try:
        return pickle.dumps(answer)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        return pickle.dumps((None, RunFailed(f"its result can't be sent: {error}")))


def _interrupt(number: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who is told twice must still be able to end what it does
    raise KeyboardInterrupt


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(STOPPING)
    os._exit(130)
