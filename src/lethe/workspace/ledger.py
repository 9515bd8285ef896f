"""The ledger: what happened to each deletion request, one line of canonical JSON (RFC 8785) for each event, chained by hashes.

A line has the SHA-256 of the line before, so a line that was altered, removed or moved is found. A removed end is found by the hashes of
the last lines in the workspace's manifest, and against whoever edits that, too, by a hash noted elsewhere. The chain shows what was
recorded in which order, not that what was recorded is true. With card.signing_key every line is signed."""

import getpass
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785
from filelock import FileLock

from lethe._util import manifest
from lethe._util.checkout import command
from lethe._util.errors import UserError
from lethe._util.files import unwritable
from lethe._util.integrity import refuse_newer
from lethe.config.loader import Config
from lethe.workspace import signing
from lethe.workspace.layout import Layout

FIRST = "0" * 64  # in place of the hash of a line before the first
EVENTS = ("received", "unlearned", "evaluated", "approved", "erased", "verified")
EXACT = 2**53  # from here on JSON's numbers are not exact: such integers are written as text


@dataclass(frozen=True)
class Fault:
    """A line of a ledger that is not as it was written.

    Attributes:
        line: its number, from 1.
        what: what is wrong with it.
    """

    line: int
    what: str


def append(config: Config, event: str, request: str, **facts: Any) -> str:
    """Append an event to the workspace's ledger. It is on the disk when this returns.

    Args:
        config: names the workspace.
        event: one of EVENTS.
        request: pseudonym of the deletion request.
        **facts: hashes and numbers; nothing that leads to a person.

    Returns:
        The hash of the new line: the head of the chain.

    Raises:
        RunFailed: the disk refuses, or the ledger is damaged and nothing may be added to it.
        UserError: card.signing_key names no key.
    """
    assert event in EVENTS, event
    path = _path(config)
    lock = Layout(config.path(config.run.workspace)).lock("ledger")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        lines = _lines(path)
        if lines and not lines[-1].endswith(b"\n"):  # a kill in the middle of a line, which was never reported as written
            lines.pop()
        previous = _hash(lines[-1]) if lines else FIRST
        entry = {"event": event, "n": len(lines) + 1, "previous": previous, "request": request}
        entry |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": account()} | dict(facts)
        key = config.card.signing_key
        line = canonical(entry | signing.signature(canonical(entry), config.path(key) if key else None)) + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "wb") as file:
                file.truncate(end := sum(map(len, lines)))
                file.seek(0, os.SEEK_END)
                try:
                    file.write(line)
                    file.flush()
                except OSError:  # the disk became full: half a line would be a damaged one
                    os.ftruncate(file.fileno(), end)
                    raise
                os.fsync(file.fileno())
            manifest.note_head(path, _hash(line))
        except OSError as error:
            raise unwritable(path, error, len(line)) from error
    return _hash(line)


def append_once(config: Config, event: str, request: str, **facts: Any) -> None:
    """Append an event unless the ledger has it with the same facts.

    Args:
        config: names the workspace.
        event: one of EVENTS.
        request: pseudonym of the deletion request.
        **facts: hashes and numbers; nothing that leads to a person.

    Raises:
        RunFailed: as `append`.
    """
    wanted = json.loads(canonical({"event": event, "request": request} | facts))
    if not any(wanted.items() <= entry.items() for entry in read(config)):
        append(config, event, request, **facts)


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return a value as canonical JSON (RFC 8785): equal values are equal bytes.

    Args:
        value: of texts, numbers, lists and mappings; numpy's numbers are taken as Python's, integers from 2^53 on as text.
    """
    return rfc8785.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):  # of numpy
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= EXACT:
        return str(value)
    return value


def verify(path: Path) -> tuple[str, int, list[Fault]]:
    """Check the chain of a ledger.

    Args:
        path: of the file.

    Returns:
        The head, the number of lines, and the faults.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; it takes a ledger, which a workspace has once a request was unlearned")
    lines, faults, previous = _lines(path), list[Fault](), FIRST
    for number, line in enumerate(lines, 1):
        faults += [Fault(number, what) for what in _faults(line, number, previous)]
        previous = _hash(line)
    if manifest.noted_heads(path) - set(map(_hash, lines)):
        faults.append(
            Fault(len(lines) + 1, "is missing, or an earlier one was altered: the workspace's manifest knows the hash of another end")
        )
    return previous if lines else FIRST, len(lines), faults


def _faults(line: bytes, number: int, previous: str) -> Iterator[str]:
    try:
        entry = json.loads(line)
        ours = canonical(entry) + b"\n"
    except (ValueError, rfc8785.CanonicalizationError):
        yield "is cut short or altered"
        return
    if not isinstance(entry, dict) or entry.get("event") not in EVENTS:
        yield "is no event"
        return
    if ours != line:
        yield "is not in canonical form: it was written again or cut short"
    if entry.get("n") != number:
        yield f"says that it is line {entry.get('n')}: a line is missing or moved"
    if signing.KEYS[1] in entry and not signing.fits(canonical({k: v for k, v in entry.items() if k not in signing.KEYS}), entry):
        yield "has a signature that is not of its content"
    if entry.get("previous") != previous:
        yield "does not follow the line before it, which was altered, removed or moved"


def read(config: Config) -> list[dict[str, Any]]:
    """Return the events of a workspace's ledger, oldest first; [] if there is none.

    Raises:
        UserError: a line is no JSON.
    """
    path = _path(config)
    try:
        events = [json.loads(line) for line in _lines(path) if line.endswith(b"\n")]
    except ValueError:
        raise UserError(f"{path} has a line that is no JSON; `{command('ledger', 'verify')}` names it") from None
    for event in events:
        refuse_newer(event.get("format"), str(path))
    return events


def head(config: Config) -> str:
    """Return the hash of the last line of a workspace's ledger; "" if there is none."""
    lines = _lines(_path(config))
    return _hash(lines[-1]) if lines else ""


def heads(config: Config) -> frozenset[str]:
    """Return the hash of every line of a workspace's ledger: what its head has been."""
    return frozenset(map(_hash, _lines(_path(config))))


def account() -> str:
    """Return the account that runs the command, by the name that the system gives it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def _hash(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _path(config: Config) -> Path:
    return Layout(config.path(config.run.workspace)).ledger
