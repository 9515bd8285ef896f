"""Logits of more images and classes than memory holds: they stay in their file, and are gone through a block of rows at a time.

Values of one image depend on its row alone, so they are the same to the bit whatever the blocks. N images, C classes."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from lethe._util import integrity
from lethe._util.files import atomic_write
from lethe._util.integrity import Pieces, Stored
from lethe.data import pixel_store
from lethe.data.pixel_store import Pages, Rows

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

IN_MEMORY = 2**26  # bytes of an array up to which it is read into memory
AT_ONCE = 2**22  # bytes of logits in a block; as float64, with what is computed from them, some thirty times that
TYPES = {  # as the format calls them -> NumPy's
    **{"U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "F16": "<f2"},
    **{"U16": "<u2", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"},
}
_NAMES = {np.dtype(type_): name for name, type_ in TYPES.items()}


def blocks(array_NC: Array) -> Iterator[slice]:
    """Go through the rows of an array in order, and release the pages of its file that were gone through.

    Args:
        array_NC: [N, ...].

    Yields:
        Slices of rows; one of all where the array is small, also where it has none.
    """
    step, pages = _step(array_NC), Pages(array_NC, IN_MEMORY)
    for start in range(0, max(1, len(array_NC)), step):
        part = slice(start, min(start + step, len(array_NC)))
        yield part
        pages.touched(array_NC[part].nbytes)
    pages.release()


def parts(rows: Ints, array_NC: Array, tables: int = 1) -> Iterator[Ints]:
    """Divide rows into as many as a block has.

    Args:
        rows: int64 [n].
        array_NC: [N, ...], whose rows they are.
        tables: number of arrays whose rows are looked at together.

    Yields:
        int64; all of them where they are few enough of one array.
    """
    step = _step(array_NC)
    if len(rows) > step:
        step = max(1, step // tables)
    for start in range(0, max(1, len(rows)), step):
        yield rows[start : start + step]


def over(rows: Ints, array_NC: Array, compute: Callable[[Ints], Array], tables: int = 1) -> Array:
    """Compute values of images that depend on their rows alone, for a block's number of rows at a time.

    Args:
        rows: int64 [n].
        array_NC: [N, ...], whose rows they are.
        compute: takes some of the rows, returns a value for each, [..., rows].
        tables: as in `parts`.

    Returns:
        [..., n].
    """
    return np.concatenate([compute(part) for part in parts(rows, array_NC, tables)], axis=-1)


def gather(array_NC: Array, rows: Ints) -> Array:
    """Copy some rows [n, ...] of an array; from a large file by reading them, so that no others are held."""
    if not array_NC.flags.c_contiguous or not len(array_NC) or array_NC.ndim < 2:
        return array_NC[rows]
    stored = Rows(array_NC.reshape(len(array_NC), -1).view(np.uint8), IN_MEMORY)
    if not stored.large:
        return array_NC[rows]
    found: Array = stored[rows].view(array_NC.dtype).reshape(len(rows), *array_NC.shape[1:])
    return found


def equal(one_NC: Array, other_NC: Array) -> bool:
    """Whether two arrays have the same shape and values, found at the first block that differs."""
    both = zip(blocks(one_NC), blocks(other_NC), strict=True)  # each releases the pages of its own file
    return one_NC.shape == other_NC.shape and all(np.array_equal(one_NC[part], other_NC[part]) for part, _ in both)


def finite(array_NC: Array) -> npt.NDArray[np.bool_]:
    """Whether all values of a row are finite, bool [N]."""
    others = tuple(range(1, array_NC.ndim))
    return np.concatenate([np.isfinite(array_NC[part]).all(axis=others) for part in blocks(array_NC)])


def as_pieces(array_NC: Array) -> Pieces:
    """The bytes of an array in C order, a block at a time."""
    return Pieces(array_NC.nbytes, (np.ascontiguousarray(array_NC[part]).reshape(-1).view(np.uint8).data for part in blocks(array_NC)))


def _step(array_NC: Array) -> int:
    return max(1, AT_ONCE // max(1, array_NC[:1].nbytes))


# --- files ------------------------------------------------------------------------------------------------------------


def write(arrays: Mapping[str, Array], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file a block of rows at a time; the bytes are the library's.

    Args:
        arrays: by name.
        path: of the file; its folder is created.
        metadata: texts by key.

    Raises:
        RunFailed: the file could not be written.
    """
    stored = {name: Stored(_NAMES[array.dtype], array.shape, as_pieces(array)) for name, array in arrays.items()}
    with atomic_write(path, size=sum(array.nbytes for array in arrays.values())) as temporary:
        integrity.write(temporary, stored, metadata)


def read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file whose large arrays stay in it, mapped and read-only.

    Args:
        path: of the file.

    Returns:
        Arrays by name; metadata by key, without the file's own hash.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it can't be read.
        Damaged: it is not what it was when it was written.
    """
    before = path.stat()
    with safe_open(path, framework="np") as library, path.open("rb") as file:
        integrity.check(path)
        entries, start = integrity.header(path)
        about = {key: text for key, text in (library.metadata() or {}).items() if key != integrity.FILE_KEY}
        arrays: dict[str, Array] = {}
        names = library.keys()  # of a file, which is no mapping
        for name in names:
            stored = entries[name]
            first, end = stored["data_offsets"]
            if end - first > IN_MEMORY and stored["dtype"] in TYPES:
                mapped = pixel_store.mapped(file, start + first, [end - first])
                arrays[name] = mapped.view(TYPES[stored["dtype"]]).reshape(stored["shape"])
            else:
                arrays[name] = library.get_tensor(name)
        opened = os.fstat(file.fileno())
    if not os.path.samestat(before, opened) or not os.path.samestat(before, path.stat()):
        return read(path)  # replaced meanwhile: one version of it
    return arrays, about
