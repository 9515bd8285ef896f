"""What a disk that refuses a file is told in."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lethe._util.errors import RunFailed
from lethe._util.files import atomic_write, is_half_written, unwritable, write_text


def test_a_full_disk_is_said_with_what_the_file_needs(tmp_path: Path) -> None:
    path, free = tmp_path / "not yet" / "a.safetensors", shutil.disk_usage(tmp_path).free
    line = str(unwritable(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1000 * free))
    assert line.startswith(f"{path} could not be written: the disk is full (it needs ")
    assert line.endswith(" are free); the same command resumes once there is room")
    wrapped = str(unwritable(path, OSError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")))
    assert "the disk is full (" in wrapped and "needs" not in wrapped, "safetensors hands the number on as text"


def test_another_refusal_is_said_in_the_systems_words(tmp_path: Path) -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert str(unwritable(tmp_path / "a", error)) == f"{tmp_path / 'a'} could not be written: Read-only file system"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_file_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"a\.csv could not be written: the disk is full \("), atomic_write(tmp_path / "a.csv"):
        Path("/dev/full").write_bytes(b"a")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_of_a_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.csv.x1y2z3_4.part", ".a.csv.settings", ".a.csv.much_longer.part", ".b.csv.x1y2z3_4.part"):
        (tmp_path / name).write_text("half")
    with atomic_write(tmp_path / "a.csv") as temporary:
        temporary.write_text("another process")
        write_text(tmp_path / "a.csv", "whole")  # meanwhile, here
        assert temporary.read_text() == "another process"
        assert is_half_written(temporary)
    kept = {".a.csv.settings", ".a.csv.much_longer.part", ".b.csv.x1y2z3_4.part", "a.csv"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (tmp_path / "a.csv").read_text() == "another process"


def test_writers_at_once_take_nothing_from_one_another(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: write_text(tmp_path / "a.csv", f"{n}" * 4), range(400)))
    (path,) = tmp_path.iterdir()
    assert path.name == "a.csv" and path.read_text() in {f"{n}" * 4 for n in range(400)}


def test_a_file_is_readable_as_the_users_mask_says_and_a_private_one_by_its_owner(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for private in (False, True):
            with atomic_write(tmp_path / f"{private}", private=private) as temporary:
                temporary.write_text("a")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("False", "True")] == [0o640, 0o600]
