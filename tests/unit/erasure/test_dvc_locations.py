"""Remotes of DVC that are no folder, by a filesystem in memory: what a location does there is what it does on a disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc_objects.fs.memory import MemoryFileSystem

from lethe._util.errors import RunFailed
from lethe.erasure import bucket_versions
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


class Bucket:
    """A bucket of S3 in memory, as far as it keeps versions: an object's are newest first, and deleting without one adds a marker."""

    def __init__(self, versioned: bool) -> None:
        self.versioned, self.objects, self.number = versioned, dict[str, list[dict[str, Any]]](), 0

    def put(self, key: str, marker: bool = False) -> None:
        self.number += self.versioned
        id_ = f"v{self.number}" if self.versioned else "null"
        older = [one for one in self.objects.get(key, []) if one["VersionId"] != id_]
        self.objects[key] = [{"Key": key, "VersionId": id_, "marker": marker}, *older]

    def call_s3(self, name: str, Bucket: str, Key: str = "", Prefix: str = "", VersionId: str = "") -> dict[str, Any]:
        if name == "delete_object":
            self.objects[Key] = [one for one in self.objects[Key] if one["VersionId"] != VersionId]
            return {}
        page: dict[str, Any] = {"Versions": [], "DeleteMarkers": []}
        for key, versions in self.objects.items():
            for at, one in enumerate(versions):
                if key.startswith(Prefix):
                    page["DeleteMarkers" if one["marker"] else "Versions"].append({**one, "IsLatest": at == 0})
        return page

    def invalidate_cache(self) -> None:
        pass


class BucketFiles:
    """What DVC calls of it."""

    def __init__(self, bucket: Bucket) -> None:
        self.fs = bucket

    def exists(self, path: str) -> bool:
        versions = self.fs.objects.get(path.removeprefix("b/"), [])
        return bool(versions) and not versions[0]["marker"]

    def rm_file(self, path: str) -> None:
        key = path.removeprefix("b/")
        if self.fs.versioned:
            self.fs.put(key, marker=True)
        else:
            del self.fs.objects[key]


@pytest.mark.parametrize(("puts", "versioned"), [("-", False), ("-", True), ("+", True), ("-+", True), ("+x+", True), ("-+x", True)])
def test_no_version_of_an_object_is_left_in_a_bucket(puts: str, versioned: bool) -> None:
    """Stored before (-) and after (+) its bucket was made to keep versions, and deleted (x), in this order."""
    bucket = Bucket(versioned=False)
    files = BucketFiles(bucket)
    for one in puts:
        bucket.versioned = one != "-"
        bucket.put("x/files/md5/ab/cd", marker=one == "x")
    bucket.versioned = versioned
    bucket.put("x/files/md5/ab/cde")
    location = Location("s3://b/x", "b/x", files, is_remote=True)
    location.delete("files/md5/ab/cd")
    assert [key for key, versions in bucket.objects.items() if versions] == ["x/files/md5/ab/cde"]
    assert list(bucket_versions.older(files, "b/x")) == []
