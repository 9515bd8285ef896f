"""Units of work as tasks of the Ray cluster that RAY_ADDRESS names. Ray is imported only then."""

import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from lethe._util import collector, memory
from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import summarize_error
from lethe.parallel.work_units import MAX_ATTEMPTS, STOP_TIMEOUT, Item, Outcome, attempt, pack

CARRIED = ("MLFLOW_", "DVC_", "PG", "AWS_")  # variables that tasks get: where runs, trials and files are stored


def run_on_ray(fn: Callable[[Item], Any], items: list[Item], workers: int, gpus: float | None) -> "Generator[Outcome[Item]]":
    """Run units as tasks. The machines have this checkout and the workspace at the same path.

    Args:
        fn: A function of a module.
        items: What it is called with; can be pickled.
        workers: How many run in parallel.
        gpus: Share of a GPU that each takes; None: a whole one if the cluster has any.

    Yields:
        Outcomes, in the order in which units finish.

    Raises:
        UserError: Ray is not installed, or the cluster can't be used.
    """
    ray = _connect()
    share = gpus if gpus is not None else float("GPU" in ray.cluster_resources())
    task = ray.remote(num_gpus=share, max_retries=MAX_ATTEMPTS - 1)(_task)
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
                answer = None, RunFailed(f"its process died {MAX_ATTEMPTS} times: {summarize_error(error)}")
            yield item, *answer
    finally:
        for force in (False, True):  # interrupted, as a process is; then killed
            for reference in running:
                ray.cancel(reference, force=force)
            if running and not force:
                ray.wait(list(running), num_returns=len(running), timeout=STOP_TIMEOUT)


def _connect() -> Any:
    """Return Ray, connected."""
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
    collector.spare()
    memory.keep()
    os.environ.pop("RAY_ADDRESS", None)  # a unit of several parts runs them here: it has one worker's place on the cluster
    os.environ.update(carried)
    os.chdir(folder)
    return pack(attempt(fn, item))
