"""Images of a source as one value, and the file that keeps them. N images, H height, W width."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from lethe._util import integrity, manifest
from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest
from lethe._util.integrity import Pieces, Stored
from lethe.data import pixel_store

MOST_CLASSES = 100_000  # where they are numbered: a label that is no class number would otherwise make as many names
ARRAYS = "a source returns Images, or (images, labels) of train and of held-out: uint8 [N, 3, H, W], [N, H, W, 3] or [N, H, W]"


@dataclass(frozen=True, eq=False)
class Images:
    """All images of a source, train first, then held-out. The same image has the same id at any `limit`."""

    pixels: npt.NDArray[np.uint8]  # [N, 3, H, W]
    labels: npt.NDArray[np.int64]  # [N], indices into classes
    ids: tuple[str, ...]  # N of them: 'train/5940', 'test/7542', 'train/cat/00017.png'
    classes: tuple[str, ...]
    held_out: int  # number of held-out images, the last of the N

    def check(self, name: str) -> None:
        """Check that arrays, ids and classes fit together.

        Args:
            name: of the source, for errors.

        Raises:
            UserError: they do not.
        """
        n, pixels, labels = len(self.ids), self.pixels, self.labels
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:2] != (n, 3) or labels.dtype != np.int64 or labels.shape != (n,):
            raise UserError(
                f"{name} gives {pixels.dtype} {list(pixels.shape)} pixels and {labels.dtype} {list(labels.shape)} labels for {n} ids; "
                "it must give uint8 [N, 3, H, W] and int64 [N]"
            )
        if n and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise UserError(f"{name} has labels from {labels.min()} to {labels.max()}, and {len(self.classes)} classes")
        if len(self.classes) < 2 or not 2 <= self.held_out < n:
            raise UserError(
                f"{name} has {len(self.classes)} classes, {self.train} train and {self.held_out} held-out images; "
                "it takes two classes, one train and two held-out images or more"
            )
        if len(set(self.ids)) < n:
            raise UserError(f"{name} gives an id more than once; ids are unique")
        if broken := next((id_ for id_ in self.ids if id_.splitlines() != [id_]), None):
            raise UserError(f"{name} gives the id {broken!r}, which has a line break")

    @property
    def train(self) -> int:
        """Number of train images, the first of the N."""
        return len(self.ids) - self.held_out

    def train_hash(self) -> str:
        """SHA-256 over what an original was trained on: train pixels, labels, ids, classes, and which ids are held out.

        A forget list is not part of it, so a new request keeps the original."""
        n = self.train
        words = json.dumps([self.classes, self.pixels.shape[1:], self.ids[:n], self.ids[n:]])
        return digest([words, self.labels[:n].astype("<i8").tobytes(), as_pieces(self.pixels[:n])])

    def held_out_hash(self) -> str:
        """SHA-256 over the held-out labels and pixels."""
        n = self.train
        return digest([self.labels[n:].astype("<i8").tobytes(), as_pieces(self.pixels[n:])])


def as_pieces(pixels: npt.NDArray[np.uint8]) -> Pieces:
    """The bytes of pixels, block by block."""
    return Pieces(pixels.nbytes, (block.reshape(-1).data for block in pixel_store.blocks(pixels)))


def from_arrays(found: Any, name: str) -> Images:
    """Make Images from two pairs of arrays, (images, labels) of train and of held-out.

    Args:
        found: the two pairs; images uint8 [N, 3, H, W], [N, H, W, 3] or, grey, [N, H, W]; labels [N], class indices.
        name: of the source, for errors.

    Returns:
        Images with ids train/0, train/1, ..., test/0, ... and classes named by their index.

    Raises:
        UserError: `found` has another form.
    """
    try:
        (train, train_labels), (held_out, held_out_labels) = found
        parts = [_channels_first(np.asarray(part)) for part in (train, held_out)]
        pixels = np.concatenate(parts)
        labels = np.concatenate([np.asarray(train_labels), np.asarray(held_out_labels)])
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {one_line(error)}; {ARRAYS}") from None
    if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise UserError(f"{name} gives images of {pixels.dtype} and labels of {labels.dtype}; {ARRAYS}")
    ids = [f"{part}/{i}" for part, images in zip(("train", "test"), parts, strict=True) for i in range(len(images))]
    classes = numbered_classes(int(labels.max(initial=0)), name)
    return Images(np.ascontiguousarray(pixels), labels.astype(np.int64), tuple(ids), classes, len(parts[1]))


def numbered_classes(highest: int, name: str) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers.

    Args:
        highest: label.
        name: of the source, for errors.

    Returns:
        "0" to the highest label, in order.

    Raises:
        UserError: there would be more than MOST_CLASSES.
    """
    if highest >= MOST_CLASSES:
        raise UserError(f"{name} has the label {highest}; labels are the numbers of classes, from 0 and below {MOST_CLASSES:,}")
    return tuple(str(label) for label in range(highest + 1))


def _channels_first(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if images.ndim == 3:
        return np.repeat(images[:, None], 3, axis=1)
    if images.ndim == 4 and images.shape[1] == 3:
        return images
    if images.ndim == 4 and images.shape[3] == 3:
        return images.transpose(0, 3, 1, 2)
    raise ValueError(f"images have shape {list(images.shape)}")


def save_images(images: Images, path: Path, listing: str) -> None:
    """Write images to one safetensors file, the same bytes for the same images and listing.

    Args:
        images: what to write.
        path: of the file; its folder is created.
        listing: hash of the source, as `sources.listing` returns it.

    Raises:
        RunFailed: the file could not be written.
    """
    rest = {"classes": images.classes, "held_out": images.held_out, "listing": listing, "ids": images.ids}
    labels = images.labels.astype("<i8").tobytes()
    arrays = {
        "labels": Stored("I64", images.labels.shape, Pieces(len(labels), [labels])),
        "pixels": Stored("U8", images.pixels.shape, as_pieces(images.pixels)),
    }
    with atomic_write(path, size=images.pixels.nbytes) as temporary:
        integrity.write(temporary, arrays, {"images": json.dumps(rest)})


def load_images(path: Path) -> tuple[Images, str]:
    """Read the file that `save_images` wrote: one version of it, also where another process replaces it meanwhile.

    Returns:
        The images, whose pixels stay in the file, mapped and read-only; and the listing they were saved with.

    Raises:
        UserError: the file is missing, truncated or of another kind.
    """
    try:
        before = path.stat()
        with safe_open(path, framework="np") as file:
            integrity.check(path)
            rest: dict[str, Any] = json.loads(file.metadata()["images"])
            labels = file.get_tensor("labels")
            pixels, opened = _pixels(path), path.stat()
        if not os.path.samestat(before, opened):  # the library gives no handle to map
            return load_images(path)
        ids, classes = tuple(rest["ids"]), tuple(rest["classes"])
        n = len(ids)
        if pixels.dtype != np.uint8 or pixels.shape[:2] != (n, 3) or labels.dtype != np.int64 or labels.shape != (n,):
            raise ValueError(f"{pixels.dtype}{list(pixels.shape)} and {labels.dtype}{list(labels.shape)} for {n} ids")
        if not (labels < len(classes)).all() or not 0 <= int(rest["held_out"]) <= n:
            raise ValueError("labels or held_out out of range")
        return Images(pixels, labels, ids, classes, int(rest["held_out"])), str(rest["listing"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise manifest.unreadable(path, f"can't be read as images made by prepare: {one_line(error)}") from None


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    entries, start = integrity.header(path)
    stored = entries["pixels"]
    if stored["dtype"] != "U8":
        raise ValueError(f"pixels are {stored['dtype']}")
    with path.open("rb") as file:
        return pixel_store.mapped(file, start + stored["data_offsets"][0], stored["shape"])


def one_line(error: object) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
