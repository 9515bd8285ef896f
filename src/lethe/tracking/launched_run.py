"""The run that a launcher made for a command that failed before it had a log of its own."""

import contextlib
import os

from lethe.tracking import mlflow_store
from lethe.tracking.outbox import callers_store


def note_error(text: str) -> None:
    """Write why a command failed on the run that `mlflow run` made for it: as the tag `error`, and as its description if it has none.

    Nothing happens without such a run, or where MLflow does not answer: the reason is printed anyway.

    Args:
        text: One line.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or not os.environ.get("MLFLOW_EXPERIMENT_ID"):  # a launcher sets both; an id alone was left in a shell
        return
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with contextlib.suppress(Exception):
        client = mlflow_store.connect(callers_store())
        run = client.get_run(run_id)
        if run.info.status == "RUNNING" and "mlflow.project.entryPoint" in run.data.tags:
            client.set_tag(run_id, "error", text)
            if "mlflow.note.content" not in run.data.tags:
                client.set_tag(run_id, "mlflow.note.content", text)
