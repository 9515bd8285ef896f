"""DVC: the cache, the run cache, copies in which experiments run, remotes, experiments. Single objects are deleted, not whole generations.

`dvc gc -w` leaves the remotes, and with `-c` it drops whatever tags, branches and experiments name. Here an object goes because of what it
holds; a commit that names it still exists and can no longer be checked out in full. An experiment whose objects are gone goes with them."""

import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lethe._util.checkout import root
from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import summarize_error, without_secrets
from lethe.erasure.bucket_versions import split
from lethe.erasure.contents import LOOK, Found, examine
from lethe.erasure.dvc_locations import Location, open_remote, site_cache
from lethe.erasure.git_objects import EXPERIMENTS, HASH, PRUNE, GitObjects
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, YOURS, Place, files_in, size_of

if TYPE_CHECKING:
    from dvc.config import Config as DvcConfig

STORE = "dvc"
LATER = "the same command goes on later"
NOT_NAMED = "no file or commit of this project names it, so it may be another project's: delete it, or --keep all of {address}"
NO_OBJECT = "delete it, or what it holds: DVC did not put it there"
RUNS = "runs"  # the folder of the run cache


def _hash(file: str) -> str:
    """The hash that an object's path stands for."""
    return "".join(PurePosixPath(split(file)[0]).parts[-2:])


def check_kept(keep: Sequence[str]) -> None:
    """Check that what is to be left alone exists, before anything is erased: a mistyped name would not be kept.

    Args:
        keep: names or addresses of remotes, or the cache's folder.

    Raises:
        UserError: there is no such remote or cache.
    """
    if not keep:
        return
    config = _configuration(root() / ".dvc")
    remotes = {} if isinstance(config, str) else config.get("remote", {})
    known = {_cache(root() / ".dvc", config)}.union(*(_spellings(name, settings) for name, settings in remotes.items()))
    for one in keep:
        if one not in known:
            has = f"the remotes are {', '.join(remotes)}" if remotes else "DVC has no remote here"
            raise UserError(f"keep is {one}; it takes a remote of DVC, by its name or address, or the folder of DVC's cache; {has}")


def _configuration(folder: Path) -> "DvcConfig | str":
    """DVC's configuration, from all its files; else why it can't be read."""
    from dvc.config import Config

    try:
        return Config(str(folder), local_dvc_dir=str(folder))
    except Exception as error:
        return f"a configuration that DVC does not read: {summarize_error(error)}"


def _cache(folder: Path, config: "DvcConfig | str") -> str:
    """The folder of DVC's cache."""
    return str(Path(("" if isinstance(config, str) else config.get("cache", {}).get("dir")) or folder / "cache"))


def _spellings(name: str, settings: Mapping[str, Any]) -> set[str]:
    """How a remote may be named: by its name, or by its address, with and without what is secret in it."""
    url = str(settings.get("url"))
    return {name, url, without_secrets(url)}


class DvcObjects:
    """The DVC repository that the workspace belongs to, if there is one.

    Args:
        sought: what is looked for.
        git: the repository that has its experiments and names its objects.
        keep: names or addresses of remotes, or the cache's folder, that are left alone.
    """

    name = STORE

    def __init__(self, sought: Sought, git: GitObjects, keep: Sequence[str] = ()) -> None:
        self.root, self.sought, self.git, self.keep = root(), sought, git, keep
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
                    named = found.certain and location.owns(file) and self._is_named(location, file)
                    if named:
                        gone.add(_hash(file))
                    if found:
                        not_named = NOT_NAMED.format(address=location.address) if location.owns(file) else NO_OBJECT
                        advice = "" if named else not_named if found.certain else LOOK
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

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """Older versions on remotes, and the commits of removed experiments."""
        if not self.folder.is_dir():
            return
        for location in self._locations([]):
            if not location.lists_versions():
                yield f"older versions of the objects in {location.address}, if it keeps any"
            if self._is_shared(location):
                keep = f"`--keep {shlex.quote(location.address)}` leaves it alone"
                yield f"other projects that use {location.address}, and lose the objects that they have in common with this one ({keep})"
        for address in self._kept:
            yield f"{address}, which is kept (--keep)"
        if self._removed:
            yield f"the commits of {len(self._removed)} experiments that were removed, which git has until `{PRUNE}`"

    # --- places ---------------------------------------------------------------------------------------------------------

    def _locations(self, away: list[Place]) -> Iterator[Location]:
        """The cache, experiments under way, and the remotes; what can't be opened is added to `away`."""
        config = self._config
        if isinstance(config, str):
            away.append(Place(STORE, str(self.folder / "config"), config, 0, YOURS, LATER))
            return
        cache = Path(_cache(self.folder, config))
        for folder in (cache, self.folder / "tmp"):
            if folder.is_dir() and str(folder) not in self.keep:
                yield Location(str(folder), str(folder), by_name=folder != cache)
        for name, settings in config.get("remote", {}).items():
            if self._is_kept(name, settings):
                continue
            try:
                yield open_remote(config, name)
            except RunFailed as error:
                away.append(Place(STORE, without_secrets(str(settings.get("url", name))), str(error), 0, YOURS, LATER))

    def _is_kept(self, name: str, settings: Mapping[str, Any]) -> bool:
        return not _spellings(name, settings).isdisjoint(self.keep)

    @property
    def _kept(self) -> Iterator[str]:
        """Addresses of what is left alone."""
        config = self._config
        remotes = {} if isinstance(config, str) else config.get("remote", {})
        kept = [without_secrets(str(settings.get("url", name))) for name, settings in remotes.items() if self._is_kept(name, settings)]
        yield from dict.fromkeys([*kept, *({_cache(self.folder, config)} & {*self.keep})])

    def _is_shared(self, location: Location) -> bool:
        """Whether other projects may use a location, too: all but what is in this one's own folder."""
        return not location.by_name and not Path(location.path).is_relative_to(self.folder)

    def _is_named(self, location: Location, file: str) -> bool:
        """Whether an object is this project's: in its own folder, or named by one of its files, now or in a commit."""
        if not self._is_shared(location) or self._names is None:
            return True
        if file.startswith(f"{RUNS}/"):
            return any(hash_ in self._text(location, file) for hash_ in self._names)
        return _hash(file) in self._names

    @cached_property
    def _names(self) -> frozenset[str] | None:
        """Hashes of this project's objects, those in its folders of files included; None where there is no git to ask."""
        named = self.git.dvc_hashes
        if named is None:
            return None
        texts = [path.read_bytes() for path in files_in(self.folder / "cache" / RUNS)]
        found = {*named, *(hash_.decode() for text in texts for hash_ in HASH.findall(text))}
        for location in self._locations([]):
            with suppress(RunFailed):
                for file in location.files():
                    if _hash(file) in found and file.endswith(".dir"):
                        found |= {hash_.decode() for hash_ in HASH.findall(self._text(location, file).encode())}
        return frozenset(found)

    @cached_property
    def _config(self) -> "DvcConfig | str":
        return _configuration(self.folder)

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
