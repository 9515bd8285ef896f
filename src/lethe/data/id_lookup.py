"""Find the images that a list means: by id, or by a path or spelling that only one id has."""

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from lethe.data.images import Images

# How a name differs from the id that it means, in words
SPELLINGS = {
    "unicode": "with accents composed otherwise (Unicode NFC, NFD)",
    "slashes": r"with \ for /",
    "dot": "with ./ before them",
    "quotes": "in quotes",
    "url": "written as addresses (file://, %20)",
    "root": "with data.root before them",
    "elsewhere": "with the path to a folder of data.root's name elsewhere before them",
    "short": "without what comes before the last folders of an id",
    "case": "in other upper and lower case",
}


@dataclass
class IdLookup:
    """Ids of images by name.

    Args:
        images: all images, train first.
        root: data.root; paths below it name images.
        spellings: how many names differed from the id that they mean, by SPELLINGS; filled by `find`.
        example: the first such name, and its id.
    """

    images: Images
    root: Path | None = None
    spellings: Counter[str] = field(default_factory=Counter)
    example: tuple[str, str] | None = None

    @cached_property
    def exact(self) -> dict[str, int]:
        """Each id as it is spelled -> position of its image."""
        return {id_: i for i, id_ in enumerate(self.images.ids)}

    @cached_property
    def _ends(self) -> dict[str, list[int]]:
        """Each end of an id that begins at a folder or file name, without regard to case and Unicode form -> images."""
        ends: dict[str, list[int]] = defaultdict(list)
        for i, id_ in enumerate(self.images.ids):
            key = _folded(id_)
            while key:
                ends[key].append(i)
                key = key.partition("/")[2]
        return ends

    def find(self, name: str) -> tuple[int, ...]:
        """Find the images that a name may mean.

        Args:
            name: an id; or one in another Unicode form or case, with backslashes, in quotes, with ./ or data.root before it, or its last
                parts alone (`cat/1.png`, `1.png`).

        Returns:
            Indices: one where the name is understood, several where it may mean several images, none where it means none.
        """
        if name in self.exact:
            return (self.exact[name],)
        path, differs = self._cleaned(name)
        if is_absolute(path) and (below := self._below_namesake(path)):
            path, differs = below, [*differs, "elsewhere"]
        found = self._matching(path, differs)
        decoded = unquote(name.removeprefix("file://"))
        if not found and decoded != name and (found := self.find(decoded)):
            differs = ["url"]
        if len(found) == 1:
            self.spellings.update(differs)
            self.example = self.example or (name, self.images.ids[found[0]])
        return found

    def _cleaned(self, name: str) -> tuple[str, list[str]]:
        """The name as a relative path with /, and how it differed."""
        differs = list[str]()
        if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'":
            name, differs = name[1:-1].strip(), [*differs, "quotes"]
        if "\\" in name:
            name, differs = name.replace("\\", "/"), [*differs, "slashes"]
        roots = tuple(f"{str(root).rstrip('/')}/" for root in (self.root, self.root.resolve())) if self.root else ()
        for start, kind in ((("./",), "dot"), (roots, "root"), (("./",), "dot")):
            while before := next((text for text in start if name.startswith(text)), ""):
                name, differs = name.removeprefix(before), [*differs, kind]
        return name, list(dict.fromkeys(differs))

    def _below_namesake(self, path: str) -> str:
        """The part of an absolute path after a folder called as data.root, where that part is a whole id: as the list's author has the
        same folder elsewhere. "" where there is none; a part that is no whole id could be another image."""
        parts = path.split("/")
        ends = (
            "/".join(parts[i + 1 :]) for i, part in enumerate(parts) if self.root and part in (self.root.name, self.root.resolve().name)
        )
        return next((end for end in ends if end in self.exact), "")

    def _matching(self, path: str, differs: list[str]) -> tuple[int, ...]:
        if path in self.exact:
            return (self.exact[path],)
        candidates = self._ends.get(_folded(path), [])
        ids, composed = self.images.ids, _composed(path)
        whole = [i for i in candidates if _folded(ids[i]) == _folded(path)]
        for among, short in ((whole, []), (candidates, ["short"])):
            same_case = [i for i in among if _composed(ids[i]).endswith(composed)]
            found, case = (same_case, []) if same_case else (among, ["case"])
            if found:
                if not ids[found[0]].endswith(path) and not case:
                    differs.append("unicode")
                differs += [*short, *case]
                return tuple(found)
        return ()

    def differences(self) -> str:
        """Say how names differed from ids; "" where none did."""
        if self.example is None:
            return ""
        counts = ", ".join(f"{number:,} {SPELLINGS[kind]}" for kind, number in self.spellings.items())
        return f"names that are no ids were understood: {counts}; first {self.example[0]}, which is {self.example[1]}"

    def hint(self, name: str) -> str:
        """What an unknown or ambiguous name may mean, for an error message."""
        path, _ = self._cleaned(name)
        found = [self.images.ids[i] for i in self._matching(path, [])]
        inside = sum(id_.startswith(f"{path.rstrip('/')}/") for id_ in self.images.ids)
        if inside and not found:
            return f"; it is a folder of {inside:,} images: list each, or give its class to data.forget.classes"
        if len(found) > 1:
            return f"; nearest: {' or '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
        if is_absolute(name):
            parts = path.split("/")
            below = next((end for end in ("/".join(parts[i:]) for i in range(len(parts))) if end in self.exact), None)
            if below:
                return f"; it is not below data.root{f' ({self.root})' if self.root else ''}, which has {below}"
        return nearest(path, self.images.ids) or f"; ids here look like {self.images.ids[0]}"


def is_absolute(name: str) -> bool:
    """Whether a name is an absolute path, of this system or of Windows.

    Args:
        name: as a list has it.
    """
    return name.startswith(("/", "\\\\")) or name[1:3] in (":\\", ":/")


def nearest(word: str, words: Sequence[str]) -> str:
    """Name the most similar word, for an error message.

    Args:
        word: the word that is wrong.
        words: those that exist.

    Returns:
        "; nearest: ..."; "" if no word is similar, or if there are 200,000 or more, which would take too long to compare.
    """
    near = difflib.get_close_matches(word, words, 1) if len(words) < 200_000 else []  # takes 1-2 s for 60,000 ids
    return f"; nearest: {near[0]}" if near else ""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(unicodedata.normalize("NFC", text).casefold())
