"""Remotes of DVC that are no folder, by a filesystem in memory: what a location does there is what it does on a disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc_objects.fs.memory import MemoryFileSystem

from lethe._util.errors import RunFailed
from lethe.erasure.dvc_locations import Location
from support.erasures import IDS

CONTENT = {
    "files/md5/ab/cd": f"id\n{IDS[0]}\n".encode(),
    "files/md5/ab/ef": b"nothing",
    "runs/a/b": b"outs: [{md5: abcd}]",
    "runs/c/d": b"{}",
}


@pytest.fixture(params=["folder", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "folder":
        for name, content in CONTENT.items():
            path = tmp_path / "remote" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Location("remote", str(tmp_path / "remote"), is_remote=True)
        return
    filesystem = MemoryFileSystem()
    for name, content in CONTENT.items():
        filesystem.fs.pipe_file(f"/bucket/x/{name}", content)
    yield Location("memory://bucket/x", "/bucket/x", filesystem, is_remote=True)
    filesystem.fs.rm("/bucket", recursive=True)


def test_a_location(location: Location) -> None:
    assert list(location.files()) == sorted(CONTENT)
    for name, content in CONTENT.items():
        assert location.size(name) == len(content)
        with location.local(name) as path:
            assert path.read_bytes() == content
    for _ in range(2):  # twice changes nothing
        location.delete("files/md5/ab/cd")
        assert list(location.files()) == sorted(CONTENT)[1:]


def test_a_filesystem_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> list[str]:
        raise ConnectionError("no route to https://user:secret@host\nTraceback ...")

    monkeypatch.setattr(MemoryFileSystem, "find", broken)
    with pytest.raises(RunFailed, match=r"^a remote that is not there now: no route to https://host$"):
        list(Location("memory://x", "/x", MemoryFileSystem(), is_remote=True).files())
