"""Weights on disk: safetensors, written atomically. Files of other origin are read by `foreign`."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lethe._util import integrity, manifest
from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest
from lethe._util.integrity import Pieces, Stored

DTYPES = {  # of torch -> of the format; bench/gpu.py runs with an older torch, which lacks some
    getattr(torch, name): code
    for name, code in {
        "uint64": "U64",
        "int64": "I64",
        "float64": "F64",
        "complex64": "C64",
        "float32": "F32",
        "uint32": "U32",
        "int32": "I32",
        "bfloat16": "BF16",
        "float16": "F16",
        "uint16": "U16",
        "int16": "I16",
        "float8_e5m2fnuz": "F8_E5M2FNUZ",
        "float8_e4m3fnuz": "F8_E4M3FNUZ",
        "float8_e8m0fnu": "F8_E8M0",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
        "int8": "I8",
        "uint8": "U8",
        "bool": "BOOL",
    }.items()
    if hasattr(torch, name)
}

_hashes: dict[tuple[Path, int], str] = {}  # of the weights, by file and its modification time


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a safetensors file; equal content gives equal bytes.

    The bytes are those of the library's writer, which makes a copy of all tensors, and a temporary file of its own that a kill leaves.

    Args:
        tensors: by name, on any device.
        path: of the file; its folder is created.
        metadata: texts by key.

    Raises:
        RunFailed: the file could not be written.
    """
    with atomic_write(path, size=sum(value.nbytes for value in tensors.values())) as temporary:
        integrity.write(temporary, {name: _stored(tensor) for name, tensor in tensors.items()}, metadata)


def _stored(tensor: Tensor) -> Stored:
    return Stored(DTYPES[tensor.dtype], tuple(tensor.shape), Pieces(tensor.nbytes, _bytes(tensor)))


def _bytes(tensor: Tensor) -> Iterator[memoryview]:
    """Only when it is written: so no more than one tensor is copied at a time."""
    plain = tensor.detach().cpu().contiguous()
    yield plain.reshape(-1).view(torch.uint8).numpy().data


def load(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Args:
        path: of the file.
        device: where the tensors are put.

    Returns:
        Tensors by name; metadata by key, without what the file's own integrity check adds.

    Raises:
        UserError: the file is missing, truncated, not safetensors, or not what it was when it was written.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            integrity.check(path)
            return {name: file.get_tensor(name) for name in file.keys()}, _own(file.metadata())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise manifest.unreadable(path, f"can't be read as safetensors: {error}") from None


def _own(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata as they were given to `save`."""
    return {key: value for key, value in (metadata or {}).items() if key != integrity.FILE_KEY}


def save_model(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> str:
    """Save the weights of a model.

    Args:
        tensors: a state dict.
        path: the safetensors file.
        metadata: what the file says of itself.

    Returns:
        The hash of the weights.

    Raises:
        RunFailed: the disk refuses; the message names the file.
    """
    save(tensors, path, metadata)
    hash_ = _hashes[path, path.stat().st_mtime_ns] = weights_hash(tensors)
    return hash_


def model_hash(path: Path) -> str:
    """Return the hash of the weights in a file. It is computed once a process while the file does not change: what the metadata says of
    the weights would not show that they were exchanged.

    Raises:
        UserError: the file is missing, truncated or no safetensors; the message names it.
    """
    key = (path, path.stat().st_mtime_ns) if path.exists() else (path, 0)
    if key not in _hashes:
        _hashes[key] = weights_hash(load(path)[0])
    return _hashes[key]


def save_copy(path: Path, to: Path, metadata: Mapping[str, str]) -> None:
    """Save the same tensors with other metadata.

    Args:
        path: of a safetensors file.
        to: of the copy.
        metadata: what the copy says of itself.

    Raises:
        UserError: the file is missing, truncated or not safetensors.
        RunFailed: the copy could not be written.
    """
    save(load(path)[0], to, metadata)


def metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its tensors; {} where it has none.

    Raises:
        UserError: the file is missing, truncated or not safetensors; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = _own(file.metadata())
        integrity.refuse_newer(found.get("format"), str(path))
        return found
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise manifest.unreadable(path, f"can't be read as safetensors: {error}") from None


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash a state dict: SHA-256 over names, shapes, types and bytes, sorted by name."""
    return digest(_parts(tensors))


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | str]:
    """What is hashed, one tensor at a time: all at once they would take the memory of the model again."""
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        yield f"{name} {value.dtype} {tuple(value.shape)}"
        yield value.numpy().tobytes()
