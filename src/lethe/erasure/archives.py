"""Members of archives and compressed files, of whatever kind the standard library reads: ZIP, tar, gzip, bzip2, xz."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

LARGEST_MEMBER = 2**28  # bytes of a member that is read into memory
DEEPEST = 3  # archives in archives that are opened; a file may be made to go on for ever
ENCRYPTED, LARGE, DEEP = "encrypted", f"over {LARGEST_MEMBER >> 20} MiB", f"more than {DEEPEST} archives deep"
# First bytes of archives that nothing here opens
CLOSED = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"\x04\x22\x4d\x18": "LZ4"}
_STREAMS: dict[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError, EOFError, OSError)


def is_archive(content: bytes) -> bool:
    """Whether `members` opens it, by its first bytes."""
    return content.startswith((b"PK\3\4", *_STREAMS)) or content[257:262] == b"ustar"


def members(content: bytes) -> Iterator[tuple[str, bytes | str]]:
    """Iterate over an archive's members, or the one of a compressed file.

    Args:
        content: of the file.

    Yields:
        The member's name, of a link also what it leads to, and its content; of one that is not read the reason: ENCRYPTED or LARGE.

    Raises:
        One of DAMAGED: the archive or a member is damaged, or compressed in a way that is not known here.
    """
    if content.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if member.flag_bits & 1:
                    yield member.filename, ENCRYPTED
                else:
                    yield member.filename, LARGE if member.file_size > LARGEST_MEMBER else archive.read(member)
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as files:
            for entry in files:
                if entry.isfile() and (file := files.extractfile(entry)):
                    yield entry.name, LARGE if entry.size > LARGEST_MEMBER else file.read()
                else:
                    yield f"{entry.name}\n{entry.linkname}", b""
    else:
        opened = next(stream for head, stream in _STREAMS.items() if content.startswith(head))
        with opened(io.BytesIO(content)) as file:
            found = file.read(LARGEST_MEMBER + 1)
        yield _gzip_name(content), LARGE if len(found) > LARGEST_MEMBER else found


def _gzip_name(content: bytes) -> str:
    """The name of the file that gzip compressed, which it notes after ten bytes (RFC 1952); "" where it did not."""
    noted = content.startswith(b"\x1f\x8b") and content[3] & 12 == 8  # a name, and no other field before it
    return content[10 : content.find(b"\0", 10)].decode("utf-8", "surrogateescape") if noted else ""
