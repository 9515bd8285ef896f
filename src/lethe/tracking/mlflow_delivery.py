"""From journals into MLflow: a background thread for the run's own row, and for what dead processes left behind.

The only file that imports mlflow, and only inside functions: it takes seconds, which must not delay the first step.
"""

import base64
import contextlib
import getpass
import json
import logging
import os
import platform
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from lethe._util import checkout
from lethe._util.files import OUTBOX, digest, short
from lethe._util.redact import clean, plain, said
from lethe.tracking.outbox import Journal, Records, callers_store, default_store, leftovers, now

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from torch.nn import Module

# Tags: a row's own name, which outlives a resumption; the workspace that feeds it; a logged model's name in its journal.
ROW, HOME, MODEL = "lethe.row", "lethe.home", "lethe.model"
VIEW = "mlflow.sharedViewState.lethe"  # the address that ends in ?viewStateShareKey=lethe opens with it
COLUMNS = (*(f"{split}.accuracy" for split in ("retain", "forget", "validation", "test")), "forget.distance", "test.distance")
PATIENCE, AWAY = 120.0, 5.0  # seconds that `finish` waits: while sending goes on; once the store does not answer
BETWEEN = 60.0  # seconds between two attempts while it does not, at most
LEFT_BEHIND = 600.0  # seconds after which a launcher's row that no program took up is given up
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}  # asking again won't help
QUIET = {  # set before mlflow is imported, unless the user did: no retries, for the patience is ours, and no talk of its own
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

log = logging.getLogger(__name__)
away: dict[str, str] = {}  # store -> what it said last, while it can't be reached: known to all rows of this process


# --- when it is sent --------------------------------------------------------------------------------------------------


class Sender(threading.Thread):
    """Sends what dead processes left behind, then its own journal's records as they are told, until the end is told."""

    def __init__(self, home: Path, own: Journal) -> None:
        super().__init__(name="tracking", daemon=True)
        self.home, self.own = home, Delivery(own)
        self.wake, self.closing, self.done = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        left: list[Delivery] = []
        try:
            if not self.own.journal.joins:
                self.own.journal.append("tags", _commit())
            left += map(Delivery, leftovers(self.home))
            self._loop(left)
        except Exception as error:  # a tracker must never be what ends a run
            log.warning("Tracking stopped: %s", said(error))
        finally:
            for one in [*left, self.own]:
                one.journal.lock.release()
            self.done.set()

    def _loop(self, left: "list[Delivery]") -> None:
        delay, swept, folder = 1.0, False, self.own.journal.folder
        while folder.exists():
            self.wake.clear()
            closing = self.closing.is_set()
            if self._pass(left):
                if closing:
                    return
                self.closing.wait(delay)
                delay = min(BETWEEN, 2 * delay)
            else:
                if not swept:
                    with contextlib.suppress(Exception):  # a courtesy to the table, no more
                        sweep(self.home, self.own.store)
                delay, swept = 1.0, True
                if folder.exists():
                    self.wake.wait()

    def _pass(self, left: "list[Delivery]") -> str:
        """One go at everything. What is left goes first, for it may be the beginning of our own row."""
        silent: set[str] = set()
        for one in list(left):
            if one.store not in silent and one.attempt() == "away":
                silent.add(one.store)
            if one.store not in silent:
                left.remove(one)
                one.journal.lock.release()
        return "away" if self.own.store in silent else self.own.attempt()

    def finish(self) -> bool:
        """Waits for the end to be sent, as long as that may be. Whether it is."""
        self.closing.set()
        self.wake.set()
        self.done.wait(AWAY if self.own.store in away else PATIENCE)
        if not self.own.journal.folder.exists():
            return True
        unsent = len(self.own.journal.pending())
        log.warning("%d records are not sent to MLflow yet: the next run here sends them, or: %s", unsent, checkout.command("send"))
        return False


def send(homes: Iterable[Path]) -> int:
    """Send what these workspaces still hold, but for what a running process does; how many records stay unsent."""
    unsent = 0
    for home in homes:
        for journal in list(leftovers(home)):
            one = Delivery(journal)
            if one.store in away or one.attempt():
                unsent += len(journal.pending())
            journal.lock.release()
    return unsent


# --- what is sent -----------------------------------------------------------------------------------------------------


class _Waits(Exception):
    """The row above is not there yet: another process is about to send it."""


class Delivery:
    """A journal on its way into its row, as far as this process knows of both."""

    def __init__(self, journal: Journal) -> None:
        self.journal: Journal = journal
        self.store: str = journal.header["uri"]
        self.met = self.stuck = False
        self.present: set[tuple[str, int]] = set()  # metrics and steps that the row had before
        self.newest: set[tuple[str, float, int]] = set()  # of a row that is joined: what it says last, which is not told again
        self.params: Mapping[str, str] = {}  # those that it had before
        self.model_id: str | None = None  # of the logged model that metrics are linked to

    @cached_property
    def client(self) -> "MlflowClient":
        return connect(self.store)

    @property
    def run_id(self) -> str:
        run_id: str = self.journal.state["run_id"]
        return run_id

    def attempt(self) -> Literal["", "away", "stuck"]:
        """Send what is unsent, if it can be. What keeps it is said once: the store is "away", or it takes everything but this."""
        try:
            self.deliver()
        except _Waits:
            return "stuck"
        except Exception as error:
            with contextlib.suppress(Exception):
                connect(self.store).search_experiments(max_results=1)
                if not self.stuck:
                    log.warning("MLflow does not take all of %s: %s", self.journal.folder, said(error))
                self.stuck = True
                return "stuck"
            if self.store not in away:
                log.warning("MLflow can't be reached (%s). What it is told waits in %s", said(error), self.journal.folder.parent)
            away[self.store] = said(error)
            return "away"
        if away.pop(self.store, None):
            log.warning("MLflow answers again")
        return ""

    def deliver(self) -> None:
        """Send what is unsent, and remove the journal behind its end.

        Raises what MLflow raises when the store is away. What the store refuses for good is dropped, with a line."""
        if not self.met:
            self._meet()
        pending = self.journal.pending()
        end = next((value for what, value in pending.values() if what == "end"), None)
        if not self.journal.idle:
            if not self._send_batch({n: record for n, record in pending.items() if record[0] in ("metrics", "params", "tags")}):
                self.met = False
                return self.deliver()
            self._send_files({n: record for n, record in pending.items() if record[0] in ("artifact", "dataset", "model")})
            if end:
                self._end(**end)
        if end:
            self.journal.remove()

    def _send_batch(self, batch: Records) -> bool:
        """All in one call; one by one when something in it is refused, so that nothing else is lost with it. False when it is
        not the records that are refused: the row is gone."""
        if not batch:
            return True
        try:
            self._log_batch(batch.values())
            self.journal.mark(batch)
        except Exception as error:
            if not _refused(error):
                raise
            if _get(self.client, self.run_id) is None:
                return False
            for n, record in batch.items():
                self._refusable(n, record[0], partial(self._log_batch, [record]))
        return True

    def _send_files(self, files: Records) -> None:
        """One by one, each artifact as it was told last. Raises the last error when all were tried: an artifact store may be
        away while the tracking server is not."""
        send: dict[str, Callable[[Any], None]]
        send = {"artifact": self._log_artifact, "dataset": self._log_dataset, "model": self._log_model}
        newest = {value: n for n, (what, value) in files.items() if what == "artifact"}
        trouble: Exception | None = None
        for n, (what, value) in files.items():
            if what == "artifact" and newest[value] != n:
                self.journal.mark([n])
                continue
            try:
                self._refusable(n, what, partial(send[what], value))
            except Exception as error:
                trouble = error
        if trouble:
            raise trouble

    def _refusable(self, number: int, what: str, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:
            if not _refused(error):
                raise
            log.warning("MLflow refused %s: %s", what, said(error))
        self.journal.mark([number])

    def _log_batch(self, records: Iterable[tuple[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for what, value in records:
            if what == "metrics":
                lacking = (point for point in value if (point[0], point[2]) not in self.present and tuple(point[:3]) not in self.newest)
                metrics += [Metric(key, number, at, step, self.model_id) for key, number, step, at in lacking]
            elif what == "params":
                params |= {key: text for key, text in value.items() if key not in self.params}
            else:
                tags |= value
        if metrics or params or tags:
            pairs = [Param(*pair) for pair in params.items()], [RunTag(*pair) for pair in tags.items()]
            self.client.log_batch(self.run_id, metrics, *pairs)

    def _log_artifact(self, path: str) -> None:
        folder, _, _ = path.rpartition("/")
        self.client.log_artifact(self.run_id, str(self.journal.artifacts / path), folder or None)

    def _log_dataset(self, about: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = InputTag("mlflow.data.context", about["context"])
        dataset = Dataset(**{key: text for key, text in about.items() if key != "context"})
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [context])])

    def _log_model(self, about: dict[str, Any]) -> None:
        """Upload a folder as a logged model of the row, link the row's newest metrics to it; later ones are linked as told."""
        from mlflow.entities import LoggedModelOutput, Metric

        client, folder = self.client, self.journal.models / about["folder"]
        run = client.get_run(self.run_id)
        run_id, experiment = run.info.run_id, run.info.experiment_id
        found = client.search_logged_models([experiment], f"tags.`{MODEL}` = '{folder.name}'")
        new = {"name": about["name"], "source_run_id": run_id, "tags": {MODEL: folder.name}, "model_type": about["kind"]}
        model = found[0] if found else client.create_logged_model(experiment, **new)
        try:
            if model.status != "READY":
                _describe(folder, run_id, model, about["shapes"])
                client.log_model_artifacts(model.model_id, str(folder))
                client.finalize_logged_model(model.model_id, "READY")
            if all(output.model_id != model.model_id for output in run.outputs.model_outputs):
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, about["step"])])
            if about["final"]:
                points = [point for what, points in self.journal.told().values() if what == "metrics" for point in points]
                newest = {key: Metric(key, number, at, step, model.model_id) for key, number, step, at in points}
                client.log_batch(run_id, list(newest.values()))
        except Exception as error:
            if _refused(error):
                client.delete_logged_model(model.model_id)
            raise
        if about["final"]:
            self.model_id = model.model_id

    def _end(self, status: str | None, time: int) -> None:
        run = _get(self.client, self.run_id)
        if run and status and not self.journal.followed and not (status == "KILLED" and run.info.status == "FINISHED"):
            self.client.set_terminated(run.info.run_id, status, time)

    # --- its row

    def _meet(self) -> None:
        """Find or make the journal's row."""
        run = self._joined() if self.journal.joins else self._own()
        self.journal.idle, self.met = run is None, True
        if run is not None:
            self.params = run.data.params
            outputs = run.outputs.model_outputs if run.outputs and self.journal.joins else []
            if self.journal.joins:
                self.newest = {(point.key, point.value, point.step) for point in run.data.to_proto().metrics}
            self.model_id = next((output.model_id for output in outputs), None)
            self.journal.mark((), run_id=run.info.run_id)

    def _joined(self) -> "Run | None":
        """The row as `Row.join` describes it."""
        run_id, tags = self.journal.header["join"]["run_id"], self.journal.header["join"]["tags"]
        run = _get(self.client, run_id) if run_id else next(iter(rows(self.journal.header, tags)), None)
        if run is None:
            log.warning("MLflow has no row %s: what was told about it is dropped", run_id or tags)
        return run

    def _own(self) -> "Run | None":
        """The row as `Row.open` describes it; None when none is wanted."""
        header = self.journal.header
        previous = header["previous"] and _lookup(self.client, header["previous"])
        run = self._known(previous)
        if run is None:
            if header["once"] and rows(header, header["once"], "FINISHED"):
                return None
            self.journal.mark((), tried=True)
            return self._create()
        if run.info.lifecycle_stage != "active":
            log.warning("The row %s was deleted: nothing more is sent to it", header["name"])
            return None
        self._take_up(run, previous)
        return run

    def _known(self, previous: "Run | None") -> "Run | None":
        """What is there of it, deleted or not."""
        header, state = self.journal.header, self.journal.state
        run_id = state["run_id"] or header["run_id"]
        if run_id and (run := _get(self.client, run_id, deleted=True)):
            return run
        if state["run_id"]:  # the store was begun anew
            self.journal.forget()
        if header["resumes"] and previous:
            return previous
        return _lookup(self.client, {"row": header["row"], "run_id": None}) if state["tried"] else None

    def _take_up(self, run: "Run", previous: "Run | None") -> None:
        client, run_id = self.client, run.info.run_id
        if not self.journal.state["run_id"]:
            client.update_run(run_id, None if run.info.status == "RUNNING" else "RUNNING", self.journal.header["name"])
            for pair in self._names().items():
                client.set_tag(run_id, *pair)
        if previous and previous.info.run_id == run_id:
            for key in run.data.metrics:
                self.present |= {(key, point.step) for point in client.get_metric_history(run_id, key)}
        elif previous:
            client.set_tag(previous.info.run_id, "continued_in", run_id)
            if previous.info.status != "FINISHED":
                client.set_terminated(previous.info.run_id, "KILLED", previous.info.end_time)

    def _create(self) -> "Run":
        client, header = self.client, self.journal.header
        tags = {**self._names(), "mlflow.source.name": header["source"], "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(Exception):  # this user has no name on this machine
            tags["mlflow.user"] = getpass.getuser()
        if parent := header["parent"]:
            if above := _lookup(client, parent):
                tags["mlflow.parentRunId"] = above.info.run_id
            elif any(self.journal.folder.parent.glob(f"{parent['row']}.*/")):
                raise _Waits
        experiment = _experiment(client, header) or _new_experiment(client, header)
        with contextlib.suppress(Exception):  # a courtesy to the table, no more
            if VIEW not in client.get_experiment(experiment).tags:
                client.set_experiment_tag(experiment, VIEW, _view())
        return client.create_run(experiment, header["started"], tags, header["name"])

    def _names(self) -> dict[str, str]:
        """The tags by which the row is found again."""
        return {ROW: self.journal.header["row"], HOME: place(self.journal.home)}


def _refused(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in REFUSALS


def _commit() -> dict[str, str]:
    found = checkout.commit()
    return {"mlflow.source.git.commit": found[0], "git_dirty": plain(found[1])} if found else {}


def place(home: Path) -> str:
    """A workspace, by a name that says nothing of the machine."""
    return short(digest([platform.node(), str(home.resolve())]))


def _view() -> str:
    """The UI's state under which its table shows the columns that matter, as its "share view" button would store it."""
    columns = [f"metrics.`{name}`" for name in COLUMNS]
    state = {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False, "runsHiddenMode": "SHOW_ALL"}
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


# --- models -----------------------------------------------------------------------------------------------------------


def export(module: "Module", shape: Sequence[int], folder: Path) -> None:
    """As pt2, which loads without this repository. A batch of 2 leaves the batch size free; a batch of 1 would fix it."""
    import torch

    _quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pytorch
        from mlflow.models import infer_signature

        example = torch.zeros(2, *shape)
        module = module.cpu().eval()
        with torch.no_grad():
            signature = infer_signature(example.numpy(), module(example).numpy())
        mlflow.pytorch.save_model(
            module,
            str(folder),
            signature=signature,
            input_example=example.numpy(),
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            serialization_format="pt2",
        )


def _describe(folder: Path, run_id: str, model: "LoggedModel", shapes: Sequence[Sequence[int]]) -> None:
    """The file by which MLflow knows what a model takes and gives."""
    import numpy
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    file = folder / "MLmodel"
    if file.exists():
        about = Model.load(str(file))
        about.run_id, about.model_id, about.model_uuid = run_id, model.model_id, model.model_id
    else:
        takes, gives = (Schema([TensorSpec(numpy.dtype("float32"), [-1, *shape])]) for shape in shapes)
        about = Model(run_id=run_id, model_id=model.model_id, model_uuid=model.model_id, signature=ModelSignature(takes, gives))
        about.add_flavor("safetensors", data="model.safetensors", about="model.json")
    about.artifact_path = model.artifact_location
    about.save(str(file))


# --- the store --------------------------------------------------------------------------------------------------------


@cache
def connect(uri: str) -> "MlflowClient":
    """For an address as journals hold it, without credentials; the caller's own has them in the environment."""
    _quiet()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # it may have been imported before
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri == default_store() and not (checkout.root() / "mlflow.db").exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, _artifacts())  # the client would put the artifacts under the current folder
    return MlflowClient(callers_store() if clean(callers_store()) == uri else uri)


def _quiet() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _artifacts() -> str:
    """The default store's."""
    return str(checkout.root().absolute() / "mlruns")


def rows(where: Mapping[str, Any], tags: Mapping[str, str], status: str = "") -> "list[Run]":
    """Those of the experiment that a header names which have all of these tags, newest first."""
    client = connect(where["uri"])
    experiment = _experiment(client, where)
    return _search(client, [experiment], tags, status) if experiment else []


def sweep(home: Path, uri: str) -> None:
    """End the RUNNING rows of this store that nobody holds: ours whose journal is gone with its folder (KILLED: a run that
    goes on joins it again), and those that a launcher of this project left behind before the program began (FAILED)."""
    client, old = connect(uri), now() - 1000 * LEFT_BEHIND
    for run in _search(client, _experiments(client), {}, "RUNNING"):
        tags, status = run.data.tags, ""
        if tags.get(HOME) == place(home):
            held = any((home / OUTBOX).glob(f"{tags.get(ROW)}.*/"))
            status = "" if held else "KILLED"
        elif ROW not in tags and "mlflow.project.entryPoint" in tags and run.info.start_time < old:
            status = "FAILED" if tags.get("mlflow.source.name", "").partition("#")[0] in checkout.addresses() else ""
        if status and client.get_run(run.info.run_id).info.status == "RUNNING":  # not ended since the search
            client.set_terminated(run.info.run_id, status)


def _get(client: "MlflowClient", run_id: str, deleted: bool = False) -> "Run | None":
    """None when this store has no such row or, unless `deleted` ones count, it was deleted there."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if _refused(error):
            return None
        raise
    return run if deleted or run.info.lifecycle_stage == "active" else None


def _lookup(client: "MlflowClient", reference: Mapping[str, Any]) -> "Run | None":
    if reference["run_id"]:
        return _get(client, reference["run_id"])
    return next(iter(_search(client, _experiments(client), {ROW: reference["row"]})), None)


def _search(client: "MlflowClient", experiments: Sequence[str], tags: Mapping[str, str], status: str = "") -> "list[Run]":
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    wanted += [f"attributes.status = '{status}'"] if status else []
    return list(client.search_runs(experiments, " and ".join(wanted), order_by=["attributes.start_time DESC"]))


def _experiments(client: "MlflowClient") -> list[str]:
    return [each.experiment_id for each in client.search_experiments()]


def _experiment(client: "MlflowClient", where: Mapping[str, Any]) -> str | None:
    """Its id; None when it is not there yet."""
    if where["experiment_id"] or not where["experiment_name"]:
        return where["experiment_id"] or "0"
    found = client.get_experiment_by_name(where["experiment_name"])
    return str(found.experiment_id) if found else None


def _new_experiment(client: "MlflowClient", where: Mapping[str, Any]) -> str:
    """In the default store its artifacts stand beside the others."""
    name = where["experiment_name"]
    ours = where["uri"] == default_store()
    return str(client.create_experiment(name, f"{_artifacts()}/{quote(name, safe='')}" if ours else None))
