"""Remotes of DVC that are no folder, by a filesystem in memory: what a location does there is what it does on a disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc_objects.fs.memory import MemoryFileSystem

from lethe._util.errors import RunFailed
from lethe.erasure.dvc_locations import Location
from lethe.erasure.dvc_objects import NO_OBJECT, DvcObjects
from lethe.erasure.git_objects import GitObjects
from lethe.erasure.stores import DELETE, YOURS
from support.erasures import IDS, SOUGHT

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


def test_objects_of_a_remote(location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ".dvc").mkdir()
    store = DvcObjects(SOUGHT, GitObjects(tmp_path, SOUGHT))
    monkeypatch.setattr(store.git, "experiments", lambda gone: iter(()))
    monkeypatch.setattr(store.git, "queued", list)
    monkeypatch.setattr(store, "_locations", lambda away: iter([location]))
    monkeypatch.setattr("lethe.erasure.dvc_objects.site_cache", lambda root: None)
    places = list(store.find())
    assert [(place.name, place.holds, place.step) for place in places] == [  # the object last: without it the run would not be found
        (location.name("runs/a/b"), "a recorded run that would restore them", DELETE),
        (location.name("files/md5/ab/cd"), "1 id", DELETE),
    ]
    for place in places:
        store.erase(place)
    assert list(store.check()) == []
    assert list(location.files()) == ["files/md5/ab/ef", "runs/c/d"]


def test_what_dvc_did_not_put_into_a_remote_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    remote, legacy = tmp_path / "nas", "0a/" + "b" * 30
    for name in ("people/list.csv", "list.csv", legacy, f"{legacy}.dir", "files/md5/0a/" + "c" * 30):
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_text(f"id\n{IDS[0]}\n")
    (tmp_path / ".dvc" / "tmp" / "exps").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "exps" / "forget.csv").write_text(f"id\n{IDS[0]}\n")
    (tmp_path / ".dvc" / "config").write_text(f"['remote \"nas\"']\n    url = {remote}\n")
    store = DvcObjects(SOUGHT, GitObjects(tmp_path, SOUGHT))
    monkeypatch.setattr(store.git, "experiments", lambda gone: iter([f"refs/exps/{each}" for each in sorted(gone)]))
    monkeypatch.setattr(store.git, "queued", list)
    monkeypatch.setattr("lethe.erasure.dvc_objects.site_cache", lambda root: None)
    found = list(store.find())
    left = {place.name: place.advice for place in found if place.step == YOURS}
    assert left == dict.fromkeys([f"{remote}/list.csv", f"{remote}/people/list.csv"], NO_OBJECT)
    asked = ["0a" + "b" * 30, "0a" + "b" * 30 + ".dir", "0a" + "c" * 30, "expsforget.csv"]
    assert [place.name for place in found if place.name.startswith("refs/")] == [f"refs/exps/{name}" for name in asked]
    for place in found:
        if place.step == DELETE and not place.name.startswith("refs/"):
            store.erase(place)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["config", "list.csv", "list.csv"]


def test_a_remote_that_is_away_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "['remote \"folder\"']\n    url = ../away\n['remote \"bucket\"']\n    url = gs://me:secret@bucket/x\n"
        "['remote \"web\"']\n    url = http://localhost:1/x\n"
    )
    store = DvcObjects(SOUGHT, GitObjects(tmp_path, SOUGHT))
    monkeypatch.setattr(store.git, "experiments", lambda gone: iter(()))
    monkeypatch.setattr("lethe.erasure.dvc_objects.site_cache", lambda root: None)
    found = {place.name: place for place in store.find()}
    assert {place.step for place in found.values()} == {YOURS}
    assert {name: place.holds for name, place in found.items()} == {
        str(tmp_path / "away"): "a remote that is not there now",
        "gs://bucket/x": "a remote that can't be opened: gs is supported, but requires 'dvc-gs' to be installed",
        "http://localhost:1/x": "a remote whose objects can't be listed from here",
    }
    (tmp_path / ".dvc" / "config").write_text("[remote]\n  url\n")
    (place,) = DvcObjects(SOUGHT, store.git).find()
    assert place.holds.startswith("a configuration that DVC does not read: ")


def test_a_filesystem_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> list[str]:
        raise ConnectionError("no route to https://user:secret@host\nTraceback ...")

    monkeypatch.setattr(MemoryFileSystem, "find", broken)
    with pytest.raises(RunFailed, match=r"^a remote that is not there now: no route to https://host$"):
        list(Location("memory://x", "/x", MemoryFileSystem(), is_remote=True).files())
