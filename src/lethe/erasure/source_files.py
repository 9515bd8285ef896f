"""The folder that the images were read from. Its files are erased only on request (`--source`)."""

from collections.abc import Iterator
from pathlib import Path

from lethe._util.errors import RunFailed
from lethe.config.loader import Config
from lethe.erasure.contents import examine
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, YOURS, Place, files_in

STORE = "source"


class SourceFiles:
    """The files under data.root.

    Args:
        config: names the folder.
        sought: what is looked for.
        erases: whether the files may be deleted.
    """

    name = STORE

    def __init__(self, config: Config, sought: Sought, erases: bool) -> None:
        self.root = config.path(config.data.root) if config.data.root else None
        self.sought, self.erases, self.source = sought, erases, config.data.source

    def find(self) -> Iterator[Place]:
        """Image files of the erased ids, and copies of them under any name; lists of their ids."""
        root = self.root
        for path in files_in(root) if root else ():
            found = examine(path, self.sought)
            named = root is not None and self.sought.has_id(path.relative_to(root).as_posix())
            if found or named:
                mine = self.erases and (named or found.pixels)
                advice = "" if mine else "delete it, or give --source" if named or found.pixels else "delete it"
                yield Place(STORE, str(path), str(found) or "1 id", path.stat().st_size, DELETE if mine else YOURS, advice)

    def erase(self, place: Place) -> None:
        try:
            Path(place.name).unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(f"{place.name} can't be deleted: {error.strerror}") from None

    def check(self) -> Iterator[Place]:
        yield from self.find()

    def unreachable(self) -> Iterator[str]:
        if self.root is None:
            yield f"the images of data.source {self.source}, which is installed or published elsewhere; they are left out from now on"
        elif not self.root.exists():
            yield f"{self.root}, which does not exist here"
