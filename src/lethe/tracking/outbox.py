"""The journal of a row: what the row is and all it was told, on disk, until MLflow has it. Needs no MLflow.

It stays in the workspace's outbox (`files.OUTBOX`) until it is sent to its end, whoever sends it. Whatever is sent may be sent twice (a
kill between sending and noting it): every record is built so that this changes nothing.
"""

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lethe._util.checkout import root
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import OUTBOX, read_json, write_json
from lethe._util.redact import clean

Records = dict[int, tuple[str, Any]]  # number -> what, value

log = logging.getLogger(__name__)


class Journal:
    """A row's outbox: `row.json` (what it is), `records.jsonl` (what was told), `artifacts/`, `models/`, and `sent.json`
    (the sender's: MLflow's id and which records are through). Its lock is held as long as somebody tells or sends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.artifacts, self.models = folder, folder / "artifacts", folder / "models"
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(f"{folder}.lock", thread_local=False)  # taken by one thread, let go by another
        self.state: dict[str, Any] = {"run_id": None, "tried": False, "sent": 0, "late": []}
        self.idle = False  # the sender's word: there is no row to tell this to, and there need not be one
        self._appending = threading.Lock()

    @classmethod
    def begin(cls, home: Path, header: dict[str, Any]) -> "Journal":
        """That of a row which this process tells."""
        journal = cls(home.resolve() / OUTBOX / f"{header['row']}.{uuid.uuid4().hex[:8]}")
        journal.lock.acquire(timeout=0)
        journal.header = header
        write_json(journal.folder / "row.json", header)
        return journal

    @cached_property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = read_json(self.folder / "row.json")
        return header

    @property
    def home(self) -> Path:
        """The workspace."""
        return self.folder.parents[len(OUTBOX.parts)]

    @property
    def joins(self) -> bool:
        """Whether it only adds to a row that another journal made."""
        return "join" in self.header

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
            raise RunFailed(f"{path} could not be written: {error.strerror or error}") from error

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
            self.append("end", {"status": None if self.joins else "KILLED", "time": int(killed * 1000)})

    def mark(self, numbers: Iterable[int], **state: Any) -> None:
        """Note these records as sent: all before `sent` are, but for the `late`."""
        numbers, before = set(numbers), self.state["sent"]
        sent = max(before, *(n + 1 for n in numbers), 0)
        late = {*self.state["late"], *range(before, sent)} - numbers
        self.state |= {"sent": sent, "late": sorted(late), **state}
        write_json(self.folder / "sent.json", self.state)

    def forget(self) -> None:
        """Back to nothing sent and no row known."""
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
        except (RunFailed, UserError, OSError, ValueError) as error:
            log.warning("%s can't be read and is left alone: %s", folder, error)
            journal.lock.release()
            continue
        yield journal


# --- whom it is for ---------------------------------------------------------------------------------------------------


def default_store() -> str:
    return f"sqlite:///{str(root().absolute()).replace('%', '%25')}/mlflow.db"


def callers_store() -> str:
    """Its address, with its credentials if it has any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_store()
    path = uri.removeprefix("sqlite:///")
    return uri if path in (uri, "") or path.startswith("/") else f"sqlite:///{Path(path).resolve()}"


def addressee() -> dict[str, str | None]:
    """The caller's store, without credentials, and experiment, as headers hold them."""
    named = {key: os.environ.get(f"MLFLOW_{key.upper()}") for key in ("experiment_id", "experiment_name")}
    return {"uri": clean(callers_store()), **named}


def now() -> int:
    """Milliseconds, as MLflow counts."""
    return int(time.time() * 1000)
