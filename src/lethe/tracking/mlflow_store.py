"""MLflow's store: the connection, searches for runs, experiments, and runs that no process ended."""

import base64
import contextlib
import json
import logging
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lethe._util import checkout
from lethe._util.files import OUTBOX, digest, short
from lethe._util.redact import clean
from lethe.tracking import store_birth
from lethe.tracking.outbox import callers_store, default_store, now

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags: a run's own name, which outlives a resumption; the workspace that it belongs to
ROW, HOME = "lethe.row", "lethe.home"
VIEW = "mlflow.sharedViewState.lethe"  # experiment tag: the view of the address that ends in ?viewStateShareKey=lethe
TAGS = ("workspace", "data", "split", "verdict")  # and tags: equal data and split make runs comparable
COLUMNS = (*(f"{split}.accuracy" for split in ("retain", "forget", "validation", "test")), "forget.distance", "test.distance")
MAX_START = 600.0  # seconds after which a launcher's run whose program never started is ended
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}  # a second try would not help
QUIET = {  # set before mlflow is imported, unless the user did: no retries, which the sender does, and no messages of its own
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its errors have tracebacks of 100 lines; the sender says the same in one
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


log = logging.getLogger(__name__)


def silence() -> None:
    """Set the variables that keep MLflow quiet. Call before mlflow is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@cache
def connect(uri: str) -> "MlflowClient":
    """Return a client of a store.

    Args:
        uri: Address without credentials, as headers have it; the caller's own store has them in the environment.
    """
    silence()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # it may have been imported before
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if uri == default_store():
        store_birth.ensure(checkout.root() / "mlflow.db", _default_artifacts())  # the client would put artifacts under the current folder
    return MlflowClient(callers_store() if clean(callers_store()) == uri else uri)


def _default_artifacts() -> str:
    return str(checkout.root().absolute() / "mlruns")


def is_refusal(error: Exception) -> bool:
    """Return whether the store refused a request for good, in contrast to a store that does not answer."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in REFUSALS


def workspace_hash(home: Path) -> str:
    """Return a name of a workspace that reveals nothing about the machine."""
    return short(digest([platform.node(), str(home.resolve())]))


# --- runs -------------------------------------------------------------------------------------------------------------


def get_run(client: "MlflowClient", run_id: str, deleted: bool = False) -> "Run | None":
    """Return a run by MLflow's id.

    Args:
        client: Of the store.
        run_id: MLflow's id.
        deleted: Whether to return a run that was deleted in MLflow, too.

    Returns:
        The run; None if the store does not have it or, unless `deleted`, if it was deleted.

    Raises:
        Exception: MLflow's, when the store does not answer.
    """
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if is_refusal(error):
            return None
        raise
    return run if deleted or run.info.lifecycle_stage == "active" else None


def look_up(client: "MlflowClient", reference: Mapping[str, Any]) -> "Run | None":
    """Return the run that a reference names, in any experiment.

    Args:
        client: Of the store.
        reference: What `RunLog.reference` returned: `run_id`, or `row` while the id is not known.

    Returns:
        The run; None if there is none, or if it was deleted.

    Raises:
        Exception: MLflow's, when the store does not answer.
    """
    if reference["run_id"]:
        return get_run(client, reference["run_id"])
    return next(iter(_search(client, _all_experiments(client), {ROW: reference["row"]})), None)


def find_runs(where: Mapping[str, Any], tags: Mapping[str, str], status: str = "", *, anywhere: bool = False) -> "list[Run]":
    """Search an experiment.

    Args:
        where: The store and experiment, as headers have them (`outbox.destination`).
        tags: That a run must have, all of them.
        status: RUNNING, FINISHED, FAILED or KILLED; "": any.
        anywhere: Search the other experiments where this one has none.

    Returns:
        The runs, newest first.
    """
    client = connect(where["uri"])
    experiment = experiment_id(client, where)
    runs = _search(client, [experiment], tags, status) if experiment else []
    return runs or (_search(client, _all_experiments(client), tags, status) if anywhere else [])


def end_abandoned_runs(home: Path, uri: str) -> None:
    """End the RUNNING runs of a store that belong to no process any more.

    Runs of the workspace whose outbox is gone become KILLED (a resumed run joins its own again); runs that a launcher of this project
    made without ever starting the program become FAILED.

    Args:
        home: The workspace.
        uri: Address of the store, without credentials.
    """
    client, old = connect(uri), now() - 1000 * MAX_START
    for run in _search(client, _all_experiments(client), {}, "RUNNING"):
        tags, status = run.data.tags, ""
        if tags.get(HOME) == workspace_hash(home):
            held = any((home / OUTBOX).glob(f"{tags.get(ROW)}.*/"))
            status = "" if held else "KILLED"
        elif ROW not in tags and "mlflow.project.entryPoint" in tags and run.info.start_time < old:
            status = "FAILED" if tags.get("mlflow.source.name", "").partition("#")[0] in checkout.addresses() else ""
        if status and client.get_run(run.info.run_id).info.status == "RUNNING":  # not ended since the search
            client.set_terminated(run.info.run_id, status)


def _search(client: "MlflowClient", experiments: Sequence[str], tags: Mapping[str, str], status: str = "") -> "list[Run]":
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    wanted += [f"attributes.status = '{status}'"] if status else []
    return list(client.search_runs(experiments, " and ".join(wanted), order_by=["attributes.start_time DESC"]))


# --- experiments ------------------------------------------------------------------------------------------------------


def _all_experiments(client: "MlflowClient") -> list[str]:
    return [each.experiment_id for each in client.search_experiments()]


def experiment_id(client: "MlflowClient", where: Mapping[str, Any]) -> str | None:
    """Return the id of the experiment that a header names.

    Args:
        client: Of the store.
        where: The header, or `outbox.destination`: `experiment_id` and `experiment_name`, each None if not set.

    Returns:
        The id; "0", MLflow's default experiment, if the header names none; None if it does not exist yet.
    """
    if where["experiment_id"] or not where["experiment_name"]:
        return where["experiment_id"] or "0"
    experiment = client.get_experiment_by_name(where["experiment_name"])
    if experiment and experiment.lifecycle_stage != "active":  # its name can't be used again while it exists
        client.restore_experiment(experiment.experiment_id)
        log.warning("The experiment %s was deleted in MLflow: it is restored", where["experiment_name"])
    return str(experiment.experiment_id) if experiment else None


def create_experiment(client: "MlflowClient", where: Mapping[str, Any]) -> str:
    """Create the experiment that a header names. In the default store its artifacts are next to the others.

    Args:
        client: Of the store.
        where: The header, or `outbox.destination`: `uri` and `experiment_name`.

    Returns:
        The id of the experiment.
    """
    name = where["experiment_name"]
    ours = where["uri"] == default_store()
    with contextlib.suppress(Exception):  # it has been removed for good
        if client.get_experiment("0").lifecycle_stage != "active":
            log.warning("The experiment Default is deleted in MLflow; these runs are in the experiment %s", name)
    return str(client.create_experiment(name, f"{_default_artifacts()}/{quote(name, safe='')}" if ours else None))


def share_view(client: "MlflowClient", experiment: str) -> None:
    """Give an experiment, unless it has it, the view in which the UI's table shows the columns that matter.

    The view is an experiment tag, the one that the UI's "share view" button would store. Errors are ignored: without the tag only the
    view is missing.

    Args:
        client: Of the store.
        experiment: The id of the experiment.
    """
    columns = [*(f"tags.`{name}`" for name in TAGS), *(f"metrics.`{name}`" for name in COLUMNS)]
    state = {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False, "runsHiddenMode": "SHOW_ALL"}
    view = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    with contextlib.suppress(Exception):
        if VIEW not in client.get_experiment(experiment).tags:
            client.set_experiment_tag(experiment, VIEW, view)
