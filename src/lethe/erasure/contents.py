"""What a file holds of erased images: their ids, their pixels, or a model that learned them, whatever the file is called."""

import base64
import binascii
import io
import json
import re
import sqlite3
import zipfile
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.data.images import load_images
from lethe.erasure.sought import Sought
from lethe.models import checkpoint

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_BASE64 = re.compile(rb"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/=\s\\n]{40,}")  # PNG, JPEG, GIF, WebP
LARGEST_MEMBER = 2**28  # bytes of a member of an archive that is read into memory
DEEPEST = 3  # archives in archives that are opened; a file may be made to go on for ever


@dataclass(frozen=True)
class Found:
    """How much of what is sought a file holds: numbers of ids, images and models."""

    ids: int = 0
    pixels: int = 0
    models: int = 0

    def __bool__(self) -> bool:
        return bool(self.ids or self.pixels or self.models)

    def __add__(self, other: "Found") -> "Found":
        return Found(self.ids + other.ids, self.pixels + other.pixels, self.models + other.models)

    def at_least(self, pixels: int) -> "Found":
        """The same with at least so many images: thumbnails are found as such, and also as images where they have their size."""
        return Found(self.ids, max(self.pixels, pixels), self.models)

    def __str__(self) -> str:
        """Say it in words.

        >>> str(Found(ids=2, models=1))
        '2 ids, 1 model'
        """
        parts = ((self.ids, "id"), (self.pixels, "image"), (self.models, "model"))
        return ", ".join(f"{number:,} {word}{'s' if number > 1 else ''}" for number, word in parts if number)


def examine(path: Path, sought: Sought) -> Found:
    """Look into a file.

    Args:
        path: any file; its name does not matter.
        sought: what is looked for.

    Returns:
        What it holds. ZIP archives are looked into, DEEPEST in one another and members up to LARGEST_MEMBER; encrypted and otherwise
        compressed files are not.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        try:
            return _safetensors(path, sought)
        except UserError:
            pass  # a text, or another format: its bytes are searched
    if head.startswith(b"SQLite format 3\0"):
        return _database(path, sought) + Found(ids=len(sought.ids_in(path.read_bytes())))
    return _content(path.read_bytes(), sought)


def card_thumbnails(path: Path, sought: Sought) -> int:
    """Count the thumbnails of the requests on a card, which may be smaller than the images.

    Args:
        path: of the card's JSON.
        sought: what is looked for. A card of an earlier version does not say which request it is of; its thumbnails count.
    """
    content = read_json(path)
    request = content.get("request", {}) if isinstance(content, dict) else {}
    mine = request.get("hash") in {one.request for one in sought.erasures} or "key" not in request
    return len(request.get("thumbnails", ())) if mine else 0


def _content(content: bytes, sought: Sought, depth: int = 0) -> Found:
    if content.startswith(b"PK\3\4") and depth < DEEPEST:
        return _archive(content, sought, depth + 1)
    if content.startswith(_PICTURES):
        return Found(pixels=int(_shows(content, sought)))
    pictures = {match[0] for match in _BASE64.finditer(content)}
    shown = sum(_shows(_decoded(picture), sought) for picture in pictures)
    return Found(ids=len(sought.ids_in(content)), pixels=shown, models=int(sought.has_tensor(content)))


def _safetensors(path: Path, sought: Sought) -> Found:
    about = checkpoint.metadata(path)
    if "images" in about:
        images, _ = load_images(path)
        pixels = sum(sought.has_pixels(one) for one in images.pixels)
        return Found(ids=sum(map(sought.has_id, images.ids)), pixels=pixels)
    if "ids" in about:
        return Found(ids=sum(map(sought.has_id, json.loads(about["ids"]))))
    tensors, _ = checkpoint.load(path)
    learned = sought.learned(checkpoint.weights_hash(tensors), about)
    if not learned and "kind" not in about:  # the same weights under other names
        learned = any(sought.has_tensor(value.contiguous().reshape(-1).numpy().tobytes()) for value in tensors.values())
    texts = "\n".join([*about.values(), *about]).encode()
    return Found(ids=len(sought.ids_in(texts)), models=int(learned))


def _archive(content: bytes, sought: Sought, depth: int) -> Found:
    """A ZIP: what torch.save and torch.export write, NumPy's .npz, office documents."""
    found = Found()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if member.file_size <= LARGEST_MEMBER and not member.flag_bits & 1:
                    found += _content(archive.read(member), sought, depth)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError):  # a damaged one is searched as it is
        return Found(ids=len(sought.ids_in(content)))
    return Found(found.ids, found.pixels, min(found.models, 1))


def _database(path: Path, sought: Sought) -> Found:
    """The texts of a SQLite database, cell by cell: in the file's bytes two cells follow each other without a separator."""
    ids: set[str] = set()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            for table in tables:
                quoted = table.replace('"', '""')
                for row in database.execute(f'select * from "{quoted}"'):
                    for cell in row:
                        if isinstance(cell, str | bytes):
                            ids |= sought.ids_in(cell.encode() if isinstance(cell, str) else cell)
    except sqlite3.Error:
        pass  # its bytes are searched as well
    return Found(ids=len(ids))


def _decoded(text: bytes) -> bytes:
    text = re.sub(rb"\\n|\s", b"", text)
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def _shows(content: bytes, sought: Sought) -> bool:
    """Whether a picture has the pixels of an erased image, in any way in which a workspace's source may read it."""
    from PIL import Image

    from lethe.data.decoding import DEPTHS, RESIZES, to_pixels

    try:
        with Image.open(io.BytesIO(content)) as opened:
            fits = [(resize, bits) for resize in RESIZES for bits in (DEPTHS if opened.mode.startswith("I") else (16,))]
            readings = (to_pixels(opened, sought.size, resize, bits) for resize, bits in fits)
            return any(sought.has_pixels(np.ascontiguousarray(pixels.transpose(2, 0, 1))) for pixels in readings)
    except Exception:  # PIL's readers raise nearly anything for a file that is no image
        return False
