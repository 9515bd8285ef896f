"""What is looked for: erased images by pseudonyms of their ids and pixels, and models that learned them by hashes."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lethe.data import copies
from lethe.workspace.erased import Erasure
from lethe.workspace.pseudonyms import Pseudonyms

_WORD = re.compile(rb"[\w/.\-]+(?: [\w/.\-]+)*")
_END = re.compile(rb"[\w\-]|\.\w")  # what continues an id: train/1 is not found in train/12


@dataclass(frozen=True)
class Sought:
    """What erasures removed, or are to remove.

    Args:
        erasures: one or more, oldest first.
        hashed: the workspace's pseudonyms.
        size: height and width of the workspace's images, in pixels.
        unread: what was passed over in a search: file -> in words. Searches add to it.
    """

    erasures: Sequence[Erasure]
    hashed: Pseudonyms
    size: int
    unread: dict[str, str] = field(default_factory=dict, compare=False)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(id_ for one in self.erasures for id_ in one.ids)

    @cached_property
    def _pixels(self) -> frozenset[str]:
        return frozenset(hash_ for one in self.erasures for hash_ in one.pixels)

    @cached_property
    def _near(self) -> npt.NDArray[np.uint64]:
        return np.array([self.hashed.shown(hash_) for one in self.erasures for hash_ in one.near], np.uint64)

    @cached_property
    def _models(self) -> frozenset[str]:
        return frozenset(hash_ for one in self.erasures for hash_ in one.models)

    @cached_property
    def _tensors(self) -> frozenset[str]:
        return frozenset(hash_ for one in self.erasures for hash_ in one.tensors)

    @property
    def newest(self) -> Erasure:
        """The last erasure: only what it accepted has unlearned all the images."""
        return self.erasures[-1]

    def has_id(self, id_: str) -> bool:
        """Whether an image's id, as text, is one of them."""
        return self.hashed.of_id(id_) in self._ids

    def has_pixels(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Whether an image, uint8 [3, H, W], is one of them, byte for byte."""
        return self.hashed.of_pixels(pixels) in self._pixels

    @property
    def nearness(self) -> str:
        """Which near copies are found, in words."""
        if any(one.near for one in self.erasures):
            within = f"whose perceptual hashes differ in at most {copies.NEAR} of 64 bits"
            return f"near copies are images {within}; crops and mirror images are not found"
        return "near copies were not looked for: the images are too small to tell them from others"

    def is_near(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Whether an image, uint8 [3, H, W], looks like one of them: their perceptual hashes differ in at most copies.NEAR bits."""
        if not len(self._near):
            return False
        return bool((np.bitwise_count(self._near ^ copies.perceptual_hash(pixels)) <= copies.NEAR).any())

    def has_tensor(self, content: bytes) -> bool:
        """Whether these are the bytes of a tensor of a model that learned them."""
        return hashlib.sha256(content).hexdigest() in self._tensors

    def learned(self, weights: str, about: Mapping[str, str]) -> bool:
        """Whether a model learned them: by the hash of its weights, or by the images that its file says it was trained on.

        Args:
            weights: hash of its weights.
            about: metadata of its file; {}: unknown.

        Returns:
            True if it did; False for the newest accepted result, and for a model retrained without all the images. What an earlier erasure
            accepted, and its retrained model, learned the images that were erased later.
        """
        if weights == self.newest.accepted:
            return False
        clean = about.get("kind", "").startswith("retrained") and about.get("retain") == self.newest.retain
        known = weights in self._models or weights in {one.accepted for one in self.erasures}
        return known or (about.get("data") in {one.data for one in self.erasures} and not clean)

    def ids_in(self, text: bytes) -> set[str]:
        """Return the pseudonyms of the ids that occur in a text."""
        found = set()
        for one in self.erasures:
            for start in self._starts(text, one):
                for length in one.lengths:
                    end = start + length
                    if end <= len(text) and not _END.match(text, end):
                        with suppress(UnicodeDecodeError):  # no id: most of what is compressed, which would be hashed in vain
                            found.add(self.hashed.of_id(text[start:end].decode()))
        return found & self._ids

    @staticmethod
    def _starts(text: bytes, one: Erasure) -> Iterator[int]:
        if one.prefix:
            for start in (one.prefix, *one.starts):
                yield from (match.start() for match in re.finditer(re.escape(start.encode()), text))
            return
        for match in _WORD.finditer(text):
            yield match.start()
            yield from (match.start() + at.end() for at in re.finditer(rb"[ /]", match[0]))
