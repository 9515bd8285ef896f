"""DVC: the cache, the run cache, copies in which experiments run, remotes, experiments. Single objects are deleted, not whole generations.

`dvc gc -w` leaves the remotes, and with `-c` it drops whatever tags, branches and experiments name. Here an object goes because of what it
holds; a commit that names it still exists and can no longer be checked out in full. An experiment whose objects are gone goes with them."""

import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lethe._util.checkout import root
from lethe._util.errors import RunFailed
from lethe._util.redact import summarize_error, without_secrets
from lethe.erasure.contents import LOOK, Found, examine
from lethe.erasure.dvc_locations import Location, open_remote, site_cache
from lethe.erasure.git_objects import EXPERIMENTS, PRUNE, GitObjects
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, YOURS, Place, files_in, size_of

if TYPE_CHECKING:
    from dvc.config import Config as DvcConfig

STORE = "dvc"
LATER = "the same command goes on later"
NO_OBJECT = "delete it, or what it holds: DVC did not put it there"
RUNS = "runs"  # the folder of the run cache


class DvcObjects:
    """The DVC repository that the workspace belongs to, if there is one.

    Args:
        sought: what is looked for.
        git: the repository that has its experiments.
    """

    name = STORE

    def __init__(self, sought: Sought, git: GitObjects) -> None:
        self.root, self.sought, self.git = root(), sought, git
        self.folder = self.root / ".dvc"
        self._files: dict[str, tuple[Location, str]] = {}
        self._removed: list[str] = []  # references of experiments

    def find(self) -> Iterator[Place]:
        """Experiments first and objects last: an object that is gone no longer shows which experiments and recorded runs name it."""
        if not self.folder.is_dir():
            return
        objects: list[Place] = []
        recorded: list[tuple[Location, str]] = []
        gone: set[str] = set()
        for location in self._locations(objects):
            try:
                for file, found in self._examined(location):
                    goes = found.certain and location.owns(file)
                    if goes:
                        gone.add("".join(PurePosixPath(file).parts[-2:]))
                    if found:
                        advice = "" if goes else NO_OBJECT if found.certain else LOOK
                        objects.append(self._place(location, file, str(found), advice))
                    elif file.startswith(f"{RUNS}/"):
                        recorded.append((location, file))
            except RunFailed as error:
                advice = f"delete {', '.join(sorted(gone))} there" if gone and "can't be listed" in str(error) else LATER
                objects.append(Place(STORE, location.address, str(error), 0, YOURS, advice))
        for ref in self.git.experiments(gone):
            yield Place(STORE, ref, "an experiment that names or holds them", 0, DELETE)
        if gone and (queued := self.git.queued()):
            advice = "`dvc queue remove --all`, if one of them is to be made with what is gone"
            yield Place(STORE, ", ".join(queued), "queued or failed experiments", 0, YOURS, advice)
        for location, file in recorded if gone else ():
            if any(hash_ in self._text(location, file) for hash_ in gone):
                yield self._place(location, file, "a recorded run that would restore them")
        yield from self._names_seen()
        yield from objects

    def erase(self, place: Place) -> None:
        """Delete an experiment's reference, an object, or DVC's cache of file names."""
        if place.name.startswith(EXPERIMENTS):
            self.git.delete(place.name)
            self._removed.append(place.name)
        elif place.name in self._files:
            location, file = self._files[place.name]
            location.delete(file)
        elif place.name == str(self._seen):
            shutil.rmtree(place.name, ignore_errors=True)

    def check(self) -> Iterator[Place]:
        """As `find`."""
        yield from self.find()

    def unreachable(self) -> Iterator[str]:
        """Older versions on remotes, and the commits of removed experiments."""
        if not self.folder.is_dir():
            return
        if any(location.filesystem for location in self._locations([])):
            yield "older versions of the objects, where a remote keeps them (versioned buckets, snapshots)"
        if self._removed:
            yield f"the commits of {len(self._removed)} experiments that were removed, which git has until `{PRUNE}`"

    # --- places ---------------------------------------------------------------------------------------------------------

    def _locations(self, away: list[Place]) -> Iterator[Location]:
        """The cache, experiments under way, and the remotes; what can't be opened is added to `away`."""
        config = self._config
        if isinstance(config, str):
            away.append(Place(STORE, str(self.folder / "config"), config, 0, YOURS, LATER))
            return
        cache = Path(config.get("cache", {}).get("dir") or self.folder / "cache")
        for folder in (cache, self.folder / "tmp"):
            if folder.is_dir():
                yield Location(str(folder), str(folder), by_name=folder != cache)
        for name, settings in config.get("remote", {}).items():
            try:
                yield open_remote(config, name)
            except RunFailed as error:
                away.append(Place(STORE, without_secrets(str(settings.get("url", name))), str(error), 0, YOURS, LATER))

    @cached_property
    def _config(self) -> "DvcConfig | str":
        """DVC's configuration, from all its files; else why it can't be read."""
        from dvc.config import Config

        try:
            return Config(str(self.folder), local_dvc_dir=str(self.folder))
        except Exception as error:
            return f"a configuration that DVC does not read: {summarize_error(error)}"

    def _examined(self, location: Location) -> Iterator[tuple[str, Found]]:
        for file in location.files():
            with location.local(file) as path:
                yield file, examine(path, self.sought, location.name(file))

    @cached_property
    def _seen(self) -> Path | None:
        return site_cache(self.root)

    def _names_seen(self) -> Iterator[Place]:
        files = list(files_in(self._seen)) if self._seen else []
        if found := sum((examine(path, self.sought) for path in files), Found()):
            holds = f"{found} in DVC's cache of file names, which it makes again"
            yield Place(STORE, str(self._seen), holds, size_of(files), DELETE)

    @staticmethod
    def _text(location: Location, file: str) -> str:
        with location.local(file) as path:
            return path.read_text(encoding="utf-8", errors="replace")

    def _place(self, location: Location, file: str, holds: str, advice: str = "") -> Place:
        """A file: to be deleted, unless there is advice on what the user is to do with it."""
        name = location.name(file)
        self._files[name] = location, file
        return Place(STORE, name, holds, location.size(file), YOURS if advice else DELETE, advice)
