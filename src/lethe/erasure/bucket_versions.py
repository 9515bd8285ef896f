"""Versions of objects in an S3 bucket that keeps them: deleting an object only hides it there behind a marker.

Requests go through s3fs, which DVC uses and gives its credentials: boto3's operations `list_object_versions`, `head_object`,
`delete_object`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

MARK = "?versionId="  # between an object's name and a version, as s3fs spells it
NO_VERSION = "null"  # of an object from before its bucket kept versions


@dataclass(frozen=True)
class Version:
    """One version of an object.

    Attributes:
        key: of the object in its bucket.
        id: of the version.
        latest: whether the object's name leads to it.
        marker: whether it has no content and only says that the object was deleted.
    """

    key: str
    id: str
    latest: bool
    marker: bool


def keeps(filesystem: Any) -> bool:
    """Return whether a filesystem of DVC is of a kind whose versions can be listed here."""
    return hasattr(filesystem.fs, "call_s3")


def split(name: str) -> tuple[str, str]:
    """Return the name of an object and the version in it; "" where it has none."""
    name, _, version = name.partition(MARK)
    return name, version


def listed(filesystem: Any, path: str) -> Iterator[Version]:
    """Iterate over all versions of the objects below a path, markers included.

    Args:
        filesystem: DVC's, of S3.
        path: bucket and prefix.

    Yields:
        Each version, as the bucket lists them, page by page: on a page the markers follow the versions that have content.
    """
    bucket, _, prefix = path.partition("/")
    after: dict[str, str] = {}
    while True:
        page = filesystem.fs.call_s3("list_object_versions", Bucket=bucket, Prefix=prefix, **after)
        for kind in ("Versions", "DeleteMarkers"):
            for one in page.get(kind, []):
                yield Version(one["Key"], one["VersionId"], one["IsLatest"], kind == "DeleteMarkers")
        if not page.get("IsTruncated"):
            return
        after = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}


def older(filesystem: Any, path: str) -> Iterator[str]:
    """Iterate over the names, relative to a path, of versions to which no object's name leads any more.

    Args:
        filesystem: DVC's, of S3.
        path: bucket and prefix.

    Yields:
        The object's name with the version in it, as `split` takes it; no markers.
    """
    _, _, prefix = path.partition("/")
    for one in listed(filesystem, f"{path}/"):
        if not one.latest and not one.marker:
            yield f"{PurePosixPath(one.key).relative_to(prefix)}{MARK}{one.id}"


def size(filesystem: Any, path: str, version: str) -> int:
    """Return the bytes of one version of an object.

    Args:
        filesystem: DVC's, of S3.
        path: bucket and key.
        version: its id.

    Returns:
        Number of bytes.
    """
    bucket, _, key = path.partition("/")
    return int(filesystem.fs.call_s3("head_object", Bucket=bucket, Key=key, VersionId=version)["ContentLength"])


def delete(filesystem: Any, path: str) -> bool:
    """Delete every version of an object, and its markers: DVC's objects have one content under one name.

    Args:
        filesystem: DVC's, of S3.
        path: bucket and key.

    Returns:
        Whether there was any; False where no version was ever kept. What was stored before a bucket kept versions is one, too, once the
        object was stored or deleted again.
    """
    bucket, _, key = path.partition("/")
    found = [one for one in listed(filesystem, path) if one.key == key]
    if all(one.id == NO_VERSION for one in found):
        return False
    for one in found:
        filesystem.fs.call_s3("delete_object", Bucket=bucket, Key=key, VersionId=one.id)
    return True
