"""Git: every object that the repository still has, whatever refers to it, and the references of DVC's experiments.

Only the references of experiments are deleted here. To rewrite commits is the user's decision: the history may have been published."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from lethe._util.checkout import CHECKOUT
from lethe._util.errors import RunFailed
from lethe.erasure.contents import Found, examine_bytes
from lethe.erasure.sought import Sought
from lethe.erasure.stores import YOURS, Place

STORE = "git"
EXPERIMENTS = "refs/exps"
_PASSING = (f"{EXPERIMENTS}/exec", f"{EXPERIMENTS}/temp")  # of experiments that are under way
_QUEUES = (f"{EXPERIMENTS}/celery", f"{EXPERIMENTS}/stash", f"{EXPERIMENTS}/apply")
_NAMING = ("dvc.lock", ".dvc")  # ends of the names of files that name DVC's objects
_LOCK = re.compile(rb"^outs:|^schema:", re.MULTILINE)  # how these begin, where no commit says what an object is called
HASH = re.compile(rb"\b[0-9a-f]{32}\b(?:\.dir\b)?")
_OURS = ("src/", "tests/", "docs/", "README.md")  # of this program's own history: they show ids as examples
PRUNE = "git reflog expire --expire=now --all && git gc --prune=now"


class GitObjects:
    """The repository that the program's folder belongs to, if there is one.

    Args:
        root: a folder in it.
        sought: what is looked for.
    """

    name = STORE

    def __init__(self, root: Path, sought: Sought) -> None:
        self.root, self.sought = root, sought

    def find(self) -> Iterator[Place]:
        """Objects that hold something, by the path that a commit gives them."""
        by_path: dict[str, list[tuple[str, Found, int]]] = defaultdict(list)
        for name, (found, size) in self._holding.items():
            by_path[self._paths.get(name, "")].append((name, found, size))
        for path, objects in sorted(by_path.items()):
            found = sum((one for _, one, _ in objects), Found())
            versions = f" in {len(objects)} versions" if len(objects) > 1 else ""
            if path:
                name, advice = f"{path} in git's history", f"`git filter-repo --invert-paths --path {path}` takes it out of all commits"
            else:
                name, advice = f"git object {objects[0][0][:12]}, which no commit has", f"`{PRUNE}`"
            yield Place(STORE, name, f"{found}{versions}", sum(size for _, _, size in objects), YOURS, advice)

    def erase(self, place: Place) -> None:
        """Nothing here is erased by this program."""

    def check(self) -> Iterator[Place]:
        """As `find`."""
        yield from self.find()

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """Clones, where the repository has a remote."""
        if self._top and self._git("remote"):
            yield "other clones of the git repository"

    # --- experiments ----------------------------------------------------------------------------------------------------

    def experiments(self, gone: Iterable[str]) -> Iterator[str]:
        """Iterate over references of finished experiments that hold something, or whose files name an object of DVC that goes.

        Args:
            gone: hashes of such objects.
        """
        hashes = "\n".join(gone)
        for ref in self._refs():
            if not ref.startswith(_QUEUES) and (self._names(ref, hashes) or self._holds(ref)):
                yield ref

    @cached_property
    def dvc_hashes(self) -> frozenset[str] | None:
        """Hashes in every version of dvc.lock and of DVC's files, in the checkout and in all objects of git; None without a repository."""
        if not self._top:
            return None
        texts = [content for name, content in self._blobs() if self._paths.get(name, "").endswith(_NAMING) or _LOCK.search(content[:2000])]
        listed = self._git("ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard", ":/") or ""
        files = (Path(self._top, name) for name in listed.split("\0") if name.endswith(_NAMING))
        texts += [path.read_bytes() for path in files if path.is_file()]
        return frozenset(found.decode() for text in texts for found in HASH.findall(text))

    def queued(self) -> list[str]:
        """Return the references of queued and failed experiments, which keep the settings of each."""
        return [ref for ref in self._refs() if ref.startswith(_QUEUES)]

    def delete(self, ref: str) -> None:
        """Delete a reference.

        Raises:
            RunFailed: git refuses.
        """
        if ref in self._refs() and self._git("update-ref", "-d", ref) is None:
            raise RunFailed(f"git does not delete {ref}; `git update-ref -d {ref}` says why")

    def _refs(self) -> list[str]:
        found = (self._git("for-each-ref", "--format=%(refname)", EXPERIMENTS) or "").splitlines() if self._top else []
        return [ref for ref in found if not ref.startswith(_PASSING)]

    def _names(self, ref: str, hashes: str) -> bool:
        command = ("grep", "--quiet", "--fixed-strings", "-f", "-", ref, "--", ":(glob)**/dvc.lock", ":(glob)**/*.dvc")
        return bool(hashes) and self._git(*command, given=hashes.encode()) is not None

    def _holds(self, ref: str) -> bool:
        own = self._git("rev-list", "--objects", ref, "--not", "--branches", "--tags", "--remotes") or ""
        return any(line.partition(" ")[0] in self._holding for line in own.splitlines())

    # --- objects --------------------------------------------------------------------------------------------------------

    @cached_property
    def _top(self) -> str:
        """The top folder of the repository; "" without one."""
        return self._git("rev-parse", "--show-toplevel") or ""

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Object -> a path that some commit gives it."""
        listed = self._git("rev-list", "--objects", "--all", "--reflog") or ""
        return {name: path for name, _, path in (line.partition(" ") for line in listed.splitlines()) if path}

    @cached_property
    def _holding(self) -> dict[str, tuple[Found, int]]:
        """Objects that hold something, and their sizes: of all objects, those that nothing refers to included."""
        if not self._top:
            return {}
        holding = {}
        for name, content in self._blobs():
            found = examine_bytes(content, self.sought, f"git object {name[:12]}")
            example = self._top == str(CHECKOUT) and self._paths.get(name, "").startswith(_OURS) and not (found.pixels or found.models)
            if found.certain and not example:
                holding[name] = found, len(content)
        return holding

    def _blobs(self) -> Iterator[tuple[str, bytes]]:
        command = ["git", "cat-file", "--batch", "--batch-all-objects", "--buffer", "--unordered"]
        with subprocess.Popen(command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            while header := process.stdout.readline():
                name, kind, size = header.decode().split()
                content = process.stdout.read(int(size))
                process.stdout.read(1)  # the line's end after it
                if kind == "blob":
                    yield name, content

    def _git(self, *arguments: str, given: bytes = b"") -> str | None:
        """Return what git prints; None if it fails, or there is no git."""
        try:
            done = subprocess.run(["git", *arguments], cwd=self.root, input=given, capture_output=True, check=True, timeout=600)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode("utf-8", "surrogateescape").strip("\n")
