"""What MLflow has of the caller's experiment: asked for, and waited for."""

import contextlib
from collections.abc import Mapping
from typing import Any

from lethe._util.errors import RunFailed
from lethe._util.redact import summarize_error
from lethe.tracking import mlflow_store
from lethe.tracking.mlflow_delivery import unreachable
from lethe.tracking.outbox import destination


def experiment() -> str | None:
    """Return the id of the caller's experiment; None if it does not exist yet, or the store does not answer."""
    where = destination()
    if where["experiment_id"] or not where["experiment_name"]:
        return where["experiment_id"] or "0"
    if where["uri"] in unreachable:
        return None
    with contextlib.suppress(Exception):
        return mlflow_store.experiment_id(mlflow_store.connect(str(where["uri"])), where)
    return None


def find_runs(tags: Mapping[str, str], experiment: str | None = None) -> list[dict[str, Any]]:
    """Search runs in MLflow, and wait for the answer.

    Args:
        tags: That a run must have, all of them.
        experiment: Its name; None: the caller's.

    Returns:
        For each run, newest first: run_id, experiment_id, name, status, tags, params, metrics.

    Raises:
        RunFailed: The store can't be read.
    """
    where = destination() | ({"experiment_name": experiment, "experiment_id": None} if experiment else {})
    try:
        runs = mlflow_store.find_runs(where, tags)
    except Exception as error:
        raise RunFailed(f"the MLflow store can't be read: {summarize_error(error)}") from None
    about = (
        {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id, "name": run.info.run_name, "status": run.info.status}
        for run in runs
    )
    data = ({"tags": run.data.tags, "params": run.data.params, "metrics": run.data.metrics} for run in runs)
    return [one | other for one, other in zip(about, data, strict=True)]
