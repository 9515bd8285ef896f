"""Copies of images: forgotten ones that stay in retain, held-out ones in train, and one picture under two labels.

Exact copies have the same pixels as they are given to the model. Near copies (compressed again, resized, brightened) have perceptual hashes
(`imagehash.phash`: the signs of the 64 lowest frequencies of the cosine transform) that differ in few bits. Of a million pairs of different
CIFAR-10 images none differs in six bits or fewer, and of copies that were compressed, resized or brightened 95 % or more do; crops and
mirror images are not found (docs/log.md). Hashes of images below 32 pixels do not tell different images apart, so near copies of those are
not looked for."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lethe.data.images import Images
from lethe.data.pixel_store import blocks

NEAR = 6  # bits of 64
SMALLEST = 32  # pixels
AT_ONCE = 2**24  # pairs of hashes that are compared at once
FORGOTTEN, HELD_OUT, TWO_LABELS = "forget_in_retain", "held_out_in_train", "two_labels"


class Pair(NamedTuple):
    """Two images that show the same."""

    relation: str  # FORGOTTEN, HELD_OUT or TWO_LABELS
    distance: int | None  # bits in which the hashes differ; None: the pixels are equal
    image: int  # index into Images
    copy: int


@dataclass(frozen=True)
class Copies:
    """Pairs of copies.

    Args:
        pairs: by relation, exact ones first.
        near: whether near copies were looked for.
    """

    pairs: tuple[Pair, ...]
    near: bool

    def counts(self) -> dict[str, dict[str, int]]:
        """Relation -> number of images that have an exact copy, or a near one only: of the forgotten or held-out ones, or of pairs."""
        found: dict[str, dict[str, int]] = {}
        for relation in (FORGOTTEN, HELD_OUT, TWO_LABELS):
            own = [pair for pair in self.pairs if pair.relation == relation]
            exact = {pair.image for pair in own if pair.distance is None}
            found[relation] = {"exact": len(exact)}
            if relation != TWO_LABELS:
                found[relation]["near"] = len({pair.image for pair in own} - exact)
        return found


def find(images: Images, splits: Mapping[str, npt.NDArray[np.int64]], *, near: bool) -> Copies:
    """Find copies.

    Args:
        images: all images.
        splits: int64 indices by split.
        near: also look for near copies; not below SMALLEST pixels.

    Returns:
        The pairs.
    """
    near = near and tells_near(images)
    held_out = np.concatenate([splits["validation"], splits["test"]])
    train = np.concatenate([splits["retain"], splits["forget"]])
    exact = _by_pixels(images)
    pairs = [*_equal(FORGOTTEN, splits["forget"], splits["retain"], exact), *_equal(HELD_OUT, held_out, train, exact)]
    for group in exact.values():
        first = group[0]
        pairs += [Pair(TWO_LABELS, None, first, other) for other in group[1:] if images.labels[other] != images.labels[first]]
    if near:
        hashes = _hashes(images)
        pairs += _similar(FORGOTTEN, splits["forget"], splits["retain"], hashes, exact)
        pairs += _similar(HELD_OUT, held_out, train, hashes, exact)
    return Copies(tuple(sorted(pairs, key=lambda pair: (pair.relation, pair.distance is not None, pair.distance or 0))), near)


def exact_in(images: Images, of: Iterable[int], among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the exact copies of some images.

    Args:
        images: all images.
        of: indices of the images.
        among: indices of those that may be copies.

    Returns:
        Their indices, in the order of `among`.
    """
    digests = [_digest(pixels) for pixels in _each(images)]
    wanted = {digests[i] for i in of}
    return np.array([i for i in among if digests[i] in wanted], np.int64)


def near_in(images: Images, of: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the copies of some images, exact or near.

    Args:
        images: all images, of SMALLEST pixels or more.
        of: indices of the images.
        among: indices of those that may be copies.

    Returns:
        Their indices, in the order of `among`.
    """
    found = {pair.copy for pair in _similar(FORGOTTEN, of, among, _hashes(images), {})}
    return among[np.isin(among, [*found, *exact_in(images, of, among).tolist()])]


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _each(images: Images) -> Iterator[npt.NDArray[np.uint8]]:
    return (pixels for block in blocks(images.pixels) for pixels in block)


Groups = Mapping[bytes, list[int]]


def _by_pixels(images: Images) -> Groups:
    """SHA-256 of the pixels -> the images that have them, where there are several."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, pixels in enumerate(_each(images)):
        groups[_digest(pixels)].append(i)
    return {digest: group for digest, group in groups.items() if len(group) > 1}


def _equal(relation: str, of: npt.NDArray[np.int64], among: npt.NDArray[np.int64], exact: Groups) -> Iterator[Pair]:
    first, second = set(of.tolist()), set(among.tolist())
    for group in exact.values():
        yield from (Pair(relation, None, i, j) for i in group if i in first for j in group if j in second)


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> np.uint64:
    """Return the perceptual hash of an image, of 64 bits.

    Args:
        pixels: uint8 [3, H, W].
    """
    import imagehash
    from PIL import Image

    signs = imagehash.phash(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))).hash
    return np.uint64(np.packbits(signs).view(np.uint64)[0])


def tells_near(images: Images) -> bool:
    """Whether images are large enough for perceptual hashes to tell them apart."""
    return bool(min(images.pixels.shape[2:]) >= SMALLEST)


def _hashes(images: Images) -> npt.NDArray[np.uint64]:
    """[N] perceptual hashes."""
    return np.array([perceptual_hash(pixels) for pixels in _each(images)], np.uint64)


def _similar(
    relation: str, of: npt.NDArray[np.int64], among: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64], exact: Groups
) -> Iterator[Pair]:
    equal = {(i, j) for group in exact.values() for i in group for j in group}
    step = max(1, AT_ONCE // max(len(among), 1))
    for start in range(0, len(of), step):
        part = of[start : start + step]
        distances = np.bitwise_count(hashes[part][:, None] ^ hashes[among][None])
        for a, b in np.argwhere(distances <= NEAR).tolist():
            i, j = int(part[a]), int(among[b])
            if (i, j) not in equal:
                yield Pair(relation, int(distances[a, b]), i, j)
