"""DVC: the cache, the run cache, copies in which experiments run, and remotes. Single objects are deleted, not whole generations.

`dvc gc -w` leaves the remotes, and with `-c` it drops whatever tags, branches and experiments name. Here an object goes because of what it
holds; a commit that names it still exists and can no longer be checked out in full."""

import configparser
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lethe._util.checkout import root
from lethe._util.errors import RunFailed
from lethe.config.loader import Config
from lethe.erasure.contents import LOOK, examine
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, YOURS, Place, files_in

STORE = "dvc"


class DvcObjects:
    """The DVC repository that the workspace belongs to, if there is one.

    Args:
        config: the configuration.
        sought: what is looked for.
    """

    name = STORE

    def __init__(self, config: Config, sought: Sought) -> None:
        self.root, self.sought = root(), sought
        self.folder = self.root / ".dvc"
        self._gone: set[str] = set()  # objects that hold something, by their path in a remote

    def find(self) -> Iterator[Place]:
        gone = self._gone
        for folder in self._folders():
            if not folder.is_dir():
                yield Place(STORE, str(folder), "a remote that is not there now", 0, YOURS, "the same command goes on later")
                continue
            for path in files_in(folder):
                found = examine(path, self.sought)
                if found.certain:
                    gone.add(f"{path.parent.name}/{path.name}")
                if found:
                    step, advice = (DELETE, "") if found.certain else (YOURS, LOOK)
                    yield Place(STORE, str(path), str(found), path.stat().st_size, step, advice)
        runs = self._cache() / "runs"
        for path in files_in(runs) if gone and runs.is_dir() else ():
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(name.replace("/", "") in text for name in gone):
                yield Place(STORE, str(path), "a recorded run that would restore them", path.stat().st_size, DELETE)

    def erase(self, place: Place) -> None:
        path = Path(place.name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(f"{path} can't be deleted: {error.strerror}") from None

    def check(self) -> Iterator[Place]:
        yield from self.find()

    def unreachable(self) -> Iterator[str]:
        if not self.folder.is_dir():
            return
        for name, url in self._remotes().items():
            if _is_elsewhere(url):
                objects = f"the objects {', '.join(sorted(self._gone))} under files/md5" if self._gone else "what was erased"
                yield f"the DVC remote {name} ({url}): delete {objects} there with its own tools"
        yield "git's history, which may hold lists of ids and, in dvc.lock, hashes of them: rewrite it with git-filter-repo where it does"
        names = self._experiments()
        if names:
            yield f"{len(names)} DVC experiments, whose commits still name the objects that are gone ({', '.join(names[:3])})"
        if not self._setting("core", "site_cache_dir"):
            yield "DVC's cache of file names outside of the project (core.site_cache_dir), which has names of tracked files"

    def _folders(self) -> list[Path]:
        """Folders whose files are objects or copies of a workspace: the cache, experiments under way, remotes that are folders."""
        if not self.folder.is_dir():
            return []
        inside = [self._cache() / "files", self.folder / "tmp"]
        remotes = [self._resolved(url) for url in self._remotes().values() if not _is_elsewhere(url)]
        return [folder for folder in inside if folder.is_dir()] + remotes

    def _cache(self) -> Path:
        own = self._setting("cache", "dir")
        return self._resolved(own) if own else self.folder / "cache"

    def _remotes(self) -> dict[str, str]:
        parser = self._config()
        sections = [name for name in parser.sections() if "remote" in name]
        return {name.strip("'").split('"')[1]: parser[name].get("url", "") for name in sections if '"' in name}

    def _setting(self, section: str, key: str) -> str:
        parser = self._config()
        return parser[section].get(key, "") if section in parser else ""

    def _config(self) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read([self.folder / "config", self.folder / "config.local"], encoding="utf-8")
        return parser

    def _resolved(self, path: str) -> Path:
        return (self.folder / Path(path).expanduser()).resolve()

    def _experiments(self) -> list[str]:
        """Names of experiments, by the references that git has: `dvc exp list` does not show those whose commit is gone."""
        command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return []
        return [line.rpartition("/")[2] for line in done.stdout.splitlines() if not line.startswith("refs/exps/exec")]


def _is_elsewhere(url: str) -> bool:
    return "://" in url or url.startswith(("ssh:", "s3:"))
