"""Files that appear whole or not at all, and hashes of what they hold."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lethe._util.errors import RunFailed, UserError

STATE = ".lethe"  # the folder of a workspace for what neither DVC nor git keeps
OUTBOX = Path(STATE, "outbox")  # in it, the records that MLflow does not have yet


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` on success, removed on any failure.

    Raises RunFailed, naming `path`, when the disk refuses (full, read-only)."""
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(name)
        os.close(handle)
        yield beside
        umask = os.umask(0)  # mkstemp makes 0600, a file that others may read keeps the user's own mask
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(path)
    except OSError as error:
        raise RunFailed(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if beside:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError, naming the file, when it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON: {error}") from None


def digest(parts: Iterable[bytes | str]) -> str:
    """SHA-256 in hex over the parts, each preceded by its length so that ("ab", "c") and ("a", "bc") differ."""
    sha = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        sha.update(len(raw).to_bytes(8, "little"))
        sha.update(raw)
    return sha.hexdigest()


def short(hash_: str) -> str:
    """The first 12 characters: what tags and tables show."""
    return hash_[:12]
