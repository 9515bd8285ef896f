"""Hashes that files carry of their own content, so that a damaged file is noticed when it is read.

They show that a file was altered by accident. Whoever alters a file on purpose can state another hash: against that, cards are signed.
Files of versions before this had none; they are read as they are.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lethe._util.checkout import command
from lethe._util.errors import UserError

FORMAT = 1  # of every file but scores, which have their own; written from 2 on, as `format`, so that files of format 1 keep their bytes
KEY = "sha256"  # among the keys of a JSON file
FILE_KEY = "content_sha256"  # in the metadata of a safetensors file: there `sha256` is that of the file a model was given as
LARGEST_HEADER = 100_000_000  # bytes, as the library has it
BLANK = "0" * 64  # what the hash of a safetensors file is computed with in place of itself


# Types of the format, in the order in which the library writes arrays: most bytes first, within a type by name
TYPES = (
    *("U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16"),
    *("F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"),
)


class Pieces(NamedTuple):
    """Bytes that need not be in memory all at once."""

    size: int  # of all of them together
    pieces: Iterable[bytes | memoryview]


class Stored(NamedTuple):
    """An array of a safetensors file: type as the format calls it (I64, U8), shape, bytes in C order, little-endian."""

    dtype: str
    shape: Sequence[int]
    content: Pieces


class Damaged(UserError):
    """A file is not what was written.

    Attributes:
        path: of the file.
        reason: after its name: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} {reason}; `{command('verify')}` says what makes it again")

    def __reduce__(self) -> tuple[type["Damaged"], tuple[Path, str]]:
        return Damaged, (self.path, self.reason)


def refuse_newer(stated: object, name: str, newest: int = 0) -> None:
    """Refuse what a later version wrote in a form that this one does not know.

    Args:
        stated: the file's `format`, as read; files of format 1 state none.
        name: of the file.
        newest: format that this version reads; 0: FORMAT.

    Raises:
        UserError: it is above that.
    """
    number = int(stated) if isinstance(stated, str) and stated.isdecimal() and stated.isascii() and len(stated) < 9 else stated
    if isinstance(number, int) and number > (newest or FORMAT):
        raise UserError(f"{name} has format {number}, of a later version of Lethe; this one reads up to format {newest or FORMAT}")


def write(path: Path, arrays: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with its hash piece by piece, where the library takes only what is in memory; the bytes are the library's.

    Args:
        path: of the file.
        arrays: by name, in any order.
        metadata: texts by key, without FILE_KEY.

    Raises:
        OSError: it can't be written.
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted({**metadata, FILE_KEY: BLANK}.items()))}
    end, ordered = 0, sorted(arrays.items(), key=lambda item: (TYPES.index(item[1].dtype), item[0]))
    for name, array in ordered:
        entries[name] = {"dtype": array.dtype, "shape": list(array.shape), "data_offsets": [end, end := end + array.content.size]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header = text.ljust(-(-len(text) // 8) * 8)  # the data begin at a multiple of 8
    start = struct.pack("<Q", len(header)) + header
    sha = hashlib.sha256(start)
    with path.open("wb") as file:
        file.write(start)
        for _, array in ordered:
            for piece in array.content.pieces:
                sha.update(piece)
                file.write(piece)
        file.seek(_place_of_hash(text))
        file.write(sha.hexdigest().encode())


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place_of_hash(header: bytes) -> int:
    return 8 + header.index(f'"{FILE_KEY}":"{BLANK}"'.encode()) + len(f'"{FILE_KEY}":"')


def header(path: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file that was checked.

    Returns:
        Its entries by name, and the byte at which the data begin.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries: dict[str, Any] = json.loads(file.read(length))
        return entries, 8 + length


def check(path: Path) -> bool:
    """Compare a safetensors file with the hash in its metadata.

    Returns:
        Whether it has one; a file of another program, or of an earlier version, has none.

    Raises:
        Damaged: the file is not what it was when it was written.
        OSError, ValueError: it can't be read, or has no header.
    """
    stated, whole = _hashes(path)
    if stated and whole != stated:
        raise Damaged(path, "is damaged: its content does not have the SHA-256 that it states")
    return bool(stated)


def _hashes(path: Path) -> tuple[str, str]:
    """The hash that a safetensors file states, "" if it states none, and the hash of its bytes with BLANK in the place of that."""
    with path.open("rb") as file:
        length = file.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        if size > LARGEST_HEADER:
            raise ValueError(f"it says that its header has {size:,} bytes")
        content = json.loads(header := file.read(size) or b"{}")
        metadata = content.get("__metadata__", {}) if isinstance(content, dict) else None
        if not isinstance(metadata, dict):
            raise ValueError("its header has another form")
        refuse_newer(metadata.get("format"), str(path))
        stated = str(metadata.get(FILE_KEY, ""))
        if len(stated) != len(BLANK):
            return "", ""
        own, blank = (f'"{FILE_KEY}":"{text}"'.encode() for text in (stated, BLANK))
        sha = hashlib.sha256(length + header.replace(own, blank, 1))
        while part := file.read(1 << 22):
            sha.update(part)
    return stated, sha.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with its own hash.

    >>> sealed({"accuracy": 91.5})["sha256"][:12]
    '0de5c31d5e9f'
    """
    return {**content, KEY: _of_json(content)}


def check_json(content: Mapping[str, Any], name: str) -> bool:
    """Compare the content of a JSON file with the hash in it.

    Args:
        content: as read.
        name: of the file.

    Returns:
        Whether it has a hash.

    Raises:
        Damaged: the content is not what it was when it was written.
    """
    if KEY in content and content[KEY] != _of_json({key: value for key, value in content.items() if key != KEY}):
        raise Damaged(Path(name), "is damaged or was edited: its content does not have the SHA-256 that it states")
    return KEY in content


def _of_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
