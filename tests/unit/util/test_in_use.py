"""Any number of processes work in a workspace, or one that erases. A second opening of the folder stands for another process."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lethe._util import in_use
from lethe._util.errors import RunFailed
from lethe.config import loader
from lethe.workspace.prepare import load_existing, prepare

Other = Callable[[int], None]


@pytest.fixture
def other(tmp_path: Path) -> Other:
    handle = os.open(tmp_path, os.O_RDONLY)
    return lambda kind: fcntl.flock(handle, kind | fcntl.LOCK_NB)


def test_several_work_and_one_erases(tmp_path: Path, other: Other) -> None:
    other(fcntl.LOCK_SH)
    in_use.work_in(tmp_path)
    with pytest.raises(RunFailed, match=f"another command is working in {tmp_path}: "), in_use.alone(tmp_path):
        pass
    other(fcntl.LOCK_UN)
    with in_use.alone(tmp_path):
        in_use.work_in(tmp_path)  # as the erasure itself does
        with pytest.raises(BlockingIOError):
            other(fcntl.LOCK_SH)
    other(fcntl.LOCK_EX)
    with pytest.raises(RunFailed, match=f"another process erases in {tmp_path}$"):
        in_use.work_in(tmp_path)
    in_use.work_in(tmp_path / "not made yet")
    assert list(tmp_path.iterdir()) == []


def test_what_reads_a_workspace_holds_it(tmp_path: Path, other: Other) -> None:
    config = loader.load(["--data.source", "digits", "--data.limit", "50", "--run.workspace", str(tmp_path)])
    for begins in (prepare, load_existing):
        begins(config)
        with pytest.raises(BlockingIOError):
            other(fcntl.LOCK_EX)
        in_use.leave()
        other(fcntl.LOCK_EX)
        with pytest.raises(RunFailed, match="another process erases"):
            begins(config)
        other(fcntl.LOCK_UN)
