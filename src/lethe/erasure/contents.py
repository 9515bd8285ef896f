"""What a file holds of erased images: their ids, their pixels, or a model that learned them, whatever the file is called."""

import base64
import binascii
import io
import json
import re
import sqlite3
import tempfile
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.data.images import load_images
from lethe.data.pixel_store import blocks
from lethe.erasure import archives
from lethe.erasure.sought import Sought
from lethe.models import checkpoint

_DATABASE = b"SQLite format 3\0"
# First bytes of files with pictures that nothing here decodes, from a position on
_CLOSED = {
    (0, b"8BPS"): "Photoshop",
    (0, b"%PDF"): "PDF",
    (0, b"\xff\x0a"): "JPEG XL",
    (4, b"JXL "): "JPEG XL",
    (4, b"ftyphe"): "HEIF",
    (4, b"ftypmif1"): "HEIF",
    (4, b"ftypavif"): "AVIF",  # where PIL was built without it
}
_UNMARKED = "TGA"  # a format without first bytes of its own: whatever fails to decode as such is none
_BASE64 = re.compile(rb"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/=\s\\n]{40,}")  # PNG, JPEG, GIF, WebP


@dataclass(frozen=True)
class Found:
    """How much of what is sought a file holds: numbers of ids, images, models, and images that look like one of them (near)."""

    ids: int = 0
    pixels: int = 0
    models: int = 0
    near: int = 0

    def __bool__(self) -> bool:
        return bool(self.certain or self.near)

    def __add__(self, other: "Found") -> "Found":
        return Found(self.ids + other.ids, self.pixels + other.pixels, self.models + other.models, self.near + other.near)

    @property
    def certain(self) -> bool:
        """Whether it holds something for sure. A near copy may be another image, so that nothing is deleted because of one."""
        return bool(self.ids or self.pixels or self.models)

    def at_least(self, pixels: int) -> "Found":
        """The same with at least so many images: thumbnails are found as such, and also as images where they have their size."""
        return Found(self.ids, max(self.pixels, pixels), self.models, self.near)

    def __str__(self) -> str:
        """Say it in words.

        >>> str(Found(ids=2, models=1, near=1))
        '2 ids, 1 model, 1 near copy'
        """
        parts = [(self.ids, "id", "ids"), (self.pixels, "image", "images"), (self.models, "model", "models")]
        parts += [(self.near, "near copy", "near copies")]
        return ", ".join(f"{number:,} {many if number > 1 else one}" for number, one, many in parts if number)


LOOK = "look at it: it may show an erased image, changed, or another one; delete it if it does"  # advice on a file with near copies alone


def examine(path: Path, sought: Sought, name: str = "") -> Found:
    """Look into a file.

    Args:
        path: any file; its name does not matter.
        sought: what is looked for.
        name: by which what is passed over is noted; "": the path.

    Returns:
        What it holds. Archives and compressed files are looked into (archives.py); what is passed over is noted in `sought.unread`.

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
    content = path.read_bytes()
    if head.startswith(_DATABASE):
        return _database(path, sought) + Found(ids=len(sought.ids_in(content)))
    return _noting(content, sought, name or str(path))


def examine_bytes(content: bytes, sought: Sought, name: str) -> Found:
    """Look into the content of a file that is not on this disk; as `examine`.

    Args:
        content: of the file, in full.
        sought: what is looked for.
        name: by which what is passed over is noted.

    Returns:
        What it holds.
    """
    if content[8:9] != b"{" and not content.startswith(_DATABASE):
        return _noting(content, sought, name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "content")
        copy.write_bytes(content)
        return examine(copy, sought, name)


def card_thumbnails(path: Path, sought: Sought) -> int:
    """Count the thumbnails of the requests on a card, which may be smaller than the images.

    Args:
        path: of the card's JSON.
        sought: what is looked for. A card of an earlier version does not say which request it is of; its thumbnails count.

    Returns:
        Their number; 0 for a card of another request.
    """
    content = read_json(path)
    request = content.get("request", {}) if isinstance(content, dict) else {}
    mine = request.get("hash") in {one.request for one in sought.erasures} or "key" not in request
    return len(request.get("thumbnails", ())) if mine else 0


def _noting(content: bytes, sought: Sought, name: str) -> Found:
    passed_over = Counter[str]()
    found = _content(content, sought, passed_over)
    if passed_over:
        sought.unread[name] = ", ".join(f"{number} {what}" for what, number in passed_over.items())
    return found


def _content(content: bytes, sought: Sought, passed_over: Counter[str], depth: int = 0) -> Found:
    if archives.is_archive(content):
        if depth < archives.DEEPEST:
            return _archive(content, sought, passed_over, depth + 1)
        passed_over[archives.DEEP] += 1
    for head, kind in archives.CLOSED.items():
        if content.startswith(head):
            passed_over[f"{kind} archive"] += 1
    pictures = {match[0] for match in _BASE64.finditer(content)}
    shown = sum((_shows(one, sought, passed_over) for one in (content, *map(_decoded, pictures))), Found())
    return shown + Found(ids=len(sought.ids_in(content)), models=int(sought.has_tensor(content)))


def _safetensors(path: Path, sought: Sought) -> Found:
    about = checkpoint.metadata(path)
    if "images" in about:
        images, _ = load_images(path)
        pixels = sum(sought.has_pixels(one) for block in blocks(images.pixels) for one in block)
        return Found(ids=sum(map(sought.has_id, images.ids)), pixels=pixels)
    if "ids" in about:
        return Found(ids=sum(map(sought.has_id, json.loads(about["ids"]))))
    tensors, _ = checkpoint.load(path)
    learned = sought.learned(checkpoint.weights_hash(tensors), about)
    if not learned and "kind" not in about:  # the same weights under other names
        learned = any(sought.has_tensor(value.contiguous().reshape(-1).numpy().tobytes()) for value in tensors.values())
    texts = "\n".join([*about.values(), *about]).encode()
    return Found(ids=len(sought.ids_in(texts)), models=int(learned))


def _archive(content: bytes, sought: Sought, passed_over: Counter[str], depth: int) -> Found:
    """Also what torch.save and torch.export write, NumPy's .npz, office documents."""
    found = Found()
    try:
        for name, member in archives.members(content):
            found += Found(ids=len(sought.ids_in(name.encode("utf-8", "surrogateescape"))))
            if isinstance(member, str):
                passed_over[f"{member} member" if member == archives.ENCRYPTED else f"member {member}"] += 1
            else:
                found += _content(member, sought, passed_over, depth)
    except archives.DAMAGED:  # a damaged one is searched as it is
        found += Found(ids=len(sought.ids_in(content)))
        passed_over["damaged archive"] += 1
    return Found(found.ids, found.pixels, min(found.models, 1), found.near)


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


def _shows(content: bytes, sought: Sought, passed_over: Counter[str]) -> Found:
    """Whether this is a picture with the pixels of an erased image, or nearly with them, in any way in which a workspace's source may read
    it, or with an id in what it says of itself, which may be compressed."""
    from PIL import Image

    from lethe.data.decoding import DEPTHS, LARGEST, RESIZES, formats, to_pixels

    kind = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # LARGEST is the limit
            opened = Image.open(io.BytesIO(content), formats=formats())
        with opened:
            kind = str(opened.format)
            if opened.width * opened.height > LARGEST:
                raise Image.DecompressionBombError
            fits = [(resize, bits) for resize in RESIZES for bits in (DEPTHS if opened.mode.startswith("I") else (16,))]
            read = (to_pixels(opened, sought.size, resize, bits) for resize, bits in fits)
            readings = [np.ascontiguousarray(pixels.transpose(2, 0, 1)) for pixels in read]
            said = [text.encode() if isinstance(text, str) else text for text in opened.info.values() if isinstance(text, str | bytes)]
    except Image.DecompressionBombError:
        passed_over["picture too large to decode"] += 1
        return Found()
    except Exception:  # PIL's readers raise nearly anything for a file that is no image
        if kind not in ("", _UNMARKED):
            passed_over[f"{kind} picture that can't be decoded"] += 1
        elif closed := next((name for (at, head), name in _CLOSED.items() if content.startswith(head, at)), ""):
            passed_over[f"{closed} file"] += 1
        return Found()
    named = {id_ for text in said for id_ in sought.ids_in(text)} - sought.ids_in(content)  # those are counted already
    if any(map(sought.has_pixels, readings)):
        return Found(ids=len(named), pixels=1)
    return Found(ids=len(named), near=int(any(map(sought.is_near, readings))))
