"""Which processes work in a workspace: any number at once, or one alone, which erases.

The lock is that of the workspace's own folder, so that a command that only reads, or is refused, writes nothing. A dead process holds none.
On Windows, and on file systems without such locks (NFS has none of folders that exclude others), nobody is held off."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lethe._util.errors import RunFailed

if sys.platform != "win32":
    import fcntl

_held: dict[Path, int] = {}  # folder -> its descriptor in this process


def work_in(root: Path) -> None:
    """Work in a workspace from now on, next to others, until `leave`. What is read of it stays true as long: nothing is erased meanwhile.

    Args:
        root: of the workspace; nothing is done where it does not exist yet.

    Raises:
        RunFailed: another process erases in it.
    """
    if root.is_dir() and root.resolve() not in _held and not _take(root, alone=False):
        raise RunFailed(f"another process erases in {root}")


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Work in a workspace alone.

    Args:
        root: of the workspace, which exists.

    Raises:
        RunFailed: another process works in it.
    """
    leave()
    if not _take(root, alone=True):
        raise RunFailed(f"another command is working in {root}: what it has read, it could write after the erasure; wait for its end")
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """Work in no workspace any more: a command has ended."""
    while _held:
        os.close(_held.popitem()[1])


def _take(root: Path, *, alone: bool) -> bool:
    """Lock a folder, if its file system can; whether no other process stands against it."""
    if sys.platform == "win32":
        return True
    try:
        handle = os.open(root, os.O_RDONLY)
    except OSError:  # a folder that may not be listed
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:
        pass
    _held[root.resolve()] = handle
    return True
