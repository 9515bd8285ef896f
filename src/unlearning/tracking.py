"""What a run tells MLflow: told to a journal on disk first, sent from there by a background thread.

So a tracking server that goes away, or was never there, neither stops nor slows a run and loses nothing: a journal that is
not sent to its end stays under `<workspace>/.lethe/outbox/` and is sent by the next run there, or by `python src/send.py`.
Whatever is sent may be sent twice (a kill between sending and noting it): every record is built so that this changes nothing.

The only file that imports mlflow, and only inside functions: it takes seconds, which must not delay the first step.
A value that is infinite is told as NaN (MLflow would store 1.8e308, which flattens every chart); epochs/<method>.csv has it.
"""

import base64
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
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from filelock import FileLock, Timeout

from unlearning.config import CHECKOUT, root
from unlearning.errors import BadInput, Failed
from unlearning.files import digest, read_json, short, whole, write_json, write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from torch.nn import Module

Status = Literal["FINISHED", "FAILED", "KILLED"]
Records = dict[int, tuple[str, Any]]  # number -> what, value

# Tags: a row's own name, which outlives a resumption; the workspace that feeds it; a logged model's name in its journal.
ROW, HOME, MODEL = "lethe.row", "lethe.home", "lethe.model"
VIEW = "mlflow.sharedViewState.lethe"  # the address that ends in ?viewStateShareKey=lethe opens with it
COLUMNS = (*(f"{split}.accuracy" for split in ("retain", "forget", "validation", "test")), "forget.distance", "test.distance")
LONGEST_PARAM = 6000
REFRESH = 10.0  # seconds between two refreshes of an artifact, at least
PATIENCE, AWAY = 120.0, 5.0  # seconds that close() waits: while sending goes on; once the store does not answer
BETWEEN = 60.0  # seconds between two attempts while it does not, at most
LEFT_BEHIND = 600.0  # seconds after which a launcher's row that no program took up is given up
OUTBOX = Path(".lethe/outbox")
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
_away: dict[str, str] = {}  # store -> what it said last, while it can't be reached: known to all rows of this process


def clean(text: str) -> str:
    """`text` without the user and password of any address in it, and without MLflow's own secrets."""
    text = re.sub(r"(?<=://)[^\s/]*@", "", text)
    text = re.sub(r"(?<=://)[^:/@\s]*:[^@\s]*@", "", text)  # a password with a slash in it
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def said(error: BaseException) -> str:
    """The first line of what went wrong, fit to be shown."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return clean(line.partition(" with exception HTTP")[0])[:200]


class Row:
    """One MLflow row. Telling it something costs a line in a file; nothing here waits for MLflow but `close`.

    All methods raise Failed, naming the file, when the disk refuses the journal."""

    def __init__(self, home: Path, header: dict[str, Any]) -> None:
        home = home.resolve()
        self.header = header
        self.journal = Journal(home / OUTBOX / f"{header['row']}.{uuid.uuid4().hex[:8]}")
        self._fresh: dict[str, tuple[float, Path | Callable[[], bytes] | None]] = {}
        self._closed = False
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
        history: Iterable[Sequence[Any]] = (),
        previous: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        launched: bool = True,
        once: Mapping[str, str] | None = None,
    ) -> "Row":
        """The row of a run that begins or, with `previous` (what `reference` gave then), goes on.

        It is the launcher's (MLFLOW_RUN_ID) unless `launched` is False or a `parent` (its reference) is given; else the
        previous one; else a new one in the caller's experiment, unless a finished row there has all the tags of `once`.
        `history`: (step, metrics) or (step, metrics, at) of the epochs already behind us; what the row lacks is sent."""
        uri, run_id = _store(), os.environ.get("MLFLOW_RUN_ID") if launched and not parent else None
        same = previous is not None and (run_id is None or run_id == previous["run_id"])
        header = {
            "row": previous["row"] if previous and same else uuid.uuid4().hex[:16],
            "uri": clean(uri),
            **_caller(),
            "run_id": run_id,
            "name": name,
            "source": f"src/{Path(sys.argv[0]).name}",
            "started": _now(),
            "previous": previous and dict(previous),
            "resumes": bool(same),
            "parent": parent and dict(parent),
            "once": once and dict(once),
        }
        row = cls(Path(home), header)
        row.params(params)
        row.tags({**tags, **({"mlflow.note.content": description} if description else {})})
        for step, values, *at in history:
            row.metrics(values, step, *at)
        row._sender.start()
        return row

    @classmethod
    def join(cls, home: Path, run_id: str | None = None, *, tags: Mapping[str, str] | None = None) -> "Row":
        """Adds to a row that is there, by id or as the newest in the caller's experiment with all of `tags`; leaves its
        status alone. When there is none, what is told is dropped, with a line."""
        header = {
            "row": "join",
            "uri": clean(_store()),
            **_caller(),
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

    def metrics(self, values: Mapping[str, Any], step: int, at: int | None = None) -> None:
        """None is left out; `at`: when, in ms, if not now. Tell an epoch once the resume state that holds it is saved: should
        the run be killed in between, it sends the epoch when it goes on."""
        now = at or _now()
        known = {key: float(value) for key, value in values.items() if value is not None}
        known = {key: math.nan if math.isinf(value) else value for key, value in known.items()}
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
        content = source if isinstance(source, bytes) else source.read_bytes()
        with whole(self.journal.artifacts / artifact_path) as beside:
            beside.write_bytes(content)
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

    def model(
        self,
        path: Path,
        kind: Literal["safetensors", "pt2", "none"],
        *,
        shape: Sequence[int],
        info: Mapping[str, Any],
        module: "Callable[[], Module] | None" = None,
        name: str = "model",
        step: int = 0,
        final: bool = True,
    ) -> None:
        """The weights in `path` as a logged model that takes batches of `shape` and gives a logit for each of
        `info["classes"]`; `info` (architecture, classes, mean, std, ...) stands beside them. "pt2" exports what `module()`
        makes, which then loads without this repository; an export that fails is said, and leaves safetensors."""
        if kind == "none" or self.journal.idle:
            return
        folder = self.journal.models / f"{self.header['row']}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            if kind == "pt2" and module is not None:
                _export(module(), shape, folder)
        except Exception as error:  # torch.export raises whatever it likes
            log.warning("The model can't be exported as pt2, it is logged as safetensors: %s", said(error))
            shutil.rmtree(folder)
            folder.mkdir()
            kind = "safetensors"
        if kind == "safetensors":
            _link(path, folder / "model.safetensors")
        write_json(folder / "model.json", dict(info))
        about = {"folder": folder.name, "name": name, "kind": kind, "step": step, "final": final}
        self._tell("model", {**about, "shapes": [list(shape), [len(info["classes"])]]})

    def checkpoint(self, path: Path, step: int, *, shape: Sequence[int], info: Mapping[str, Any]) -> None:
        """A logged model on the way, with its step."""
        self.model(path, "safetensors", shape=shape, info=info, name="checkpoint", step=step, final=False)

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
        if value and (what == "end" or not self.journal.idle):
            self.journal.append(what, value)
            self._sender.wake.set()


def _link(path: Path, to: Path) -> None:
    """The file as it is now, without a copy where the disk allows: ours are replaced as a whole, never written to."""
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)


def _export(module: "Module", shape: Sequence[int], folder: Path) -> None:
    """A batch of 2 leaves the batch size free; a batch of 1 would fix it."""
    import torch

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
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


class Journal:
    """A row's outbox: `row.json` (what it is), `records.jsonl` (what was told), `artifacts/`, `models/`, and `sent.json`
    (the sender's: MLflow's id and which records are through). Its lock is held as long as somebody tells or sends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.artifacts, self.models = folder, folder / "artifacts", folder / "models"
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(f"{folder}.lock", thread_local=False)  # taken by one thread, let go by another
        self.state: dict[str, Any] = {"run_id": None, "tried": False, "sent": 0, "late": []}
        self.met = self.idle = self.stuck = False  # idle: there is no row to tell this to, and there need not be one
        self.present: set[tuple[str, int]] = set()
        self.params: dict[str, str] = {}
        self.model_id: str | None = None
        self._appending = threading.Lock()

    @cached_property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = read_json(self.folder / "row.json")
        return header

    @property
    def followed(self) -> bool:
        """Whether another journal tells more of the same row."""
        return any(other != self.folder for other in self.folder.parent.glob(f"{self.header['row']}.*/"))

    def append(self, what: str, value: Any) -> None:
        path = self.folder / "records.jsonl"
        try:
            with self._appending, path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({what: value}) + "\n")
        except OSError as error:
            raise Failed(f"{path} could not be written: {error.strerror or error}") from error

    def told(self, wanted: Callable[[int], bool] = lambda number: True) -> Records:
        """All records, or those whose number is wanted."""
        path = self.folder / "records.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return {n: next(iter(json.loads(line).items())) for n, line in enumerate(lines) if wanted(n)}

    def pending(self) -> Records:
        """What is unsent."""
        sent, late = self.state["sent"], {*self.state["late"]}
        return self.told(lambda n: n >= sent or n in late)

    def inherit(self) -> None:
        """Take over from a dead process: a last line without its end was never told, a run without its end was killed."""
        path, sent = self.folder / "records.jsonl", self.folder / "sent.json"
        with path.open("a+b") as file:
            killed = os.fstat(file.fileno()).st_mtime
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        self.state = read_json(sent) if sent.exists() else self.state | {"tried": True}
        if not any(what == "end" for what, _ in self.pending().values()):
            self.append("end", {"status": None if "join" in self.header else "KILLED", "time": int(killed * 1000)})

    def mark(self, numbers: Iterable[int], **state: Any) -> None:
        """Note these records as sent: all before `sent` are, but for the `late`."""
        numbers, before = set(numbers), self.state["sent"]
        sent = max(before, *(n + 1 for n in numbers), 0)
        late = {*self.state["late"], *range(before, sent)} - numbers
        self.state |= {"sent": sent, "late": sorted(late), **state}
        write_json(self.folder / "sent.json", self.state)

    def forget(self) -> None:
        """Back to nothing sent and no row known."""
        self.met = False
        self.state |= {"run_id": None, "sent": 0, "late": []}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release()
        Path(f"{self.folder}.lock").unlink(missing_ok=True)  # who waits for it finds nothing left to send


def leftovers(home: Path) -> Iterator[Journal]:
    """The journals that nobody holds, oldest first; their locks are taken."""

    def begun(folder: Path) -> float:
        with contextlib.suppress(OSError):  # sent and removed by another in this moment
            return (folder / "row.json").stat().st_mtime
        return 0.0

    for folder in sorted((home / OUTBOX).glob("*/"), key=begun):
        journal = Journal(folder)
        try:
            journal.lock.acquire(timeout=0)
        except Timeout:
            continue
        if not begun(folder):  # or killed at its first step
            journal.remove()
            continue
        try:
            journal.inherit()
        except (Failed, BadInput, OSError, ValueError) as error:
            log.warning("%s can't be read and is left alone: %s", folder, error)
            journal.lock.release()
            continue
        yield journal


class Sender(threading.Thread):
    """Sends what dead processes left behind, then its own row's records as they are told, until the end is told."""

    def __init__(self, home: Path, own: Journal) -> None:
        super().__init__(name="tracking", daemon=True)
        self.home, self.own = home, own
        self.wake, self.closing, self.done = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        left: list[Journal] = []
        try:
            if "join" not in self.own.header:
                self.own.append("tags", _commit())
            left += leftovers(self.home)
            self._loop(left)
        except Exception as error:  # a tracker must never be what ends a run
            log.warning("Tracking stopped: %s", said(error))
        finally:
            for journal in [*left, self.own]:
                journal.lock.release()
            self.done.set()

    def _loop(self, left: list[Journal]) -> None:
        delay, swept, store = 1.0, False, self.own.header["uri"]
        while self.own.folder.exists():
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
                        sweep(self.home, store)
                delay, swept = 1.0, True
                if self.own.folder.exists():
                    self.wake.wait()

    def _pass(self, left: list[Journal]) -> str:
        """One go at everything. What is left goes first, for it may be the beginning of our own row."""
        away: set[str] = set()
        for journal in list(left):
            if journal.header["uri"] not in away and attempt(journal) == "away":
                away.add(journal.header["uri"])
            if journal.header["uri"] not in away:
                left.remove(journal)
                journal.lock.release()
        return "away" if self.own.header["uri"] in away else attempt(self.own)

    def finish(self) -> bool:
        self.closing.set()
        self.wake.set()
        self.done.wait(AWAY if self.own.header["uri"] in _away else PATIENCE)
        if not self.own.folder.exists():
            return True
        unsent = len(self.own.pending())
        log.warning("%d records are not sent to MLflow yet: the next run here sends them, or: python src/send.py", unsent)
        return False


def attempt(journal: Journal) -> Literal["", "away", "stuck"]:
    """Send what is unsent, if it can be. What keeps it is said once: the store is "away", or it takes everything but this."""
    store = journal.header["uri"]
    try:
        deliver(journal)
    except Exception as error:
        with contextlib.suppress(Exception):
            _client(store).search_experiments(max_results=1)
            if not journal.stuck:
                log.warning("MLflow does not take all of %s: %s", journal.folder, said(error))
            journal.stuck = True
            return "stuck"
        if store not in _away:
            log.warning("MLflow can't be reached (%s). What it is told waits in %s", said(error), journal.folder.parent)
        _away[store] = said(error)
        return "away"
    if _away.pop(store, None):
        log.warning("MLflow answers again")
    return ""


def send(homes: Iterable[Path]) -> int:
    """Send what these workspaces still hold, but for what a running process does; how many records stay unsent."""
    unsent = 0
    for home in homes:
        for journal in list(leftovers(home)):
            if journal.header["uri"] in _away or attempt(journal):
                unsent += len(journal.pending())
            journal.lock.release()
    return unsent


def deliver(journal: Journal) -> None:
    """Send what is unsent, and remove the journal behind its end.

    Raises what MLflow raises when the store is away. What the store refuses for good is dropped, with a line."""
    client = _client(journal.header["uri"])
    if not journal.met:
        _meet(client, journal)
    pending = journal.pending()
    end = next((value for what, value in pending.values() if what == "end"), None)
    if not journal.idle:
        trouble: Exception | None = None
        batch = {n: record for n, record in pending.items() if record[0] in ("metrics", "params", "tags")}
        if batch and not _send_batch(client, journal, batch):
            journal.met = False
            return deliver(journal)
        newest = {value: n for n, (what, value) in pending.items() if what == "artifact"}
        for n, (what, value) in pending.items():
            if what in SEND:
                if what == "artifact" and newest[value] != n:
                    journal.mark([n])
                    continue
                try:
                    _refusable(journal, {n: (what, value)}, partial(SEND[what], client, journal, value))
                except Exception as error:  # an artifact store may be away while the tracking server is not
                    trouble = error
        if trouble:
            raise trouble
        if end:
            _end(client, journal, end)
    if end:
        journal.remove()


def _refusable(journal: Journal, records: Records, send: Callable[[], Any]) -> None:
    try:
        send()
    except Exception as error:
        if not _refused(error):
            raise
        log.warning("MLflow refused %s: %s", ", ".join(sorted({what for what, _ in records.values()})), said(error))
    journal.mark(records)


def _refused(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in REFUSALS


def _send_batch(client: "MlflowClient", journal: Journal, batch: Records) -> bool:
    """All in one call; one by one when something in it is refused, so that nothing else is lost with it. False when it is
    not the records that are refused: the row is gone."""
    try:
        _log_batch(client, journal, batch.values())
        journal.mark(batch)
    except Exception as error:
        if not _refused(error):
            raise
        if _get(client, journal.state["run_id"]) is None:
            return False
        for n, record in batch.items():
            _refusable(journal, {n: record}, partial(_log_batch, client, journal, [record]))
    return True


def _log_batch(client: "MlflowClient", journal: Journal, records: Iterable[tuple[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics: list[Metric] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for what, value in records:
        if what == "metrics":
            lacking = (point for point in value if (point[0], point[2]) not in journal.present)
            metrics += [Metric(key, number, now, step, journal.model_id) for key, number, step, now in lacking]
        elif what == "params":
            params |= {key: text for key, text in value.items() if key not in journal.params}
        else:
            tags |= value
    if metrics or params or tags:
        pairs = [Param(*pair) for pair in params.items()], [RunTag(*pair) for pair in tags.items()]
        client.log_batch(journal.state["run_id"], metrics, *pairs)


def _log_artifact(client: "MlflowClient", journal: Journal, value: str) -> None:
    folder, _, _ = value.rpartition("/")
    client.log_artifact(journal.state["run_id"], str(journal.artifacts / value), folder or None)


def _log_dataset(client: "MlflowClient", journal: Journal, value: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = InputTag("mlflow.data.context", value["context"])
    dataset = Dataset(**{key: text for key, text in value.items() if key != "context"})
    client.log_inputs(journal.state["run_id"], datasets=[DatasetInput(dataset, [context])])


def _log_model(client: "MlflowClient", journal: Journal, value: dict[str, Any]) -> None:
    """Upload a folder as a logged model of the row, link the row's newest metrics to it; later ones are linked as told."""
    from mlflow.entities import LoggedModelOutput, Metric

    run = client.get_run(journal.state["run_id"])
    run_id, experiment = run.info.run_id, run.info.experiment_id
    found = client.search_logged_models([experiment], f"tags.`{MODEL}` = '{value['folder']}'")
    new = {"name": value["name"], "source_run_id": run_id, "tags": {MODEL: value["folder"]}, "model_type": value["kind"]}
    model = found[0] if found else client.create_logged_model(experiment, **new)
    try:
        if model.status != "READY":
            _describe(journal.models / value["folder"], run_id, model, value)
            client.log_model_artifacts(model.model_id, str(journal.models / value["folder"]))
            client.finalize_logged_model(model.model_id, "READY")
        if all(output.model_id != model.model_id for output in run.outputs.model_outputs):
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, value["step"])])
        if value["final"]:
            points = [point for what, points in journal.told().values() if what == "metrics" for point in points]
            newest = {key: Metric(key, number, now, step, model.model_id) for key, number, step, now in points}
            client.log_batch(run_id, list(newest.values()))
    except Exception as error:
        if _refused(error):
            client.delete_logged_model(model.model_id)
        raise
    if value["final"]:
        journal.model_id = model.model_id


def _describe(folder: Path, run_id: str, model: Any, value: dict[str, Any]) -> None:
    """The file by which MLflow knows what a model takes and gives."""
    import numpy
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    file = folder / "MLmodel"
    if file.exists():
        about = Model.load(str(file))
        about.run_id, about.model_id, about.model_uuid = run_id, model.model_id, model.model_id
    else:
        takes, gives = (Schema([TensorSpec(numpy.dtype("float32"), [-1, *shape])]) for shape in value["shapes"])
        about = Model(run_id=run_id, model_id=model.model_id, model_uuid=model.model_id, signature=ModelSignature(takes, gives))
        about.add_flavor("safetensors", data="model.safetensors", about="model.json")
    about.artifact_path = model.artifact_location
    about.save(str(file))


SEND: dict[str, Callable[["MlflowClient", Journal, Any], None]]
SEND = {"artifact": _log_artifact, "dataset": _log_dataset, "model": _log_model}


def _end(client: "MlflowClient", journal: Journal, end: dict[str, Any]) -> None:
    run = _get(client, journal.state["run_id"])
    if run and end["status"] and not journal.followed and not (end["status"] == "KILLED" and run.info.status == "FINISHED"):
        client.set_terminated(run.info.run_id, end["status"], end["time"])


def _meet(client: "MlflowClient", journal: Journal) -> None:
    """Find or make the journal's row."""
    header = journal.header
    if "join" in header:
        run_id, tags = header["join"]["run_id"], header["join"]["tags"]
        run = _get(client, run_id) if run_id else next(iter(_search(client, tags, _experiment(client, header))), None)
        if run is None:
            log.warning("MLflow has no row %s: what was told about it is dropped", run_id or tags)
    else:
        run = _own(client, journal)
    journal.idle, journal.met = run is None, True
    if run is not None:
        journal.params = run.data.params
        outputs = run.outputs.model_outputs if run.outputs else []
        journal.model_id = next((output.model_id for output in outputs if "join" in header), None)
        journal.mark((), run_id=run.info.run_id)


def _own(client: "MlflowClient", journal: Journal) -> "Run | None":
    """The row as `Row.open` describes it."""
    header, state = journal.header, journal.state
    previous = header["previous"] and _lookup(client, header["previous"])
    run_id = state["run_id"] or header["run_id"]
    run = _get(client, run_id, deleted=True) if run_id else None
    if run and run.info.lifecycle_stage != "active":
        log.warning("The row %s was deleted: nothing more is sent to it", header["name"])
        return None
    if run is None and state["run_id"]:  # the store was begun anew
        journal.forget()
    if run is None and header["resumes"]:
        run = previous
    if run is None and state["tried"]:
        run = _lookup(client, {"row": header["row"], "run_id": None})
    if run is None and header["once"] and _search(client, header["once"], _experiment(client, header), "FINISHED"):
        return None
    own = {ROW: header["row"], HOME: _place(journal.folder.parents[2])}
    if run is None:
        journal.mark((), tried=True)
        return _create(client, journal, own)
    run_id = run.info.run_id
    if not state["run_id"]:
        client.update_run(run_id, None if run.info.status == "RUNNING" else "RUNNING", header["name"])
        for pair in own.items():
            client.set_tag(run_id, *pair)
    if previous and previous.info.run_id == run_id:
        for key in run.data.metrics:
            journal.present |= {(key, point.step) for point in client.get_metric_history(run_id, key)}
    elif previous:
        client.set_tag(previous.info.run_id, "continued_in", run_id)
        if previous.info.status != "FINISHED":
            client.set_terminated(previous.info.run_id, "KILLED", previous.info.end_time)
    return run


def _create(client: "MlflowClient", journal: Journal, own: dict[str, str]) -> "Run":
    header = journal.header
    tags = {**own, "mlflow.source.name": header["source"], "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(Exception):  # this user has no name on this machine
        tags["mlflow.user"] = getpass.getuser()
    if parent := header["parent"]:
        if above := _lookup(client, parent):
            tags["mlflow.parentRunId"] = above.info.run_id
        elif any(journal.folder.parent.glob(f"{parent['row']}.*/")):
            raise Failed("the row above this one is not there yet")
    experiment = _experiment(client, header)
    with contextlib.suppress(Exception):  # a courtesy to the table, no more
        if VIEW not in client.get_experiment(experiment).tags:
            client.set_experiment_tag(experiment, VIEW, _view())
    return client.create_run(experiment, header["started"], tags, header["name"])


def _view() -> str:
    """The UI's state under which its table shows the columns that matter, as its "share view" button would store it."""
    columns = [f"metrics.`{name}`" for name in COLUMNS]
    state = {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False, "runsHiddenMode": "SHOW_ALL"}
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


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
    return next(iter(_search(client, {ROW: reference["row"]})), None)


def _search(client: "MlflowClient", tags: Mapping[str, str], experiment: str | None = None, status: str = "") -> "list[Run]":
    """Newest first."""
    experiments = [experiment] if experiment else [each.experiment_id for each in client.search_experiments()]
    wanted = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    wanted += [f"attributes.status = '{status}'"] if status else []
    return list(client.search_runs(experiments, " and ".join(wanted), order_by=["attributes.start_time DESC"]))


def _experiment(client: "MlflowClient", header: Mapping[str, Any], make: bool = True) -> str | None:
    """The caller's experiment, made if it is not there; in the default store its artifacts stand beside the others."""
    name = header["experiment_name"]
    if header["experiment_id"] or not name:
        return header["experiment_id"] or "0"
    if (found := client.get_experiment_by_name(name)) or not make:
        return str(found.experiment_id) if found else None
    ours = header["uri"] == _default()
    return str(client.create_experiment(name, str(root().absolute() / "mlruns" / quote(name, safe="")) if ours else None))


def find(tags: Mapping[str, str], experiment: str | None = None) -> list[dict[str, Any]]:
    """Rows with all of these tags in the caller's experiment (or the one of this name), newest first: run_id, name, status,
    tags, params, metrics. It waits for MLflow, and raises Failed when the store can't be read; `once` and `join` don't."""
    where = {"experiment_name": experiment, "experiment_id": None} if experiment else _caller()
    try:
        client = _client(clean(_store()))
        there = _experiment(client, where, make=False)
        rows = _search(client, tags, there) if there else []
    except Exception as error:
        raise Failed(f"the MLflow store can't be read: {said(error)}") from None
    about = ({"run_id": row.info.run_id, "name": row.info.run_name, "status": row.info.status} for row in rows)
    data = ({"tags": row.data.tags, "params": row.data.params, "metrics": row.data.metrics} for row in rows)
    return [one | other for one, other in zip(about, data, strict=True)]


def sweep(home: Path, uri: str) -> None:
    """End the RUNNING rows of this store that nobody holds: ours whose journal is gone with its folder (KILLED: a run that
    goes on joins it again), and those that a launcher of this project left behind before the program began (FAILED)."""
    client, old = _client(uri), _now() - 1000 * LEFT_BEHIND
    for run in _search(client, {}, status="RUNNING"):
        tags, status = run.data.tags, ""
        if tags.get(HOME) == _place(home):
            held = any((home / OUTBOX).glob(f"{tags.get(ROW)}.*/"))
            status = "" if held else "KILLED"
        elif ROW not in tags and "mlflow.project.entryPoint" in tags and run.info.start_time < old:
            status = "FAILED" if tags.get("mlflow.source.name", "").partition("#")[0] in _addresses() else ""
        if status and client.get_run(run.info.run_id).info.status == "RUNNING":  # not ended since the search
            client.set_terminated(run.info.run_id, status)


def _default() -> str:
    return f"sqlite:///{str(root().absolute()).replace('%', '%25')}/mlflow.db"


def _store() -> str:
    """The address of the caller's store, with its credentials if it has any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or _default()
    path = uri.removeprefix("sqlite:///")
    return uri if path in (uri, "") or path.startswith("/") else f"sqlite:///{Path(path).resolve()}"


def _caller() -> dict[str, str | None]:
    return {key: os.environ.get(f"MLFLOW_{key.upper()}") for key in ("experiment_id", "experiment_name")}


@cache
def _client(uri: str) -> "MlflowClient":
    """For an address as journals hold it, without credentials; the caller's own has them in the environment."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # it may have been imported before
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri == _default() and not (root() / "mlflow.db").exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, str(root().absolute() / "mlruns"))  # the client would put the artifacts under the current folder
    return MlflowClient(_store() if clean(_store()) == uri else uri)


def _git(*arguments: str) -> str:
    """Its answer; nothing where there is no git or no repository."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip("\n")
    return ""


def _commit() -> dict[str, str]:
    """The commit that runs, where the checkout is a repository of its own, and whether it is edited."""
    prefix, _, commit = _git("rev-parse", "--show-prefix", "HEAD").rpartition("\n")
    if prefix or not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "git_dirty": _plain(bool(_git("status", "--porcelain", "-uno")))}


def _addresses() -> set[str]:
    """How a launcher names this project as the source of its row."""
    return {str(CHECKOUT), f"file://{CHECKOUT}", _git("config", "remote.origin.url")} - {""}


def _place(home: Path) -> str:
    return short(digest([platform.node(), str(home.resolve())]))


def _plain(value: Any) -> str:
    """A value as params.yaml and the command line write it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return clean(str(value))


def _now() -> int:
    return int(time.time() * 1000)
