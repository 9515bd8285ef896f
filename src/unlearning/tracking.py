"""What a run tells MLflow: told to a journal on disk first, sent from there by a background thread.

So a tracking server that goes away, or was never there, neither stops nor slows a run and loses nothing: a journal that is
not sent to its end stays under `<workspace>/.lethe/outbox/` and is sent by the next run there, or by `python src/send.py`.
Whatever is sent may be sent twice (a kill between sending and noting it): every record is built so that this changes nothing.

The only file that imports mlflow, and only inside functions: it takes seconds, which must not delay the first step.
A value that is infinite is told as NaN (MLflow would store 1.8e308, which flattens every chart); epochs/<method>.csv has it.
"""

import contextlib
import getpass
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from unlearning.errors import Failed
from unlearning.files import digest, read_json, short, whole, write_json, write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

ROW, HOME = "lethe.row", "lethe.home"  # tags: the row's own name, which outlives a resumption; the workspace that feeds it
LONGEST_PARAM = 6000
REFRESH = 10.0  # seconds between two refreshes of an artifact, at least
PATIENCE, AWAY = 60.0, 5.0  # seconds that close() waits: while sending goes on; once the store does not answer
LEFT_BEHIND = 600.0  # seconds after which a launcher's row that no program took up is given up
GONE = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "BAD_REQUEST"}

log = logging.getLogger(__name__)


def root() -> Path:
    """Against which the default store and relative paths resolve: DVC's root when DVC runs us, else the checkout."""
    return Path(os.environ.get("DVC_ROOT") or Path(__file__).parents[2]).resolve()


def clean(text: str) -> str:
    """`text` without the user and password of any address in it, and without MLflow's own secrets."""
    text = re.sub(r"(?<=://)[^\s/]*@", "", text)
    text = re.sub(r"(?<=://)[^:/@\s]*:[^@\s]*@", "", text)  # a password with a slash in it
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def _store() -> str:
    """The address of the caller's store, with its credentials if it has any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root()}/mlflow.db"
    path = uri.removeprefix("sqlite:///")
    return uri if path in (uri, "") or path.startswith("/") else f"sqlite:///{Path(path).resolve()}"


def _said(error: BaseException) -> str:
    return clean(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)[:300]


def _plain(value: Any) -> str:
    """A parameter as params.yaml and the command line write it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return clean(str(value))


class Row:
    """One MLflow row. Telling it something costs a line in a file; nothing here waits for MLflow but `close`.

    All methods raise Failed, naming the file, when the disk refuses the journal, and nothing else."""

    def __init__(self, home: Path, header: dict[str, Any]) -> None:
        self.header = header
        self.journal = Journal(home / ".lethe" / "outbox" / f"{header['row']}.{uuid.uuid4().hex[:8]}")
        self._last: dict[str, tuple[float, int, int]] = {}
        self._fresh: dict[str, tuple[float, Path | Callable[[], bytes] | None]] = {}
        self._closed = False
        self._numbers = 0
        self.journal.lock.acquire(timeout=0)
        write_json(self.journal.folder / "row.json", header)
        self._sender = Sender(home, self.journal)

    @classmethod
    def open(
        cls,
        home: Path,
        *,
        name: str,
        tags: Mapping[str, Any] = {},
        params: Mapping[str, Any] = {},
        description: str = "",
        history: Iterable[tuple[int, Mapping[str, Any]]] = (),
        previous: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        launched: bool = True,
        once: Mapping[str, str] | None = None,
    ) -> "Row":
        """The row of a run that begins or, with `previous` (what `reference` gave then), goes on.

        It is the launcher's (MLFLOW_RUN_ID) unless `launched` is False or a `parent` (its reference) is given; else the
        previous one; else a new one in the caller's experiment, unless a finished row there has all the tags of `once`.
        `history`: (step, metrics) of the epochs already behind us; what the row lacks of them is sent."""
        uri, run_id = _store(), os.environ.get("MLFLOW_RUN_ID") if launched and not parent else None
        same = previous is not None and (run_id is None or run_id == previous["run_id"])
        header = {
            "row": previous["row"] if previous and same else uuid.uuid4().hex[:16],
            "uri": clean(uri),
            "experiment_id": os.environ.get("MLFLOW_EXPERIMENT_ID"),
            "experiment_name": os.environ.get("MLFLOW_EXPERIMENT_NAME"),
            "run_id": run_id,
            "name": name,
            "source": Path(sys.argv[0]).name,
            "started": _now(),
            "previous": previous and dict(previous),
            "parent": parent and dict(parent),
            "once": once and dict(once),
        }
        row = cls(Path(home), header)
        row.params(params)
        row.tags({**tags, **({"mlflow.note.content": description} if description else {})})
        for step, values in history:
            row.metrics(values, step)
        row._sender.start()
        return row

    @classmethod
    def join(cls, home: Path, run_id: str | None = None, *, tags: Mapping[str, str] | None = None) -> "Row":
        """Adds to a row that is there, by id or as the newest in the caller's experiment with all of `tags`; leaves its
        status alone. When there is none, what is told is dropped, with a line."""
        header = {
            "row": "join",
            "uri": clean(_store()),
            "experiment_id": os.environ.get("MLFLOW_EXPERIMENT_ID"),
            "experiment_name": os.environ.get("MLFLOW_EXPERIMENT_NAME"),
            "join": {"run_id": run_id, "tags": dict(tags or {})},
            "name": "",
        }
        row = cls(Path(home), header)
        row._sender.start()
        return row

    @property
    def run_id(self) -> str | None:
        """MLflow's id, once the row is made."""
        run_id: str | None = self.journal.state["run_id"] or self.header.get("run_id")
        return run_id

    def reference(self) -> dict[str, Any]:
        """Enough to find this row again; for the resume state, and for `parent`."""
        return {"row": self.header["row"], "run_id": self.run_id}

    def metrics(self, values: Mapping[str, Any], step: int) -> None:
        """None is left out. Tell an epoch after the resume state that holds it is saved: a resumed run sends what lacks."""
        now = _now()
        known = {key: float(value) for key, value in values.items() if value is not None}
        known = {key: math.nan if math.isinf(value) else value for key, value in known.items()}
        self._last |= {key: (value, step, now) for key, value in known.items()}
        self._tell("metrics", [[key, value, step, now] for key, value in known.items()])

    def params(self, values: Mapping[str, Any]) -> None:
        """A key that the launcher logged keeps the launcher's text; a value too long for MLflow becomes an artifact."""
        texts = {key: _plain(value) for key, value in values.items()}
        for key, text in texts.items():
            if len(text) > LONGEST_PARAM:
                self.text(f"params/{key}.txt", text)
        self._tell("params", {key: text for key, text in texts.items() if len(text) <= LONGEST_PARAM})

    def tags(self, values: Mapping[str, Any]) -> None:
        self._tell("tags", {key: _plain(value) for key, value in values.items() if value is not None})

    def tag(self, key: str, value: Any) -> None:
        self.tags({key: value})

    def text(self, artifact_path: str, text: str) -> None:
        write_text(self.journal.artifacts / artifact_path, clean(text))
        self._tell("artifact", artifact_path)

    def file(self, path: Path, folder: str = "") -> None:
        """The file as it is now: a copy goes into the journal."""
        self._file(path, f"{folder}/{path.name}" if folder else path.name)

    def _file(self, source: Path | bytes, artifact_path: str) -> None:
        with whole(self.journal.artifacts / artifact_path) as beside:
            beside.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        self._tell("artifact", artifact_path)

    def refresh(self, source: Path | Callable[[], bytes], artifact_path: str) -> None:
        """An artifact that grows: taken at most once in 10 s, and at most for 1 % of the time; always once at `close`."""
        due, _ = self._fresh.get(artifact_path, (0.0, None))
        began = time.monotonic()
        if began < due:
            self._fresh[artifact_path] = (due, source)
            return
        self._file(source if isinstance(source, Path) else source(), artifact_path)
        ended = time.monotonic()
        self._fresh[artifact_path] = (ended + max(REFRESH, 100 * (ended - began)), None)

    def dataset(
        self,
        *,
        name: str,
        digest: str,
        source: str,
        shape: Sequence[int] = (),
        classes: Sequence[str] = (),
        profile: Mapping[str, Any] = {},
        context: str = "training",
    ) -> None:
        """Shown as the dataset that the run used; `shape` of one image, `profile` what else to say (numbers of images)."""
        spec = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *shape]}}
        labels = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
        schema = {"mlflow_tensorspec": {"features": json.dumps([spec]), "targets": json.dumps([labels])}}
        self._tell(
            "dataset",
            {
                "name": name,
                "digest": digest[:36],
                "source_type": "local",
                "source": json.dumps({"uri": clean(source)}),
                "schema": json.dumps(schema) if shape else None,
                "profile": json.dumps({**profile, "classes": list(classes)}),
                "context": context,
            },
        )

    def close(self, status: Status = "FINISHED") -> bool:
        """Tells the end, waits until all is sent, but not for a store that is away. Whether all is sent."""
        if self._closed:
            return True
        for artifact_path, (_, source) in self._fresh.items():
            if source is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._file(source if isinstance(source, Path) else source(), artifact_path)
        self._tell("end", {"status": status if "join" not in self.header else None, "time": _now()})
        self._closed = True
        return self._sender.finish()

    def __enter__(self) -> "Row":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)
        self.close("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")

    def _tell(self, what: str, value: Any) -> None:
        if self._closed:
            raise RuntimeError("the row is closed")
        if value:
            self.journal.append({what: value})
            self._sender.wake.set()


class Journal:
    """A row's outbox: `row.json` (what it is), `records.jsonl` (what was told), `artifacts/`, `models/`, and `sent.json`
    (the sender's: MLflow's id and which records are through). Its lock is held as long as somebody tells or sends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.artifacts = folder, folder / "artifacts"
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(f"{folder}.lock", thread_local=False)  # taken by one thread, let go by another
        self.state: dict[str, Any] = {"run_id": None, "tried": False, "sent": 0, "beyond": []}
        self.met = False
        self.present: set[tuple[str, int]] = set()
        self.params: dict[str, str] = {}
        self.model_id: str | None = None
        self._appending = threading.Lock()

    def append(self, record: dict[str, Any]) -> None:
        path = self.folder / "records.jsonl"
        try:
            with self._appending, path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise Failed(f"{path} could not be written: {error.strerror or error}") from error

    def pending(self) -> dict[int, tuple[str, Any]]:
        """Number -> (what, value), unsent. A last line without its end was cut off by a kill: it was never told."""
        path, sent, beyond = self.folder / "records.jsonl", self.state["sent"], self.state["beyond"]
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        unsent = ((n, json.loads(line)) for n, line in enumerate(lines) if n >= sent and n not in beyond)
        return {n: next(iter(record.items())) for n, record in unsent}

    def mark(self, numbers: Iterable[int], **state: Any) -> None:
        beyond = {*self.state["beyond"], *numbers}
        sent = self.state["sent"]
        while sent in beyond:
            beyond.remove(sent)
            sent += 1
        self.state |= {"sent": sent, "beyond": sorted(beyond), **state}
        write_json(self.folder / "sent.json", self.state)

    @property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = read_json(self.folder / "row.json")
        return header

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release()
        Path(f"{self.folder}.lock").unlink(missing_ok=True)  # no harm to who waits for it: there is nothing left to send


def leftovers(home: Path) -> Iterator[Journal]:
    """The journals that nobody holds, oldest first; their locks are taken."""
    for folder in sorted((home / ".lethe" / "outbox").glob("*/"), key=lambda folder: folder.stat().st_mtime):
        journal = Journal(folder)
        with contextlib.suppress(Timeout):
            journal.lock.acquire(timeout=0)
            if not (folder / "row.json").exists():  # sent by another in this moment, or killed at its first step
                journal.remove()
                continue
            if (folder / "sent.json").exists():
                journal.state = read_json(folder / "sent.json")
            if not any(what == "end" for what, _ in journal.pending().values()):
                journal.append({"end": {"status": "KILLED", "time": int((folder / "records.jsonl").stat().st_mtime * 1000)}})
            yield journal


class Sender(threading.Thread):
    """Sends what dead processes left behind, then its own row's records as they are told, until the end is told."""

    def __init__(self, home: Path, own: Journal) -> None:
        super().__init__(name="tracking", daemon=True)
        self.home, self.own = home, own
        self.wake, self.closing, self.done = threading.Event(), threading.Event(), threading.Event()
        self.away = ""

    def run(self) -> None:
        left: list[Journal] = []
        try:
            if "join" not in self.own.header:
                self.own.append({"tags": _git()})
            left = list(leftovers(self.home))
            delay, swept = 1.0, False
            while True:
                self.wake.clear()
                closing = self.closing.is_set()
                trouble = self._pass(left)
                if trouble:
                    if not self.away:
                        log.warning("MLflow: %s. The run goes on; what is told waits in %s", trouble, self.own.folder.parent)
                    self.away = trouble
                    if closing:
                        return
                    self.closing.wait(delay)
                    delay = min(60.0, 2 * delay)
                    continue
                if self.away:
                    log.warning("MLflow is back")
                self.away, delay = "", 1.0
                if not self.own.folder.exists():
                    return
                if not swept:
                    swept = True
                    with contextlib.suppress(Exception):
                        sweep(self.home, self.own.header["uri"])
                self.wake.wait()
        except Exception as error:  # a tracker must never be what ends a run
            log.warning("Tracking stopped: %s", _said(error))
        finally:
            for journal in [*left, self.own]:
                journal.lock.release()
            self.done.set()

    def _pass(self, left: list[Journal]) -> str:
        """One go at everything; what the own row's store said if it can't be reached."""
        away: dict[str, str] = {}
        for journal in [*left, self.own]:
            uri = journal.header["uri"]
            if uri not in away:
                try:
                    if deliver(journal) and journal is not self.own:
                        left.remove(journal)
                except Exception as error:
                    away[uri] = _said(error)
        return away.get(self.own.header["uri"], "") if self.own.folder.exists() else ""

    def finish(self) -> bool:
        self.closing.set()
        self.wake.set()
        self.done.wait(AWAY if self.away else PATIENCE)
        if not self.own.folder.exists():
            return True
        unsent = len(self.own.pending())
        log.warning("%d records are not sent to MLflow yet: the next run here sends them, or: python src/send.py", unsent)
        return False


def deliver(journal: Journal) -> bool:
    """Send what is unsent; whether that was the end of it (the journal is removed then).

    Raises what MLflow raises when the store is away. What the store refuses for good is dropped, with a line."""
    client = _client(journal.header["uri"])
    if not journal.met and not _meet(client, journal):
        journal.remove()
        return True
    run_id, pending = journal.state["run_id"], journal.pending()
    batch = {n: record for n, record in pending.items() if record[0] in ("metrics", "params", "tags")}
    _refusable(journal, batch, lambda: _log_batch(client, journal, batch.values()))
    newest = {value: n for n, (what, value) in pending.items() if what == "artifact"}
    trouble: Exception | None = None
    for n, (what, value) in pending.items():
        if what == "artifact" and newest[value] == n:
            folder = str(Path(value).parent)
            send = lambda: client.log_artifact(run_id, str(journal.artifacts / value), folder if folder != "." else None)
        elif what == "dataset":
            send = lambda: _log_dataset(client, run_id, value)
        elif what == "artifact":
            send = lambda: None  # a newer one follows
        else:
            continue
        try:
            _refusable(journal, {n: (what, value)}, send)
        except Exception as error:  # an artifact store may be away while the tracking server is not
            trouble = error
    if trouble:
        raise trouble
    end = next((value for what, value in pending.values() if what == "end"), None)
    if end is None:
        return False
    if end["status"] and not any(f != journal.folder for f in journal.folder.parent.glob(f"{journal.header['row']}.*/")):
        client.set_terminated(run_id, end["status"], end["time"])
    journal.remove()
    return True


def _refusable(journal: Journal, records: Mapping[int, tuple[str, Any]], send: Callable[[], Any]) -> None:
    try:
        send()
    except Exception as error:
        if not (isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in GONE):
            raise
        log.warning("MLflow refused %s: %s", ", ".join(sorted({what for what, _ in records.values()})), _said(error))
    journal.mark(records)


def _log_batch(client: "MlflowClient", journal: Journal, records: Iterable[tuple[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics: list[Metric] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for what, value in records:
        if what == "metrics":
            known = [Metric(k, v, t, step, model_id=journal.model_id) for k, v, step, t in value if (k, step) not in journal.present]
            metrics += known
        elif what == "params":
            params |= {key: text for key, text in value.items() if key not in journal.params}
        else:
            tags |= value
    if metrics or params or tags:
        pairs = [Param(*pair) for pair in params.items()], [RunTag(*pair) for pair in tags.items()]
        client.log_batch(journal.state["run_id"], metrics, *pairs)


def _log_dataset(client: "MlflowClient", run_id: str, value: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = value.pop("context")
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**value), [InputTag("mlflow.data.context", context)])])


def _meet(client: "MlflowClient", journal: Journal) -> bool:
    """Find or make the journal's row; False when there is nothing to do for it."""
    header, state = journal.header, journal.state
    run: Run | None = None
    if "join" in header:
        wanted = header["join"]
        found = [_get(client, wanted["run_id"])] if wanted["run_id"] else _search(client, wanted["tags"], _experiment(client, header))
        run = next(iter(found), None)
        if run is None:
            log.warning("MLflow has no row %s: what was told about it is dropped", wanted["run_id"] or wanted["tags"])
            return False
    else:
        run_id = state["run_id"] or header["run_id"]
        run = _get(client, run_id) if run_id else None
        previous = header["previous"]
        old = _lookup(client, previous) if previous else None
        if run is None and not header["run_id"]:
            run = old if old else _lookup(client, header) if state["tried"] else None
        if run is None and header["once"] and _search(client, header["once"], _experiment(client, header), "FINISHED"):
            return False
        own = {ROW: header["row"], HOME: _place(journal.folder.parents[2])}
        if run is None:
            journal.mark((), tried=True)
            run = _create(client, header, own, journal.folder.parent)
        elif not state["run_id"]:
            if run.info.status != "RUNNING":
                client.update_run(run.info.run_id, "RUNNING")
            client.update_run(run.info.run_id, name=header["name"])
            for pair in own.items():
                client.set_tag(run.info.run_id, *pair)
        if old and old.info.run_id != run.info.run_id:
            client.set_tag(old.info.run_id, "continued_in", run.info.run_id)
            if old.info.status != "FINISHED":
                client.set_terminated(old.info.run_id, "KILLED", old.info.end_time)
        if old and old.info.run_id == run.info.run_id:
            for key in run.data.metrics:
                journal.present |= {(key, point.step) for point in client.get_metric_history(run.info.run_id, key)}
    journal.params = run.data.params
    journal.mark((), run_id=run.info.run_id)
    journal.met = True
    return True


def _create(client: "MlflowClient", header: Mapping[str, Any], own: dict[str, str], outbox: Path) -> "Run":
    tags = {**own, "mlflow.source.name": header["source"], "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(Exception):  # no name for this user on this machine
        tags["mlflow.user"] = getpass.getuser()
    if parent := header["parent"]:
        if above := _lookup(client, parent):
            tags["mlflow.parentRunId"] = above.info.run_id
        elif any(outbox.glob(f"{parent['row']}.*/")):
            raise Failed("the row above this one is not there yet")
    return client.create_run(_experiment(client, header), header["started"], tags, header["name"])


def _get(client: "MlflowClient", run_id: str) -> "Run | None":
    """None when this store has no such row, or it was deleted there."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", "") in GONE:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _lookup(client: "MlflowClient", reference: Mapping[str, Any]) -> "Run | None":
    if reference["run_id"]:
        return _get(client, reference["run_id"])
    return next(iter(_search(client, {ROW: reference["row"]})), None)


def _search(client: "MlflowClient", tags: Mapping[str, str], experiment: str | None = None, status: str = "") -> "list[Run]":
    """Newest first."""
    experiments = [experiment] if experiment else [e.experiment_id for e in client.search_experiments()]
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()] + ([f"attributes.status = '{status}'"] if status else [])
    return list(client.search_runs(experiments, " and ".join(wanted), order_by=["attributes.start_time DESC"]))


def _experiment(client: "MlflowClient", header: Mapping[str, Any]) -> str:
    if header["experiment_id"]:
        return str(header["experiment_id"])
    if not (name := header["experiment_name"]):
        return "0"
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    return str(client.create_experiment(name))


def sweep(home: Path, uri: str) -> None:
    """Ends RUNNING rows that nobody holds."""


_clients: "dict[str, MlflowClient]" = {}


def _client(uri: str) -> "MlflowClient":
    """For an address as journals hold it, without credentials; the caller's own has them in the environment."""
    if uri not in _clients:
        _quiet()
        from mlflow import MlflowClient

        full = _store() if clean(_store()) == uri else uri
        _clients[uri] = MlflowClient(full)
    return _clients[uri]


def _quiet() -> None:
    """Before mlflow is imported: short retries (the patience is ours), and none of its own talk."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)


def _git() -> dict[str, str]:
    """The commit that runs, where the checkout is a git repository of its own, and whether it is edited."""

    def ask(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root(), capture_output=True, text=True, check=True, timeout=20).stdout

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        prefix, commit = ask("rev-parse", "--show-prefix", "HEAD").split("\n")[:2]
        if not prefix:
            edited = bool(ask("status", "--porcelain", "--untracked-files=no"))
            return {"mlflow.source.git.commit": commit, "git_dirty": json.dumps(edited)}
    return {}


def _place(home: Path) -> str:
    return short(digest([platform.node(), str(home.resolve())]))


def _now() -> int:
    return int(time.time() * 1000)
