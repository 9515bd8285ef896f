"""Atomic writes, JSON, and hashes."""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lethe._util import manifest
from lethe._util.errors import RunFailed, UserError, one_line
from lethe._util.integrity import FORMAT, Pieces, refuse_newer

if sys.platform != "win32":
    import fcntl

STATE = manifest.STATE
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes of a file's name and of a path, on common file systems
PART = ".part"  # at the end of a temporary file's name
_HALF_WRITTEN = re.compile(r"\..+\.\w{8}(\.part)?|\.tmp\w{6}")
FULL = (errno.ENOSPC, errno.EDQUOT)
OUTBOX = Path(STATE, "outbox")  # in it, the records that MLflow does not have yet
DAMAGED = Path(STATE, "damaged")  # lines of such records that could not be sent, for inspection


def user_path(path: Path | str) -> Path:
    """Return a path as a user gives it, with `~` and `~user` resolved.

    Raises:
        UserError: there is no such user, or no file can have that name.
    """
    text = str(path)
    try:
        text.encode()
        found = Path(text).expanduser()
    except UnicodeEncodeError:
        raise UserError(f"{text} is not UTF-8") from None
    except RuntimeError:  # pathlib's, of ~name
        raise UserError(f"{text} names a user that does not exist") from None
    if "\0" in text or len(text.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in found.parts):
        raise UserError(f"{text} is no path: a name in it has at most {LONGEST_NAME} bytes, all of it {LONGEST_PATH:,}, and none is 0")
    return found


def irregular(path: Path) -> str:
    """Return what exists in place of a file: a folder, or a device or a pipe, which may have no end, or wait for ever; else ""."""
    if path.is_file() or not path.exists():
        return ""
    return f"{'a folder' if path.is_dir() else 'a device or a pipe'}, not a file"


def is_shell_pipe(path: Path) -> bool:
    """Return whether a path stands for a pipe that a shell has opened: <(...), or /dev/stdin after |. What writes to it runs already."""
    return str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/")) and path.is_fifo()


def read_regular(path: Path, largest: int) -> bytes:
    """Read a file of someone else whole, or what a shell pipes to the program.

    Args:
        path: the file.
        largest: bytes that it may have.

    Returns:
        The content, of at most `largest` bytes.

    Raises:
        UserError: it is missing, no regular file, larger, or can't be read; the message names it and nothing else.
    """
    try:
        if (what := irregular(path)) and not is_shell_pipe(path):
            raise UserError(f"{path} can't be read: it is {what}")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {one_line(str(error))}") from None
    if len(content) > largest:
        raise UserError(f"{path} can't be read: it has more than {largest:,} bytes")
    return content


@contextmanager
def atomic_write(path: Path, *, private: bool = False, size: int = 0) -> Iterator[Path]:
    """Write a file that appears complete or not at all. What killed processes left of the same file is removed.

    Args:
        path: The file. Its folder is created.
        private: Whether only its owner may read it (mode 0600).
        size: Bytes that it will have, as far as known: a full disk is then said with what the file needs.

    Yields:
        A temporary path to write to, which is renamed to `path` on success and removed on any failure.

    Raises:
        RunFailed: The disk refuses (full, read-only); names `path`.
    """
    temporary: Path | None = None
    handle = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, temporary = _locked_temporary(path, 0o600 if private else 0o666)
        yield temporary
        manifest.record(path, temporary)
        temporary.replace(path)
    except OSError as error:
        written = temporary.stat().st_size if temporary and temporary.exists() else 0
        if temporary:
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error, max(size, written)) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def is_half_written(path: Path) -> bool:
    """Return whether a file has the name of a temporary one, which a killed process may leave: our own, or those of earlier versions and
    of the safetensors library, which they wrote with.

    >>> [is_half_written(Path(name)) for name in (".a.csv.x1y2z3_4.part", ".a.csv.x1y2z3_4", ".tmpAb12Cd", ".gitignore")]
    [True, True, True, False]
    """
    return _HALF_WRITTEN.fullmatch(path.name) is not None


def _locked_temporary(path: Path, mode: int) -> tuple[int, Path]:
    """Create a temporary file next to `path`, which is locked as long as its descriptor is open, at most as long as the process lives.

    The system takes the user's mask from the mode: asking for the mask would be to change it, for other threads too."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(OSError):  # a file system without locks, where nobody else gets one either
            _lock(handle, wait=True)
        with contextlib.suppress(OSError):
            if os.path.samestat(temporary.stat(), os.fstat(handle)):
                return handle, temporary
        os.close(handle)  # another process took it for a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` that no process has locked: those of killed ones."""
    start = f".{path.name}."
    with os.scandir(path.parent) as entries:
        found = [Path(one.path) for one in entries if one.name.startswith(start) and one.name.endswith(PART)]
    for each in filter(is_half_written, found):
        with contextlib.suppress(OSError), each.open("r+b") as file:  # locked, of another user, or just renamed
            _lock(file.fileno(), wait=False)
            each.unlink()


def _lock(handle: int, *, wait: bool) -> None:
    if sys.platform == "win32":  # what killed processes leave stays there, and `verify` names it
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def unwritable(path: Path, error: OSError, need: int = 0) -> RunFailed:
    """Return the error to raise for a file that the disk refused.

    Args:
        path: The file.
        error: The system's.
        need: Bytes that the file has at least.

    Returns:
        The error, in one line; on a full disk with the free space, and with `need` where that is more.
    """
    reason = error.strerror or one_line(str(error))
    if error.errno not in FULL and not any(os.strerror(number) in reason for number in FULL):
        return RunFailed(f"{path} could not be written: {reason}")
    folder = next((each for each in path.parents if each.exists()), Path())
    free = shutil.disk_usage(folder).free
    what = f"it needs {_bytes(need)}, {_bytes(free)} are free" if need > free else f"{_bytes(free)} are free"
    return RunFailed(f"{path} could not be written: the disk is full ({what}); the same command resumes once there is room")


def _bytes(number: int) -> str:
    """A number of bytes in the unit in which it has one to three digits before the point."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(len(units) - 1, max(0, len(str(number)) - 1) // 3)
    return f"{number / 1000**power:.{1 if power else 0}f} {units[power]}"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Args:
        path: The file. Its folder is created.
        text: Its content.

    Raises:
        RunFailed: The file could not be written.
    """
    content = text.encode()
    with atomic_write(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented by two spaces.

    Args:
        path: The file. Its folder is created.
        value: What `json.dumps` takes.

    Raises:
        RunFailed: The file could not be written.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, newest: int = FORMAT) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        newest: The highest format of its kind that this version reads.

    Returns:
        The parsed content; an object without a format, and any other value, is taken as it is.

    Raises:
        UserError: It does not exist, is not JSON, is not as it was written, or a later version wrote it; names it.
    """
    try:
        manifest.check(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise manifest.unreadable(path, f"can't be read as JSON: {error}") from None
    if isinstance(content, dict):
        refuse_newer(content.get("format"), str(path), newest)
    return content


def digest(parts: Iterable[bytes | str | Pieces]) -> str:
    """Return the SHA-256, in hex, of parts, each preceded by its length: ("ab", "c") and ("a", "bc") differ."""
    sha = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        whole = raw if isinstance(raw, Pieces) else Pieces(len(raw), [memoryview(raw)])
        sha.update(whole.size.to_bytes(8, "little"))
        for piece in whole.pieces:
            sha.update(piece)
    return sha.hexdigest()


def short(hash_: str) -> str:
    """Return the first 12 characters of a hash: what tags and tables show."""
    return hash_[:12]
