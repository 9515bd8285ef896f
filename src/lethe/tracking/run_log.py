"""One row: what a run tells MLflow. Told to a journal on disk, sent from there by a background thread.

So a tracking server that goes away, or was never there, neither stops nor slows a run and loses nothing: a journal that is
not sent to its end is sent by the next run in its workspace, or by `python src/send.py`.
A value that is infinite is told as NaN (MLflow would store 1.8e308, which flattens every chart); epochs/<method>.csv has it.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from lethe._util.errors import RunFailed
from lethe._util.files import whole, write_json
from lethe._util.redact import clean, plain, said
from lethe.tracking import mlflow_delivery as delivery
from lethe.tracking.outbox import Journal, addressee, now

if TYPE_CHECKING:
    from torch.nn import Module

Status = Literal["FINISHED", "FAILED", "KILLED"]

LONGEST_PARAM = 6000
ROW = delivery.ROW  # the tag by which a row's own name is found
REFRESH = 10.0  # seconds between two refreshes of an artifact, at least

log = logging.getLogger(__name__)


class Row:
    """One MLflow row. Telling it something costs a line in a file; nothing here waits for MLflow but `close`.

    All methods raise RunFailed, naming the file, when the disk refuses the journal."""

    def __init__(self, home: Path, header: dict[str, Any]) -> None:
        self.journal = Journal.begin(home, header)
        self._sender = delivery.Sender(home.resolve(), self.journal)
        self._fresh: dict[str, tuple[float, Callable[[], bytes] | None]] = {}  # artifact -> when it is due again, what it lacks
        self._closed = False

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
        run_id = os.environ.get("MLFLOW_RUN_ID") if launched and not parent else None
        same = previous is not None and (run_id is None or run_id == previous["run_id"])
        header = {
            "row": previous["row"] if previous and same else uuid.uuid4().hex[:16],
            **addressee(),
            "run_id": run_id,
            "name": name,
            "source": f"src/{Path(sys.argv[0]).name}",
            "started": now(),
            "previous": previous and dict(previous),
            "resumes": same,
            "parent": parent and dict(parent),
            "once": once and dict(once),
        }
        row = cls(home, header)
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
        row = cls(home, {"row": "join", **addressee(), "join": {"run_id": run_id, "tags": dict(tags or {})}, "name": ""})
        row._sender.start()
        return row

    @property
    def run_id(self) -> str | None:
        """MLflow's id, once the row is made."""
        run_id: str | None = self.journal.state["run_id"] or self.journal.header.get("run_id")
        return run_id

    def reference(self) -> dict[str, Any]:
        """Enough to find this row again; for the resume state, and for `parent`."""
        return {"row": self.journal.header["row"], "run_id": self.run_id}

    def metrics(self, values: Mapping[str, Any], step: int, at: int | None = None) -> None:
        """None is left out; `at`: when, in ms, if not now. Tell an epoch once the resume state that holds it is saved: should
        the run be killed in between, it sends the epoch when it goes on."""
        at = at or now()
        known = {key: float(value) for key, value in values.items() if value is not None}
        self._tell("metrics", [[key, math.nan if math.isinf(value) else value, step, at] for key, value in known.items()])

    def params(self, values: Mapping[str, Any]) -> None:
        """A key that the launcher logged keeps the launcher's text; a value too long for MLflow becomes an artifact."""
        texts = {key: plain(value) for key, value in values.items()}
        for key, text in texts.items():
            if len(text) > LONGEST_PARAM:
                self.text(f"params/{key}.txt", text)
        self._tell("params", {key: text for key, text in texts.items() if len(text) <= LONGEST_PARAM})

    def tags(self, values: Mapping[str, Any]) -> None:
        self._tell("tags", {key: plain(value) for key, value in values.items() if value is not None})

    def tag(self, key: str, value: Any) -> None:
        self.tags({key: value})

    def text(self, artifact_path: str, text: str) -> None:
        self._artifact(artifact_path, clean(text).encode())

    def file(self, path: Path) -> None:
        """The file as it is now: a copy goes into the journal."""
        self._artifact(path.name, path.read_bytes())

    def refresh(self, source: Path | Callable[[], bytes], artifact_path: str) -> None:
        """An artifact that grows: taken at most once in 10 s, and at most for 1 % of the time; always once at `close`."""
        content = source.read_bytes if isinstance(source, Path) else source
        due, _ = self._fresh.get(artifact_path, (0.0, None))
        began = time.monotonic()
        if began < due:
            self._fresh[artifact_path] = (due, content)
            return
        self._artifact(artifact_path, content())
        ended = time.monotonic()
        self._fresh[artifact_path] = (ended + max(REFRESH, 100 * (ended - began)), None)

    def _artifact(self, artifact_path: str, content: bytes) -> None:
        with whole(self.journal.artifacts / artifact_path) as beside:
            beside.write_bytes(content)
        self._tell("artifact", artifact_path)

    def dataset(
        self,
        *,
        name: str,
        digest: str,
        source: str,
        shape: Sequence[int] = (),
        classes: Sequence[str] = (),
        profile: Mapping[str, Any] = {},
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
                "context": "training",
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
        folder = self.journal.models / f"{self.journal.header['row']}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        if kind == "pt2" and module is not None and not _exported(module, shape, folder):
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
        for artifact_path, (_, content) in self._fresh.items():
            if content is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._artifact(artifact_path, content())
        self._tell("end", {"status": None if self.journal.joins else status, "time": now()})
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


def _exported(module: "Callable[[], Module]", shape: Sequence[int], folder: Path) -> bool:
    try:
        delivery.export(module(), shape, folder)
    except Exception as error:  # torch.export raises whatever it likes
        log.warning("The model can't be exported as pt2, it is logged as safetensors: %s", said(error))
        shutil.rmtree(folder)
        folder.mkdir()
        return False
    return True


def _link(path: Path, to: Path) -> None:
    """The file as it is now, without a copy where the disk allows: ours are replaced as a whole, never written to."""
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)


def find(tags: Mapping[str, str], experiment: str | None = None) -> list[dict[str, Any]]:
    """Rows with all of these tags in the caller's experiment (or the one of this name), newest first: run_id, name, status,
    tags, params, metrics. It waits for MLflow, and raises RunFailed when the store can't be read; `once` and `join` don't."""
    where = addressee() | ({"experiment_name": experiment, "experiment_id": None} if experiment else {})
    try:
        found = delivery.rows(where, tags)
    except Exception as error:
        raise RunFailed(f"the MLflow store can't be read: {said(error)}") from None
    about = ({"run_id": row.info.run_id, "name": row.info.run_name, "status": row.info.status} for row in found)
    data = ({"tags": row.data.tags, "params": row.data.params, "metrics": row.data.metrics} for row in found)
    return [one | other for one, other in zip(about, data, strict=True)]
