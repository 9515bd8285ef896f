"""The form of an outbox's files. A workspace may come from somebody else, so what is found in an outbox is checked before it is sent.

The records are sent with the caller's credentials: so only to the store that the caller uses (`Sender`), and files are taken from the
outbox's own folder alone, without following links. Lines that are no records (damaged, cut off by a full disk, or of another program)
are left out. A record `file` has the SHA-256 of files whose own record follows; it is written before such a file appears, so that a kill
in between leaves no file that looks damaged. Files of earlier versions have no such record.

A record is a line `{"params": "<digest>", "params": {...}}`: its key stands twice, first with a digest of the value's text. JSON readers
take the last value of a key, so those of earlier versions see the value alone. Lines of earlier versions have no digest.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lethe._util.integrity import digest_file

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # part of a file name, and of a search
Whole = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class Reference(_Form):
    """`RunLog.reference`: another run."""

    row: Name
    run_id: str | None


class Join(_Form):
    """The run that `RunLog.join` adds to."""

    run_id: str | None
    tags: dict[str, str]


class _Destination(_Form):
    row: Name
    uri: str
    experiment_id: str | None
    experiment_name: str | None
    name: str


class JoiningHeader(_Destination):
    """row.json of `RunLog.join`."""

    join: Join


class Header(_Destination):
    """row.json of `RunLog.open`."""

    run_id: str | None
    source: str
    started: Whole
    previous: Reference | None
    resumes: bool
    parent: Reference | None
    once: dict[str, str] | None


class State(_Form):
    """sent.json."""

    run_id: str | None
    tried: bool
    sent: Whole
    late: list[Whole]


class Dataset(_Form):
    """The dataset that a run uses."""

    name: str
    digest: str
    source_type: str
    source: str
    schema_: str | None = Field(None, alias="schema")
    profile: str | None = None
    context: str


class Model(_Form):
    """A logged model."""

    folder: Name
    name: str
    kind: str
    step: Whole
    final: bool
    shapes: list[list[Whole]]
    registered: list[str] | None = None


class End(_Form):
    """The end of a run; no status: it was joined, and keeps its own."""

    status: str | None
    time: Whole


_WITH_DIGEST = re.compile(rb'\{"(?P<key>[^"]*)": "(?P<digest>[^"]*)", "(?P<again>[^"]*)": (?P<text>.*)\}', re.DOTALL)
_HEADER: TypeAdapter[Any] = TypeAdapter(Header)
_JOINING: TypeAdapter[Any] = TypeAdapter(JoiningHeader)
_STATE: TypeAdapter[Any] = TypeAdapter(State)
_RECORDS: Mapping[str, TypeAdapter[Any]] = {
    "metrics": TypeAdapter(list[tuple[str, float, Whole, Whole]]),
    "params": TypeAdapter(dict[str, str], config=ConfigDict(strict=True)),
    "tags": TypeAdapter(dict[str, str], config=ConfigDict(strict=True)),
    "artifact": TypeAdapter(str, config=ConfigDict(strict=True)),
    "file": TypeAdapter(dict[str, Hash], config=ConfigDict(strict=True)),
    "dataset": TypeAdapter(Dataset),
    "model": TypeAdapter(Model),
    "end": TypeAdapter(End),
}


def is_header(value: Any) -> bool:
    """Return whether a value has the form of row.json."""
    return _fits(_JOINING if isinstance(value, dict) and "join" in value else _HEADER, value)


def is_state(value: Any) -> bool:
    """Return whether a value has the form of sent.json."""
    return _fits(_STATE, value)


def to_line(kind: str, value: Any) -> bytes:
    """Return a record as a line of records.jsonl, without its line break.

    Args:
        kind: of the record.
        value: JSON.

    Returns:
        ASCII: a JSON object with the kind twice, first with a digest (16 hex digits of SHA-256 of the value's JSON), then with the value.
    """
    text, key = json.dumps(value).encode(), json.dumps(kind).encode()
    return b'{%b: "%b", %b: %b}' % (key, _digest(text), key, text)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def has_digest(line: bytes) -> bool:
    """Return whether a line of records.jsonl states a digest of its value."""
    return _WITH_DIGEST.fullmatch(line) is not None


def as_record(line: bytes) -> tuple[str, Any] | None:
    """Read a line of records.jsonl.

    Returns:
        Kind and value; None if the line is no record, or not as it was written.
    """
    if (found := _WITH_DIGEST.fullmatch(line)) and (found["key"] != found["again"] or found["digest"] != _digest(found["text"])):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or len(record) != 1:
        return None
    ((kind, value),) = record.items()
    return (kind, value) if kind in _RECORDS and _fits(_RECORDS[kind], value) else None


def stated_hashes(records: Path) -> dict[str, set[str]]:
    """Read from records.jsonl what files of the outbox may contain.

    Args:
        records: the path of records.jsonl, which need not exist.

    Returns:
        SHA-256 by file, relative to the outbox: of the present version and of those that it replaced.
    """
    hashes: dict[str, set[str]] = {}
    for line in records.read_bytes().split(b"\n") if records.exists() else ():
        if line.startswith(b'{"file"') and (record := as_record(line)):
            for name, sha256 in record[1].items():
                hashes.setdefault(name, set()).add(sha256)
    return hashes


def damage(path: Path, name: str, hashes: Mapping[str, Collection[str]]) -> str:
    """Compare a file or a folder of an outbox with its hashes.

    Args:
        path: of it.
        name: relative to the outbox.
        hashes: as `stated_hashes` returns them.

    Returns:
        What is wrong, with the file's name; "" if nothing is, or if no hash is stated.
    """
    if not path.is_dir():
        if not path.exists():
            return f"{name} is missing"
        return f"{name} is not as it was written" if hashes.get(name) and digest_file(path) not in hashes[name] else ""
    within = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
    within |= {each.removeprefix(f"{name}/") for each in hashes if each.startswith(f"{name}/")}
    return next(filter(None, (damage(path / each, f"{name}/{each}", hashes) for each in sorted(within))), "")


def own_file(folder: Path, name: str) -> Path | None:
    """Return a file or folder of an outbox.

    Args:
        folder: Where such files are: `Outbox.artifacts` or `Outbox.models`.
        name: As the record has it: relative, with forward slashes.

    Returns:
        Its path; None if it is outside the folder, or if there is a link on the way to it or in it.
    """
    relative = PurePosixPath(name)
    parts = relative.parts
    path = folder.joinpath(*parts)
    if not parts or ".." in parts or relative.is_absolute() or path.resolve() != folder.resolve().joinpath(*parts):
        return None
    return None if any(each.is_symlink() for each in path.rglob("*")) else path


def _fits(form: TypeAdapter[Any], value: Any) -> bool:
    try:
        form.validate_python(value)
    except ValidationError:
        return False
    return True
