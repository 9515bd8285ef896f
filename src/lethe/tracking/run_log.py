"""The log of a run: records for MLflow are written to an outbox on disk, and sent from there by a background thread.

So a tracking server that stops answering, or never did, neither stops nor slows a run, and no record is lost: an outbox that is not sent
to its end is sent by the next run in its workspace, or by `send`.
An infinite value is logged as NaN (MLflow would store 1.8e308, which flattens every chart); epochs/<method>.csv has it."""

import contextlib
import json
import logging
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from lethe._util.files import write_json
from lethe._util.redact import clean, plain, summarize_error
from lethe.tracking.mlflow_models import export
from lethe.tracking.outbox import Outbox, destination, now
from lethe.tracking.sender import Sender

if TYPE_CHECKING:
    from torch.nn import Module

Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_PARAM_LENGTH = 6000
DIGITS = 6  # of a metric: MLflow's table shows all that it has
REFRESH = 10.0  # seconds between two refreshes of an artifact, at least

log = logging.getLogger(__name__)


class RunLog:
    """The log of one MLflow run. A record costs a line in a file; only `close` waits for MLflow.

    As a context manager it closes itself: FINISHED, FAILED after an exception, KILLED after Ctrl-C or an exit.
    All methods raise RunFailed, naming the file, when the disk refuses the outbox.
    """

    def __init__(self, home: Path, header: dict[str, Any]) -> None:
        self.outbox = Outbox.create(home, header)
        self._sender = Sender(home.resolve(), self.outbox)
        self._due: dict[str, tuple[float, Callable[[], bytes] | None]] = {}  # artifact -> when the next refresh is due, newest content
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
    ) -> "RunLog":
        """Open the log of a run that starts or is resumed.

        The MLflow run is the launcher's (MLFLOW_RUN_ID) unless `launched` is False or a `parent` is given; else the previous one; else
        a new one in the caller's experiment.

        Args:
            home: The workspace.
            name: Of the run.
            tags: None values are left out.
            params: See `params`.
            description: Markdown.
            history: (step, metrics) or (step, metrics, at) of the epochs before a resumption; what the run lacks is sent.
            previous: What `reference` returned before the run was stopped.
            parent: `reference` of the parent run, when this is a nested run.
            launched: Whether the run that a launcher made, if any, is this one.
            once: Do not create a run if a finished one in the experiment has all of these tags.

        Returns:
            The log, whose records are sent from now on; use it as a context manager, or close it.
        """
        run_id = os.environ.get("MLFLOW_RUN_ID") if launched and not parent else None
        same = previous is not None and (run_id is None or run_id == previous["run_id"])
        program = Path(sys.argv[0]).name
        header = {
            "row": previous["row"] if previous and same else uuid.uuid4().hex[:16],
            **destination(),
            "run_id": run_id,
            "name": name,
            "source": program if program == "lethe" else f"src/{program}",
            "started": now(),
            "previous": previous and dict(previous),
            "resumes": same,
            "parent": parent and dict(parent),
            "once": once and dict(once),
        }
        run = cls(home, header)
        with run._killed_by_ctrl_c():
            run.params(params)
            run.tags({**tags, **({"mlflow.note.content": description} if description else {})})
            for step, values, *at in history:
                run.metrics(values, step, *at)
            run._sender.start()
        return run

    @classmethod
    def join(cls, home: Path, run_id: str | None = None, *, tags: Mapping[str, str] | None = None) -> "RunLog":
        """Open a log that adds to an existing run and leaves its status unchanged. Without such a run its records are dropped, and logged.

        Args:
            home: The workspace.
            run_id: MLflow's id of the run.
            tags: Without an id: the newest run in the caller's experiment with all of these tags.

        Returns:
            The log; use it as a context manager, or close it.
        """
        run = cls(home, {"row": "join", **destination(), "join": {"run_id": run_id, "tags": dict(tags or {})}, "name": ""})
        with run._killed_by_ctrl_c():
            run._sender.start()
        return run

    @contextlib.contextmanager
    def _killed_by_ctrl_c(self) -> Iterator[None]:
        """Close the log if it is stopped while it is opened: nobody has it yet who could."""
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(RuntimeError):  # it runs already
                self._sender.start()
            self.close("KILLED")
            raise

    @property
    def run_id(self) -> str | None:
        """MLflow's id, once the run was created."""
        run_id: str | None = self.outbox.state["run_id"] or self.outbox.header.get("run_id")
        return run_id

    def reference(self) -> dict[str, Any]:
        """Return the keys that identify this run: for the resume state, and for `parent`."""
        return {"row": self.outbox.header["row"], "run_id": self.run_id}

    def metrics(self, values: Mapping[str, Any], step: int, at: int | None = None) -> None:
        """Log metrics of a step.

        Log an epoch after the resume state that has it was saved: if the run is killed in between, it is logged on resumption.

        Args:
            values: None values are left out.
            step: The global epoch.
            at: Time in ms; None: now.
        """
        at = at or now()
        numbers = {key: _rounded(float(value)) for key, value in values.items() if value is not None}
        self._append("metrics", [[key, math.nan if math.isinf(value) else value, step, at] for key, value in numbers.items()])

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters. A key that the launcher logged keeps the launcher's text; a value too long for MLflow becomes an artifact."""
        texts = {key: plain(value) for key, value in values.items()}
        for key, text in texts.items():
            if len(text) > MAX_PARAM_LENGTH:
                self.text(f"params/{key}.txt", text)
        self._append("params", {key: text for key, text in texts.items() if len(text) <= MAX_PARAM_LENGTH})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; None values are left out."""
        self._append("tags", {key: plain(value) for key, value in values.items() if value is not None})

    def tag(self, key: str, value: Any) -> None:
        """Set a tag.

        Args:
            key: Of the tag.
            value: Logged as text; None sets nothing.
        """
        self.tags({key: value})

    def text(self, artifact_path: str, text: str) -> None:
        """Log a text as an artifact, without passwords.

        Args:
            artifact_path: Of the artifact, relative to the run's artifacts.
            text: Its content.
        """
        self._artifact(artifact_path, clean(text).encode())

    def file(self, path: Path) -> None:
        """Log a file as an artifact, with its current content."""
        self._artifact(path.name, path.read_bytes())

    def refresh(self, source: Path | Callable[[], bytes], artifact_path: str, wait: float = 0.0, *, last: bool = False) -> None:
        """Log an artifact that grows: at most once in 10 s, in at most 1 % of the time, and a last time at `close`.

        Args:
            source: A file, or a function that returns the content.
            artifact_path: Of the artifact.
            wait: Seconds from the first call on in which nothing is logged yet, for what takes long to make.
            last: Nothing before `close`: it grows no more, and there are results to be printed first.
        """
        content = source.read_bytes if isinstance(source, Path) else source
        started = time.monotonic()
        due, _ = self._due.get(artifact_path, (started + wait, None))
        if last or started < due:
            self._due[artifact_path] = (due, content)
            return
        self._artifact(artifact_path, content())
        ended = time.monotonic()
        self._due[artifact_path] = (ended + max(REFRESH, 100 * (ended - started)), None)

    def _artifact(self, artifact_path: str, content: bytes) -> None:
        with self.outbox.writing(self.outbox.artifacts / artifact_path) as temporary:
            temporary.write_bytes(content)
        self._append("artifact", artifact_path)

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
        """Log the dataset that the run uses.

        Args:
            name: Of the dataset.
            digest: Hash of its content; MLflow takes 36 characters.
            source: Where it comes from.
            shape: Of one image.
            classes: Their names.
            profile: Other facts, such as numbers of images.
        """
        spec = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *shape]}}
        labels = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
        schema = {"mlflow_tensorspec": {"features": json.dumps([spec]), "targets": json.dumps([labels])}}
        self._append(
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
        replaced: Mapping[str, str] | None = None,
        registered: tuple[str, str] | None = None,
    ) -> None:
        """Log a model.

        Args:
            path: Its weights.
            kind: "pt2" exports what `module` returns, which then loads without this repository; if the export fails, that is logged and
                safetensors are kept. "none": nothing.
            shape: Of one input.
            info: Kept next to the weights: architecture, classes, mean, std, ...; the model returns a logit for each of its `classes`.
            module: Builds the model for the export.
            name: Of the logged model.
            step: The global epoch.
            final: Whether metrics are linked to it.
            replaced: What logged safetensors say of themselves under these keys, if the file says anything under them.
            registered: Name in the model registry, whose next version it becomes, and that version's alias, "": none.
        """
        if kind == "none" or self.outbox.idle:
            return
        folder = self.outbox.models / f"{self.outbox.header['row']}-{name}-{step}"  # the same in a process that resumes a killed one
        folder.mkdir(parents=True)
        if kind == "pt2" and module is not None and not _exported(module, shape, folder):
            kind = "safetensors"
        if kind == "safetensors":
            _keep(path, folder / "model.safetensors", replaced or {})
        write_json(folder / "model.json", dict(info))
        self.outbox.note(folder)
        about = {"folder": folder.name, "name": name, "kind": kind, "step": step, "final": final}
        about |= {"registered": [*registered]} if registered else {}
        self._append("model", {**about, "shapes": [list(shape), [len(info["classes"])]]})

    def checkpoint(self, path: Path, step: int, *, shape: Sequence[int], info: Mapping[str, Any]) -> None:
        """Log the model of an epoch that is not the last, as safetensors.

        Args:
            path: Its weights.
            step: The global epoch.
            shape: Of one input.
            info: Kept next to the weights, as for `model`.
        """
        self.model(path, "safetensors", shape=shape, info=info, name="checkpoint", step=step, final=False)

    def close(self, status: Status = "FINISHED") -> bool:
        """End the run and wait until all is sent, but not for a store that does not answer.

        Args:
            status: Of the run; ignored after `join`.

        Returns:
            Whether all is sent.
        """
        if self._closed:
            return True
        try:
            self._log_due()
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            raise
        finally:
            try:
                self._append("end", {"status": None if self.outbox.joins else status, "time": now()})
            finally:
                self._closed = True
                sent = self._sender.finish()  # also where the disk is full: the thread must not outlive the program
        return sent

    def _log_due(self) -> None:
        for artifact_path, (_, content) in self._due.items():
            if content is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._artifact(artifact_path, content())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)
        self.close("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")

    def _append(self, kind: str, value: Any) -> None:
        if self._closed:
            raise RuntimeError("the run's log is closed")
        if value and (kind == "end" or not self.outbox.idle):
            self.outbox.append(kind, value)
            self._sender.wake.set()


def _rounded(number: float) -> float:
    """With DIGITS significant digits; whole numbers are counts, and stay exact."""
    return number if number.is_integer() else float(f"{number:.{DIGITS}g}")


def _exported(module: "Callable[[], Module]", shape: Sequence[int], folder: Path) -> bool:
    try:
        export(module(), shape, folder)
    except Exception as error:  # torch.export raises whatever it likes
        log.warning("The model can't be exported as pt2, it is logged as safetensors: %s", summarize_error(error))
        shutil.rmtree(folder)
        folder.mkdir()
        return False
    return True


def _keep(path: Path, to: Path, replaced: Mapping[str, str]) -> None:
    """Keep a file's current content, without a copy where the disk allows: our files are replaced as a whole, never written to.
    With metadata to be replaced it is a copy."""
    from lethe.models import checkpoint

    about = checkpoint.metadata(path) if replaced else {}
    if changed := {key: text for key, text in replaced.items() if key in about}:
        checkpoint.save_copy(path, to, about | changed)
        return
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)
