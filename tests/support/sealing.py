"""Our safetensors files, by the library's writer."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lethe._util import integrity


def written(save_file: Callable[..., Any], tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str]) -> bytes:
    """What `integrity.write` must write: the file of the library's `save_file`, with sorted metadata and its hash among them."""
    save_file(dict(tensors), path, {**metadata, integrity.FILE_KEY: integrity.BLANK})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # the library orders them by a hash that changes with the process
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    blank = content[:8] + text + content[8 + length :]
    return blank.replace(integrity.BLANK.encode(), hashlib.sha256(blank).hexdigest().encode(), 1)
