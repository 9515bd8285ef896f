"""What every kind of store does: find what is to be erased, erase it, and check that nothing is left."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DELETE, REWRITE, REPLACE, YOURS = "delete", "rewrite without them", "replace by the accepted result", "left to you"


@dataclass(frozen=True)
class Place:
    """A place that holds erased images, their ids, or a model that learned them.

    Attributes:
        store: the kind of store.
        name: path or address.
        holds: what, with numbers.
        size: bytes.
        step: how it is erased: DELETE, REWRITE, REPLACE, or YOURS if this program can't.
        advice: for YOURS: what to do.
        derived: what was made from a model that learned the images, in words that name nobody; "" for all else.
    """

    store: str
    name: str
    holds: str
    size: int
    step: str
    advice: str = ""
    derived: str = ""


class Store(Protocol):
    """One kind of store. `erase` may be killed at any moment: `find` then returns what is left, and `erase` goes on."""

    name: str

    def find(self) -> Iterator[Place]:
        """Find everything that has to go, without changing anything."""
        ...

    def erase(self, place: Place) -> None:
        """Erase what `find` returned. Erasing a place twice changes nothing.

        Raises:
            RunFailed: it could not be erased; the message says why.
        """
        ...

    def check(self) -> Iterator[Place]:
        """Search the whole store again for what must not be there."""
        ...

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """Name what may hold something and can't be searched from here, but for files that are listed as places, by any store."""
        ...


def files_in(folder: Path) -> Iterator[Path]:
    """Iterate over all regular files below a folder, by name; symbolic links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of some files."""
    return sum(path.stat().st_size for path in paths)
