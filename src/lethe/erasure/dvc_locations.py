"""Where DVC keeps objects: folders, and remotes of every kind that DVC itself can open (S3, SSH, Azure, ...), with its own credentials."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lethe._util.errors import RunFailed
from lethe._util.redact import summarize_error, without_secrets
from lethe.erasure import bucket_versions
from lethe.erasure.stores import files_in

if TYPE_CHECKING:
    from dvc.config import Config as DvcConfig

AWAY = "a remote that is not there now"
# As DVC names objects since version 3, and before, and recorded runs. Other files in the folder of a remote or a cache are not its own.
_OBJECT = re.compile(r"files/[\w-]+/[0-9a-f]{2}/[^/]+|[0-9a-f]{2}/[0-9a-f]{30}(?:\.dir)?|runs/.+")


@dataclass(frozen=True)
class Location:
    """A folder or remote with objects of DVC.

    Args:
        address: as it is printed.
        path: of it in its filesystem.
        filesystem: DVC's; None: the folder is on this machine.
        is_remote: whether it is a remote, which may be away.
        by_name: whether files have the names there that they have in the checkout: copies of it, and remotes with `version_aware`.
    """

    address: str
    path: str
    filesystem: Any = None
    is_remote: bool = False
    by_name: bool = False

    def files(self) -> Iterator[str]:
        """Iterate over the paths of all files, relative to the location, by name.

        Raises:
            RunFailed: it is away, or can't be listed.
        """
        if self.filesystem is None:
            folder = Path(self.path)
            if not folder.is_dir():
                raise RunFailed(AWAY)
            yield from (path.relative_to(folder).as_posix() for path in files_in(folder))
            return
        with self._reached("listed"):
            self.filesystem.fs.invalidate_cache()
            found = sorted(self.filesystem.find(self.path))
        yield from (str(PurePosixPath(path).relative_to(self.path)) for path in found)
        if self.lists_versions():
            with self._reached("listed"):
                versions = sorted(bucket_versions.older(self.filesystem, self.path))
            yield from versions

    def lists_versions(self) -> bool:
        """Return whether older versions are among `files`: of a folder there are none; a bucket may keep some and not say which."""
        if self.filesystem is None:
            return True
        try:
            return bucket_versions.keeps(self.filesystem) and next(bucket_versions.listed(self.filesystem, self.path), True) is not None
        except Exception:  # this account may not list them, or the service has none
            return False

    def owns(self, file: str) -> bool:
        """Return whether DVC put a file here. A remote may be a folder that has other things, too, as the images' own source."""
        return self.by_name or _OBJECT.fullmatch(bucket_versions.split(file)[0]) is not None

    def size(self, file: str) -> int:
        """Return the bytes of a file. Raises RunFailed if it can't be reached."""
        if self.filesystem is None:
            return Path(self.path, file).stat().st_size
        name, version = bucket_versions.split(self._full(file))
        with self._reached("read"):
            return bucket_versions.size(self.filesystem, name, version) if version else int(self.filesystem.size(name) or 0)

    @contextmanager
    def local(self, file: str) -> Iterator[Path]:
        """Give a file as one on this machine, for as long as the context lasts. Raises RunFailed if it can't be read."""
        if self.filesystem is None:
            yield Path(self.path, file)
            return
        with tempfile.TemporaryDirectory() as folder:
            name, version = bucket_versions.split(self._full(file))
            copy = Path(folder, PurePosixPath(name).name)
            with self._reached("read"):
                if version:
                    self.filesystem.fs.get_file(name, str(copy), version_id=version)
                else:
                    self.filesystem.get_file(name, str(copy))
            yield copy

    def delete(self, file: str) -> None:
        """Delete a file and, in a bucket, its older versions; one that is gone is no error. Raises RunFailed if the location refuses."""
        if self.filesystem is None:
            try:
                Path(self.path, file).unlink(missing_ok=True)
            except OSError as error:
                raise RunFailed(f"{self.name(file)} can't be deleted: {error.strerror}") from None
            return
        name, _ = bucket_versions.split(self._full(file))
        with self._reached("deleted"):
            versioned = bucket_versions.keeps(self.filesystem)
            if versioned and bucket_versions.delete(self.filesystem, name):
                self.filesystem.fs.invalidate_cache()
            if self.filesystem.exists(name):
                self.filesystem.rm_file(name)
                if versioned:  # of an object that is older than its bucket's versions, this has only made a marker
                    bucket_versions.delete(self.filesystem, name)

    def name(self, file: str) -> str:
        """Return how a file is printed."""
        return f"{self.address.rstrip('/')}/{file}"

    def _full(self, file: str) -> str:
        return f"{self.path}/{file}"

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        try:
            yield
        except NotImplementedError:
            raise RunFailed(f"a remote whose objects can't be {what} from here") from None
        except Exception as error:  # what a filesystem raises where its service is away is its own matter
            raise RunFailed(f"{AWAY}: {summarize_error(error)}") from None


def open_remote(config: "DvcConfig", name: str) -> Location:
    """Open a remote of DVC's configuration.

    Args:
        config: of the repository, from all its files.
        name: of the remote.

    Returns:
        The remote; the address that is printed has no credentials in it.

    Raises:
        RunFailed: what DVC needs for it is not installed, or its settings are wrong.
    """
    from dvc.fs import get_cloud_fs

    try:
        kind, settings, path = get_cloud_fs(config, name=name)
        if kind.protocol == "local":
            return Location(path, path, is_remote=True)
        remote = config["remote"][name]
        by_name = bool(remote.get("version_aware") or remote.get("worktree"))
        return Location(without_secrets(str(remote["url"])), path, kind(**settings), is_remote=True, by_name=by_name)
    except Exception as error:
        raise RunFailed(f"a remote that can't be opened: {summarize_error(error)}") from None


def site_cache(root: Path) -> Path | None:
    """Return the folder outside of a repository in which DVC keeps the names and hashes of files that it has seen.

    Args:
        root: of the repository.

    Returns:
        The folder; None if DVC has none, or does not say where it is.
    """
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            folder = Path(repo.site_cache_dir)
    except Exception:  # no repository, or one whose files DVC refuses
        return None
    return folder if folder.is_dir() else None
