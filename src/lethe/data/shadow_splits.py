"""Splits of other deletion requests, for models that are trained only for attacks (SWAP, U-LiRA)."""

from collections.abc import Mapping

import numpy as np

from lethe._util.errors import UserError
from lethe.data.deletion_request import Indices
from lethe.data.images import Images
from lethe.data.splits import Splits


def replacements(forget: Indices, held_out: Indices, labels: Indices) -> Indices:
    """Draw F': held-out images of the forgotten classes, as many as forget has, or all when there are fewer.

    Args:
        forget: int64, indices of the forgotten images.
        held_out: int64, indices to draw from, sorted by id; equal indices give an equal draw.
        labels: int64 [N], class indices of all images.

    Returns:
        int64 indices, at most `len(forget)`.
    """
    alike = np.isin(labels[held_out], labels[forget])
    return np.random.default_rng(0).permutation(held_out[alike])[: len(forget)]


def swapped(splits: Mapping[str, Indices], images: Images) -> Splits:
    """Make the splits of a request to forget F' instead: F' is in forget, and the forget images are in validation.

    Args:
        splits: int64 indices by split.
        images: the indexed images.

    Returns:
        int64 indices by split; only forget and validation differ from `splits`.

    Raises:
        UserError: validation has too few images of the forgotten classes.
    """
    forget, validation = splits["forget"], _by_id(splits["validation"], images)
    other = replacements(forget, validation, images.labels)
    if len(other) < len(forget):
        raise UserError(
            "evaluate.swap and evaluate.shadows take as many validation images of the forgotten classes as forget images, "
            f"{len(forget)}; there are {len(other)}"
        )
    return {**splits, "forget": other, "validation": np.concatenate([np.setdiff1d(validation, other), forget])}


def halved(splits: Mapping[str, Indices], images: Images, number: int) -> tuple[Indices, Indices]:
    """Divide the images of forget and F' at random into two halves.

    Numbers 2 n and 2 n + 1 give the same halves in opposite order, so every image is equally often in the first.

    Args:
        splits: int64 indices by split.
        images: the indexed images; ids decide the order, so it is the same for all lists of the same images.
        number: of the division; number // 2 is its seed.

    Returns:
        The two halves, int64 indices.

    Raises:
        UserError: validation has too few images of the forgotten classes.
    """
    pool = _by_id(np.concatenate([splits["forget"], swapped(splits, images)["forget"]]), images)
    first, second = np.split(np.random.default_rng(number // 2).permutation(pool), 2)
    return (second, first) if number % 2 else (first, second)


def _by_id(rows: Indices, images: Images) -> Indices:
    return np.array(sorted(rows, key=lambda i: images.ids[i]), np.int64)
