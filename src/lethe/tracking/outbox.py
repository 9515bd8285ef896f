"""The outbox of a run: what the run is and all its records, on disk, until MLflow has them. Needs no MLflow.

It stays in the workspace's folder of outboxes (`files.OUTBOX`) until its last record is sent, by whichever process. A record may be sent
twice (a kill between sending it and noting that): every record is built so that this changes nothing.
"""

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lethe._util.checkout import root
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import DAMAGED, OUTBOX, atomic_write, read_json, unwritable, write_json
from lethe._util.integrity import KEY, check_json, digest_file, sealed
from lethe._util.redact import clean
from lethe.tracking.outbox_format import as_record, damage, is_header, is_state, stated_hashes, to_line

Records = dict[int, tuple[str, Any]]  # number -> kind, value

log = logging.getLogger(__name__)


class Outbox:
    """The folder in which a run's records wait.

    Attributes:
        folder: Holds `row.json` (the header: what the run is), `records.jsonl`, `artifacts/`, `models/`, and `sent.json` (the sender's:
            MLflow's run id and which records it has).
        lock: Held as long as a process appends or sends records.
        hashes: SHA-256 that its files may have, by name.
        state: The content of `sent.json`.
        idle: Set by the sender: there is no run to send the records to, so further ones are not kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.artifacts, self.models = folder, folder / "artifacts", folder / "models"
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(f"{folder}.lock", thread_local=False)  # acquired by one thread, released by another
        self.state: dict[str, Any] = {"run_id": None, "tried": False, "sent": 0, "late": []}
        self.idle = False
        self.hashes: dict[str, set[str]] = {}
        self._appending = threading.Lock()
        self._told: set[int] = set()  # lines that were said to be no records

    @classmethod
    def create(cls, home: Path, header: dict[str, Any]) -> "Outbox":
        """Create the outbox of a run of this process, and lock it.

        Args:
            home: The workspace.
            header: What the run is; see `RunLog.open`. Its keys are a format: an outbox may be sent by a later version.

        Returns:
            The outbox, which has its header and no record yet.
        """
        outbox = cls(home.resolve() / OUTBOX / f"{header['row']}.{uuid.uuid4().hex[:8]}")
        outbox.lock.acquire(timeout=0)
        outbox.header = header
        try:
            write_json(outbox.folder / "row.json", sealed(header))
        except KeyboardInterrupt:  # without a record it is nothing that could be sent
            outbox.remove()
            raise
        return outbox

    @cached_property
    def header(self) -> dict[str, Any]:
        """What the run is."""
        return _sealed(self.folder / "row.json")

    @property
    def home(self) -> Path:
        """The workspace."""
        return self.folder.parents[len(OUTBOX.parts)]

    @property
    def joins(self) -> bool:
        """Whether it only adds to a run that another outbox made."""
        return "join" in self.header

    @property
    def has_successor(self) -> bool:
        """Whether a later outbox has more records of the same run: the end of the run is in that one."""
        return any(started > self.header["started"] for started, _ in self._siblings())

    @property
    def waits(self) -> bool:
        """Whether an earlier outbox of the same run is being sent by somebody else, who creates the run and says how that part ended."""
        return any(started < self.header["started"] and is_held(folder) for started, folder in self._siblings())

    def parents(self) -> list[Path]:
        """List the folders of the parent run's outboxes."""
        parent = self.header["parent"]
        return list(self.folder.parent.glob(f"{parent['row']}.*/")) if parent else []

    @property
    def parent_waits(self) -> bool:
        """Whether somebody is about to send the parent run."""
        return any(map(is_held, self.parents()))

    def _siblings(self) -> Iterator[tuple[int, Path]]:
        """Iterate over the other outboxes of this run in the same store: when each was started, in ms, and its folder."""
        for folder in self.folder.parent.glob(f"{self.header['row']}.*/"):
            if folder == self.folder:
                continue
            header: dict[str, Any] = {}
            with contextlib.suppress(RunFailed, UserError, OSError, ValueError):  # just removed, or damaged
                header = _sealed(folder / "row.json")
            if is_header(header) and "started" in header and header["uri"] == self.header["uri"]:
                yield header["started"], folder

    def append(self, kind: str, value: Any) -> None:
        """Append a record.

        Args:
            kind: metrics, params, tags, file, artifact, dataset, model or end.
            value: JSON.

        Raises:
            RunFailed: The disk refuses; names the file.
        """
        path = self.folder / "records.jsonl"
        line = to_line(kind, value) + b"\n"
        try:
            with self._appending, path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if (written := file.write(line)) != len(line):  # the disk became full: the rest of a line would spoil the next one
                    file.truncate(size)
                    raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes fit on the disk")
        except OSError as error:
            raise unwritable(path, error, len(line)) from error

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Write a file of the outbox, whose hash is noted before it appears; see `atomic_write`."""
        with atomic_write(path) as temporary:
            yield temporary
            self._note({path.relative_to(self.folder).as_posix(): digest_file(temporary)})

    def note(self, folder: Path) -> None:
        """Note the hashes of all files in a folder of the outbox, before the record that names it."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self._note({path.relative_to(self.folder).as_posix(): digest_file(path) for path in files})

    def _note(self, hashes: Mapping[str, str]) -> None:
        self.append("file", dict(hashes))
        for name, sha256 in hashes.items():
            self.hashes.setdefault(name, set()).add(sha256)

    def is_whole(self, path: Path) -> bool:
        """Return whether a file or folder of the outbox is as it was written, as far as that is known. One that is not is logged, and moved
        to the workspace's folder `files.DAMAGED`."""
        name = path.relative_to(self.folder).as_posix()
        if not (wrong := damage(path, name, self.hashes)):
            return True
        kept = self.home / DAMAGED / self.folder.name / name
        where = ""
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.replace(kept)
                where = f"; {kept} has it"
        log.warning("%s: %s, and is not sent%s", self.folder, wrong, where)
        return False

    def records(self, wanted: Callable[[int], bool] = lambda number: True) -> Records:
        """Read all records, or those whose number is wanted. Lines that are none, or damaged, are said once and left out."""
        path = self.folder / "records.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        found = {n: record for n, line in enumerate(lines) if wanted(n) and (record := as_record(line))}
        if unread := [n + 1 for n, line in enumerate(lines) if wanted(n) and n not in found and n not in self._told]:
            self._told |= {n - 1 for n in unread}
            which = f"line {unread[0]} is no record, or damaged" if len(unread) == 1 else f"{len(unread)} lines are no records, or damaged"
            log.warning("%s: %s, and left out", path, which)
        return found

    def pending(self) -> Records:
        """Read the records that are not sent. Hashes of files alone, which the sender itself notes as well, wait for nothing."""
        sent, late = self.state["sent"], {*self.state["late"]}
        found = self.records(lambda n: n >= sent or n in late)
        return found if any(kind != "file" for kind, _ in found.values()) else {}

    def take_over(self) -> None:
        """Take over from a dead process: drop a last line that was cut off, and end a run without an end as killed."""
        path, sent = self.folder / "records.jsonl", self.folder / "sent.json"
        with path.open("a+b") as file:
            killed = os.fstat(file.fileno()).st_mtime
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        self.hashes = stated_hashes(path)
        state: dict[str, Any] = {}
        with contextlib.suppress(UserError):  # damaged: unknown
            state = _sealed(sent) if sent.exists() else {}
        # What is unknown is looked for in the store before anything is created
        self.state = state if is_state(state) else self.state | {"tried": True}
        lines = content.count(b"\n")
        if self.state["sent"] > lines:  # lines are missing: those that follow must count as unsent
            self.state |= {"sent": lines, "late": [n for n in self.state["late"] if n < lines]}
        if not any(kind == "end" for kind, _ in self.pending().values()):
            self.append("end", {"status": None if self.joins else "KILLED", "time": int(killed * 1000)})

    def mark_sent(self, numbers: Iterable[int], **state: Any) -> None:
        """Note records as sent.

        Args:
            numbers: Of the records.
            **state: Other keys of `sent.json` to change: `run_id`, `tried`.
        """
        numbers, before = set(numbers), self.state["sent"]
        sent = max(before, *(n + 1 for n in numbers), 0)  # all before are sent, except the `late` ones
        late = {*self.state["late"], *range(before, sent)} - numbers
        self.state |= {"sent": sent, "late": sorted(late), **state}
        write_json(self.folder / "sent.json", sealed(self.state))

    def mark_unsent(self) -> None:
        """Forget the run's id and that anything was sent."""
        self.state |= {"run_id": None, "sent": 0, "late": []}

    def remove(self) -> None:
        """Delete the folder and release the lock. Lines that were left out are kept, in the workspace's folder `files.DAMAGED`."""
        if self._told:
            self._keep_left_out(self.home / DAMAGED / f"{self.folder.name}.jsonl")
        (self.folder / "row.json").unlink(missing_ok=True)  # the first: what is left of it by a kill is no run that was killed
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release()
        Path(f"{self.folder}.lock").unlink(missing_ok=True)  # a process that waits for it finds nothing left to send

    def _keep_left_out(self, path: Path) -> None:
        lines = (self.folder / "records.jsonl").read_bytes().split(b"\n")  # not splitlines: a damaged line may have any other break
        with contextlib.suppress(RunFailed):  # the disk is full: they are said already
            with atomic_write(path, private=True) as temporary:
                temporary.write_bytes(b"".join(lines[n] + b"\n" for n in sorted(self._told)))
            log.warning("%s has the lines that were left out", path)


def _sealed(path: Path) -> dict[str, Any]:
    """The content of a JSON file that states its hash, without that; UserError if it is not as it was written. Files of earlier versions
    state none."""
    content: dict[str, Any] = read_json(path)
    if not isinstance(content, dict):
        return {}
    check_json(content, str(path))
    return {key: value for key, value in content.items() if key != KEY}


def is_held(folder: Path) -> bool:
    """Whether a process, or another thread of this one, appends to an outbox or sends it.

    Args:
        folder: The outbox's.
    """
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    if not folder.exists():  # removed in this moment: its lock was made again here
        Path(lock.lock_file).unlink(missing_ok=True)
    return False


def abandoned(home: Path) -> Iterator[Outbox]:
    """Iterate over the outboxes of a workspace that no process holds, oldest first; each is locked by this process."""

    def created(folder: Path) -> float:
        with contextlib.suppress(OSError):  # sent and removed by another process in this moment
            return (folder / "row.json").stat().st_mtime
        return 0.0

    folders = [folder for folder in (home / OUTBOX).glob("*/") if not folder.is_symlink()]
    for folder in sorted(folders, key=created):
        outbox = Outbox(folder)
        try:
            outbox.lock.acquire(timeout=0)
        except Timeout:
            continue
        if not created(folder):  # or its process was killed before it wrote anything
            outbox.remove()
            continue
        try:
            if not is_header(outbox.header):
                raise ValueError("row.json does not say what the run is")
            outbox.take_over()
        except (RunFailed, UserError, OSError, ValueError) as error:
            log.warning("%s can't be read and is not sent: %s", folder, error)
            outbox.lock.release()
            continue
        yield outbox


# --- where it is sent -------------------------------------------------------------------------------------------------


def default_store() -> str:
    """Return the address of the project's own store."""
    return f"sqlite:///{str(root().absolute()).replace('%', '%25')}/mlflow.db"


def callers_store() -> str:
    """Return the address of the store to log to, with its credentials if it has any."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_store()
    path = uri.removeprefix("sqlite:///")
    return uri if path in (uri, "") or path.startswith("/") else f"sqlite:///{Path(path).resolve()}"


def use_experiment(name: str | None, default: str | None) -> None:
    """Choose the experiment of this process and of those that it starts: by MLflow's own variables, which they all read.

    Args:
        name: That the caller asks for; None: what the environment names.
        default: Where neither names one; None: MLflow's default experiment.
    """
    if name is None and not any(os.environ.get(f"MLFLOW_EXPERIMENT_{key}") for key in ("ID", "NAME")):
        name = default
    if name is not None:
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        os.environ["MLFLOW_EXPERIMENT_NAME"] = name


def release_launchers_run() -> None:
    """Forget the run that a launcher made: it has had what it was made for, and further runs of this process are their own."""
    os.environ.pop("MLFLOW_RUN_ID", None)


def destination() -> dict[str, str | None]:
    """Return the store to log to, without credentials, and the experiment, as headers have them."""
    named = {key: os.environ.get(f"MLFLOW_{key.upper()}") for key in ("experiment_id", "experiment_name")}
    return {"uri": clean(callers_store()), **named}


def now() -> int:
    """Return the time in milliseconds, as MLflow counts."""
    return int(time.time() * 1000)
