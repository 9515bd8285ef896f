"""Pixels of more images than memory holds: they stay in a file, which is mapped to go through them and read to gather some.

What is no larger than IN_MEMORY is read through the map and never released. Of a larger file the pages that were gone through are released,
since they count as memory of the process until then; and single images are read into a buffer of their own, because Linux maps up to
2 MB around a page that is touched, so that a batch of 512 small images would hold a gigabyte."""

import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lethe._util.errors import RunFailed
from lethe._util.files import unwritable

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

IN_MEMORY = 2**26  # bytes of pixels that a process holds
AT_ONCE = 2**24  # bytes that are copied or hashed at once


class _Map(mmap.mmap):
    """A map that knows its file."""

    descriptor: int | None = None

    def __del__(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def empty(shape: Sequence[int], folder: Path, most: int = IN_MEMORY) -> Pixels:
    """Make an array to fill: in memory, or, where it is larger, in a file without a name, which the system removes with the process.

    Args:
        shape: of the array.
        folder: on the disk that has room for it; it may not exist yet.
        most: bytes up to which it is in memory.

    Returns:
        uint8, of any content.

    Raises:
        RunFailed: the disk has no room for it, or can't be written.
    """
    size = math.prod(shape)
    if size <= most:
        return np.empty(shape, np.uint8)
    folder = folder.absolute()
    where = next(each for each in (folder, *folder.parents) if each.is_dir())
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            if hasattr(os, "posix_fallocate"):  # room is taken now: on a disk that fills later, writing to the map would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            held = _Map(file.fileno(), size)
            held.descriptor = os.dup(file.fileno())
    except OSError as error:
        raise unwritable(where / "images", error, size) from None
    return np.frombuffer(held, np.uint8).reshape(shape)


def mapped(file: IO[bytes], start: int, shape: Sequence[int]) -> Pixels:
    """Map an array that a file holds.

    Args:
        file: open for reading; it may be closed, replaced or removed afterwards.
        start: byte at which the array begins.
        shape: of the array.

    Returns:
        uint8, read-only.

    Raises:
        ValueError: the file is shorter.
    """
    held = _Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    held.descriptor = os.dup(file.fileno())
    return np.frombuffer(held, np.uint8)[start:][: math.prod(shape)].reshape(shape)


def as_tensor(pixels: Pixels) -> "Tensor":
    """Return the same memory as a tensor, which nothing may write to: torch knows no read-only ones."""
    from torch import from_numpy  # takes seconds to import

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return from_numpy(pixels)


class Pages:
    """The pages of a mapped file that a process holds; nothing for an array in memory.

    Args:
        pixels: the array, or a part of it.
        most: bytes of a map up to which all of it is held; of a larger one a quarter of that.
    """

    def __init__(self, pixels: Pixels, most: int = IN_MEMORY) -> None:
        held = _map(pixels)
        self._held = held if held is not None and len(held) > most and hasattr(mmap, "MADV_DONTNEED") else None
        self._most, self._touched = most, 0

    def touched(self, size: int) -> None:
        """Note that neighbouring images were read or written; when too many have been, all pages are released. What was written stays.

        Args:
            size: their bytes.
        """
        if self._held is not None:
            self._touched += size
            if self._touched > self._most // 4:
                self.release()

    def release(self) -> None:
        """Release all pages: nothing more will be read or written for now."""
        if self._held is not None:
            self._touched = 0
            self._held.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Rows:
    """Reads single images of an array, without holding others: a map of a large file by reads of the file.

    Attributes:
        pixels: uint8 [N, ...].
        most: bytes of a map up to which it is indexed.
    """

    pixels: Pixels
    most: int = IN_MEMORY

    @cached_property
    def _file(self) -> tuple[int, int] | None:
        """Descriptor, and the byte at which the array begins."""
        held = _map(self.pixels) if hasattr(os, "preadv") else None
        if held is None or held.descriptor is None or len(held) <= self.most or not self.pixels.flags.c_contiguous:
            return None
        return held.descriptor, self.pixels.ctypes.data - np.frombuffer(held, np.uint8).ctypes.data

    def __reduce__(self) -> tuple[type["Rows"], tuple[Pixels, int]]:
        """A copy, or another process, has pixels of its own: without the descriptor, which may be of another file there."""
        return Rows, (self.pixels, self.most)

    @property
    def large(self) -> bool:
        """Whether the file is read."""
        return self._file is not None

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """Images uint8 [n, ...] for int64 indices [n].

        Raises:
            RunFailed: the file became shorter.
        """
        if self._file is None:
            return self.pixels[rows]
        descriptor, start = self._file
        found = np.empty((len(rows), *self.pixels.shape[1:]), np.uint8)
        size, content = math.prod(found.shape[1:]), found.reshape(-1).data
        for at, row in enumerate(rows.tolist()):
            if os.preadv(descriptor, [content[at * size : (at + 1) * size]], start + row * size) != size:
                raise RunFailed("the file of images became shorter while it was read")
        return found


def blocks(pixels: Pixels, at_once: int = AT_ONCE) -> Iterator[Pixels]:
    """Go through images in blocks, and release those that were gone through.

    Args:
        pixels: uint8 [N, ...].
        at_once: bytes of a block.

    Yields:
        Contiguous uint8 [n, ...], for a short time: they are not to be kept.
    """
    step, pages = _step(pixels, at_once), Pages(pixels)
    for start in range(0, len(pixels), step):
        block = np.ascontiguousarray(pixels[start : start + step])
        yield block
        pages.touched(block.nbytes)
    pages.release()


def some(pixels: Pixels, rows: npt.NDArray[np.int64]) -> Iterator[Pixels]:
    """Go through some images, one at a time.

    Args:
        pixels: uint8 [N, ...].
        rows: int64 [n], which ones, in this order.

    Yields:
        Each image, uint8 [...].

    Raises:
        RunFailed: the file of `pixels` became shorter.
    """
    source, step = Rows(pixels), _step(pixels)
    for start in range(0, len(rows), step):
        yield from source[rows[start : start + step]]


def take(pixels: Pixels, rows: npt.NDArray[np.int64], folder: Path, most: int = IN_MEMORY) -> Pixels:
    """Copy some images, so that nothing of the others is referenced.

    Args:
        pixels: uint8 [N, ...].
        rows: int64 [n], which ones, in this order.
        folder: as for `empty`.
        most: bytes up to which the copy is in memory.

    Returns:
        uint8 [n, ...].

    Raises:
        RunFailed: as for `empty`.
    """
    chosen = empty((len(rows), *pixels.shape[1:]), folder, most)
    source, pages, step = Rows(pixels), Pages(chosen, most), _step(pixels)
    for start in range(0, len(rows), step):
        part = source[rows[start : start + step]]
        chosen[start : start + step] = part
        pages.touched(part.nbytes)
    pages.release()
    return chosen


def _step(pixels: Pixels, at_once: int = AT_ONCE) -> int:
    """Number of images in a block."""
    return max(1, at_once // max(1, math.prod(pixels.shape[1:])))


def _map(pixels: Pixels) -> _Map | None:
    """The map that an array is a view of."""
    held: object = pixels
    while isinstance(held, np.ndarray):
        held = held.base
    held = held.obj if isinstance(held, memoryview) else held
    return held if isinstance(held, _Map) else None
