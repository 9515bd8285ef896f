"""Units of work, in this process, in several, or on the machines of a Ray cluster.

A unit stores its own result (a file, an MLflow run, a trial) and finds it again, so that a kill costs no more than what was running.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from lethe.parallel.processes import run_in_processes
from lethe.parallel.ray_backend import run_on_ray
from lethe.parallel.work_units import Item, Outcome, describe, naming_item, run_here

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def map_units(
    fn: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 1, gpus: float | None = None, fail_fast: bool = False
) -> Iterator[tuple[Item, Result]]:
    """Call a function with every item, several at a time, as far as there is work for them.

    With `workers` above 1 in processes, each with its share of the threads and one of the GPUs, in turn. With RAY_ADDRESS set as tasks of
    that cluster. A process or machine that dies costs its own unit, which is tried again, 3 times in all. A KeyboardInterrupt in this
    process, or the end of it, cancels all units.

    Args:
        fn: Unless it runs in this process: a function of a module.
        items: Unless they stay in this process: can be pickled.
        workers: How many run in parallel.
        gpus: On a cluster the share of a GPU that each takes (None: a whole one if there is any); 0: no GPU.
        fail_fast: Raise a unit's error at once and cancel the others. Otherwise they continue, and the first error is raised after them.

    Yields:
        Pairs of an item and what the function returned, in the order in which units finish.

    Raises:
        Exception: A unit's error, with the item in its message or note.
        RunFailed: The process of a unit died 3 times.
        UserError: The cluster can't be used.
    """
    units = list(items)
    first: Exception | None = None
    with contextlib.closing(_outcomes(fn, units, min(workers, len(units)), gpus)) as outcomes:
        for item, result, error in outcomes:
            if error is None:
                yield item, result
                continue
            if fail_fast:
                raise naming_item(item, error)
            if len(units) > 1:
                log.warning("%s failed (%s); the others continue", describe(item), error)
            first = first or naming_item(item, error)
    if first:
        raise first


def _outcomes(fn: Callable[[Item], Any], items: list[Item], workers: int, gpus: float | None) -> "Generator[Outcome[Item]]":
    if items and os.environ.get("RAY_ADDRESS"):
        return run_on_ray(fn, items, workers, gpus)
    return run_in_processes(fn, items, workers, gpus) if workers > 1 else run_here(fn, items)
