"""What is sent: the records of an outbox, to the MLflow run that they belong to, which is found or created first.

mlflow is imported inside functions: it takes seconds, which must not delay the first step.
"""

import contextlib
import getpass
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from lethe._util.redact import clean, summarize_error
from lethe.tracking.mlflow_models import describe, register
from lethe.tracking.mlflow_store import (
    HOME,
    ROW,
    connect,
    create_experiment,
    experiment_id,
    find_runs,
    get_run,
    is_refusal,
    look_up,
    share_view,
    workspace_hash,
)
from lethe.tracking.outbox import Outbox, Records, callers_store
from lethe.tracking.outbox_format import own_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MODEL = "lethe.model"  # tag: a logged model's folder in its outbox

log = logging.getLogger(__name__)
unreachable: dict[str, str] = {}  # store -> its last error, while it can't be reached; known to all runs of this process
refused: set[Path] = set()  # folders of the outboxes that a store does not take for now; known to all runs of this process


class _ParentMissing(Exception):
    """The parent run does not exist yet: another process is about to send it."""


class Delivery:
    """An outbox on its way to its run, with what this process knows of both.

    Attributes:
        outbox: Whose records are sent.
        store: Address of the store, without credentials.
    """

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.store: str = outbox.header["uri"]
        self.met = self.stuck = False
        self.present: set[tuple[str, int]] = set()  # metrics and steps that the run had before
        self.newest: dict[str, Any] = {}  # metric -> its newest point, of a run that is joined, until older ones are asked for too
        self.sent_before: set[tuple[str, float, int]] = set()  # points of such a run (key, value, step): not sent again
        self.params: Mapping[str, str] = {}  # those that it had before
        self.model_id: str | None = None  # of the logged model that metrics are linked to

    @cached_property
    def client(self) -> "MlflowClient":
        """A client of the store."""
        return connect(self.store)

    @property
    def is_callers(self) -> bool:
        """Whether its store is the one that this process logs to: others are not sent to, for an outbox may be of somebody else."""
        return self.store == clean(callers_store())

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        run_id: str = self.outbox.state["run_id"]
        return run_id

    def attempt(self) -> Literal["", "waits", "unreachable", "stuck"]:
        """Send the pending records, if possible. An error that prevents it is logged once.

        Returns:
            "" if all is sent; "waits" while somebody else sends the beginning of the same run, or its parent; "unreachable" if the store
            does not answer; "stuck" if it does, and refuses something for now, or refuses the parent.
        """
        if not self.met and not self.outbox.joins and self.outbox.waits:
            return "waits"
        try:
            self.deliver()
        except _ParentMissing:
            if self.outbox.parent_waits and refused.isdisjoint(self.outbox.parents()):
                return "waits"
            if not self.outbox.parents():  # it was sent in this moment
                return "waits"
            refused.add(self.outbox.folder)
            return "stuck"
        except Exception as error:
            with contextlib.suppress(Exception):
                connect(self.store).search_experiments(max_results=1)
                if not self.stuck:
                    log.warning("MLflow does not take all of %s: %s", self.outbox.folder, summarize_error(error))
                self.stuck = True
                refused.add(self.outbox.folder)
                return "stuck"
            if self.store not in unreachable:
                log.warning("MLflow can't be reached (%s); records are kept in %s", summarize_error(error), self.outbox.folder.parent)
            unreachable[self.store] = summarize_error(error)
            return "unreachable"
        refused.discard(self.outbox.folder)
        if unreachable.pop(self.store, None):
            log.warning("MLflow answers again")
        return ""

    def deliver(self) -> None:
        """Send the pending records, and remove the outbox after the last. Records that the store refuses for good are dropped and logged.

        What is sent depends on what a run that others may add to has already, or on whether there is a run: then all of it is sent in one
        go, under a lock, so that two commands at once send nothing twice.

        Raises:
            Exception: MLflow's, when the store does not answer.
        """
        if not self.outbox.joins and not self.outbox.header["once"]:
            self._deliver()
        elif any(kind == "end" for kind, _ in self.outbox.pending().values()):
            with FileLock(self.outbox.folder.parent / "shared.lock"):
                self.met = False  # since an attempt that failed, another process may have sent something
                self._deliver()

    def _deliver(self) -> None:
        if not self.met:
            self._meet()
        pending = self.outbox.pending()
        end = next((value for kind, value in pending.values() if kind == "end"), None)
        if not self.outbox.idle:
            if not self._send_batch({n: record for n, record in pending.items() if record[0] in ("metrics", "params", "tags", "file")}):
                self.met = False
                return self._deliver()
            self._send_files({n: record for n, record in pending.items() if record[0] in ("artifact", "dataset", "model")})
            if end:
                self._end(**end)
        if end:
            self.outbox.remove()

    def _send_batch(self, batch: Records) -> bool:
        """Send records in one call; one by one when one is refused, so that the others are not lost with it.

        Returns:
            False when it is not the records that are refused: the run is gone.
        """
        if not batch:
            return True
        try:
            self._log_batch(batch.values())
            self.outbox.mark_sent(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            if get_run(self.client, self.run_id) is None:
                return False
            for n, record in batch.items():
                self._send_or_drop(n, record[0], partial(self._log_batch, [record]))
        return True

    def _send_files(self, files: Records) -> None:
        """Send records one by one, each artifact in its newest version.

        Raises:
            Exception: The last error, after all were tried: an artifact store may be down while the tracking server is not.
        """
        send: dict[str, Callable[[Any], None]]
        send = {"artifact": self._log_artifact, "dataset": self._log_dataset, "model": self._log_model}
        newest = {value: n for n, (kind, value) in files.items() if kind == "artifact"}
        failure: Exception | None = None
        for n, (kind, value) in files.items():
            if kind == "artifact" and newest[value] != n:
                self.outbox.mark_sent([n])
                continue
            try:
                self._send_or_drop(n, kind, partial(send[kind], value))
            except Exception as error:
                failure = error
        if failure:
            raise failure

    def _send_or_drop(self, number: int, kind: str, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:
            if not is_refusal(error):
                raise
            log.warning("MLflow refused %s: %s", kind, summarize_error(error))
        self.outbox.mark_sent([number])

    def _log_batch(self, records: Iterable[tuple[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for kind, value in records:
            if kind == "metrics":
                self._recall(value)
                lacking = (
                    point for point in value if (point[0], point[2]) not in self.present and tuple(point[:3]) not in self.sent_before
                )
                metrics += [Metric(key, number, at, step, self.model_id) for key, number, step, at in lacking]
            elif kind == "params":
                params |= {key: text for key, text in value.items() if key not in self.params}
            elif kind == "tags":
                tags |= value
        if metrics or params or tags:
            pairs = [Param(*pair) for pair in params.items()], [RunTag(*pair) for pair in tags.items()]
            self.client.log_batch(self.run_id, metrics, *pairs)

    def _log_artifact(self, path: str) -> None:
        file = own_file(self.outbox.artifacts, path)
        if file is None:
            log.warning("%s: the artifact %s is no file of its own, and is not sent", self.outbox.folder, path)
            return
        if not self.outbox.is_whole(file):
            return
        folder, _, _ = path.rpartition("/")
        self.client.log_artifact(self.run_id, str(file), folder or None)

    def _log_dataset(self, about: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = InputTag("mlflow.data.context", about["context"])
        dataset = Dataset(**{key: text for key, text in about.items() if key != "context"})
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [context])])

    def _log_model(self, about: dict[str, Any]) -> None:
        """Upload a folder as a logged model of the run, and link the run's metrics to it: the newest ones, and all that follow."""
        from mlflow.entities import LoggedModelOutput, Metric

        client, folder = self.client, own_file(self.outbox.models, about["folder"])
        if folder is None:
            log.warning("%s: the model %s is no folder of its own, and is not sent", self.outbox.folder, about["folder"])
            return
        if not self.outbox.is_whole(folder):
            return
        run = client.get_run(self.run_id)
        run_id, experiment = run.info.run_id, run.info.experiment_id
        matches = client.search_logged_models([experiment], f"tags.`{MODEL}` = '{folder.name}'")
        new = {"name": about["name"], "source_run_id": run_id, "tags": {MODEL: folder.name}, "model_type": about["kind"]}
        model = matches[0] if matches else client.create_logged_model(experiment, **new)
        try:
            if model.status != "READY":
                with self.outbox.writing(folder / "MLmodel") as file:
                    describe(folder, file, run_id, model, about["shapes"])
                client.log_model_artifacts(model.model_id, str(folder))
                client.finalize_logged_model(model.model_id, "READY")
            if all(output.model_id != model.model_id for output in run.outputs.model_outputs):
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, about["step"])])
            if about["final"]:
                # As the store has them: with another time, as of a process that was killed, a point would stand there twice
                newest = client.get_run(run_id).data.to_proto().metrics
                client.log_batch(run_id, [Metric(one.key, one.value, one.timestamp, one.step, model.model_id) for one in newest])
        except Exception as error:
            if is_refusal(error):
                client.delete_logged_model(model.model_id)
            raise
        if about["final"]:
            self.model_id = model.model_id
        if about.get("registered"):
            register(client, model.model_id, run_id, *about["registered"])

    def _end(self, status: str | None, time: int) -> None:
        run = get_run(self.client, self.run_id)
        if run and status and not self.outbox.has_successor and not (status == "KILLED" and run.info.status == "FINISHED"):
            self.client.set_terminated(run.info.run_id, status, time)

    # --- its run

    def _meet(self) -> None:
        """Find or create the run."""
        run = self._joined_run() if self.outbox.joins else self._own_run()
        self.outbox.idle, self.met = run is None, True
        if run is not None:
            self.params = run.data.params
            outputs = run.outputs.model_outputs if run.outputs and self.outbox.joins else []
            if self.outbox.joins:
                self.newest = {point.key: point for point in run.data.to_proto().metrics}
                self.sent_before = {(point.key, point.value, point.step) for point in self.newest.values()}
            self.model_id = next((output.model_id for output in outputs), None)
            self.outbox.mark_sent((), run_id=run.info.run_id)

    def _recall(self, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Read all points of those metrics of a joined run of which there are points older than its newest: an earlier process, which was
        killed, may have sent them."""
        older = {key for key, _, step, _ in points if key in self.newest and step < self.newest[key].step}
        for key in older:
            del self.newest[key]
            self.sent_before |= {(key, point.value, point.step) for point in self.client.get_metric_history(self.run_id, key)}

    def _joined_run(self) -> "Run | None":
        """Find the run that `RunLog.join` names."""
        run_id, tags = self.outbox.header["join"]["run_id"], self.outbox.header["join"]["tags"]
        run = get_run(self.client, run_id) if run_id else next(iter(find_runs(self.outbox.header, tags, anywhere=True)), None)
        if run is None:
            log.warning("MLflow has no run %s: its records are dropped", run_id or tags)
        return run

    def _own_run(self) -> "Run | None":
        """Find or create the run that `RunLog.open` describes; None when none is wanted."""
        header = self.outbox.header
        previous = header["previous"] and look_up(self.client, header["previous"])
        run = self._existing_run(previous)
        if run is None:
            if header["once"] and find_runs(header, header["once"], "FINISHED"):
                return None
            self.outbox.mark_sent((), tried=True)
            return self._create_run()
        if run.info.lifecycle_stage != "active":
            log.warning("The run %s was deleted in MLflow: nothing more is sent to it", header["name"])
            return None
        self._resume_run(run, previous)
        return run

    def _existing_run(self, previous: "Run | None") -> "Run | None":
        """Find the run if it exists, deleted or not."""
        header, state = self.outbox.header, self.outbox.state
        run_id = state["run_id"] or header["run_id"]
        if run_id and (run := get_run(self.client, run_id, deleted=True)):
            why = "" if state["run_id"] or (previous and previous.info.run_id == run_id) else _not_for_us(run, self.outbox.home)
            if not why:
                return run
            log.warning("MLFLOW_RUN_ID names the run %r, %s: %s is a run of its own", run.info.run_name, why, header["name"])
        if state["run_id"]:  # the store was created again
            self.outbox.mark_unsent()
        if header["resumes"] and previous:
            return previous
        return look_up(self.client, {"row": header["row"], "run_id": None}) if state["tried"] else None

    def _resume_run(self, run: "Run", previous: "Run | None") -> None:
        client, run_id = self.client, run.info.run_id
        if not self.outbox.state["run_id"]:
            client.update_run(run_id, None if run.info.status == "RUNNING" else "RUNNING", self.outbox.header["name"])
            for pair in self._identifying_tags().items():
                client.set_tag(run_id, *pair)
        if previous and previous.info.run_id == run_id:
            for key in run.data.metrics:
                self.present |= {(key, point.step) for point in client.get_metric_history(run_id, key)}
        elif previous:
            client.set_tag(previous.info.run_id, "continued_in", run_id)
            if previous.info.status != "FINISHED":
                client.set_terminated(previous.info.run_id, "KILLED", previous.info.end_time)

    def _create_run(self) -> "Run":
        client, header = self.client, self.outbox.header
        tags = {**self._identifying_tags(), "mlflow.source.name": header["source"], "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(Exception):  # this user has no name on this machine
            tags["mlflow.user"] = getpass.getuser()
        if parent := header["parent"]:
            run = look_up(client, parent)
            if run is None and self.outbox.parents():
                raise _ParentMissing
            if run := run or look_up(client, parent):  # again: its outbox is gone because it was sent since, or there never was one
                tags["mlflow.parentRunId"] = run.info.run_id
        experiment = experiment_id(client, header) or create_experiment(client, header)
        share_view(client, experiment)
        return client.create_run(experiment, header["started"], tags, header["name"])

    def _identifying_tags(self) -> dict[str, str]:
        return {ROW: self.outbox.header["row"], HOME: workspace_hash(self.outbox.home)}


def _not_for_us(run: "Run", home: Path) -> str:
    """Why a run that the environment names can't be a launcher's for this program: a shell kept its name; "" if it can."""
    if run.info.status == "FINISHED" or (run.info.status in ("FAILED", "KILLED") and ROW not in run.data.tags):
        return "which has ended"
    return "which is of another workspace" if run.data.tags.get(HOME, workspace_hash(home)) != workspace_hash(home) else ""
