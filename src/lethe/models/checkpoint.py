"""Weights on disk: safetensors written atomically, and files of other origin, read without running pickled code."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module

from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest

_hashes: dict[tuple[Path, int], str] = {}  # of the weights, by file and its modification time
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which checkpoints keep a state dict


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a safetensors file; equal content gives equal bytes.

    Args:
        tensors: by name, on any device.
        path: of the file; its folder is created.
        metadata: texts by key.

    Raises:
        RunFailed: the file could not be written.
    """
    # state_dict() is a view of the live weights, and safetensors takes contiguous CPU tensors
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(plain, temporary, dict(metadata))
            _sort_metadata(temporary)
        except SafetensorError as error:  # how the writer wraps an input/output error
            raise OSError(str(error)) from error


def _sort_metadata(path: Path) -> None:
    """Sort metadata in the header: the writer orders it by a hash that changes with the process."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def load(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Args:
        path: of the file.
        device: where the tensors are put.

    Raises:
        UserError: the file is missing, truncated or not safetensors.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError, struct.error) as error:
        raise UserError(f"{path} can't be read as safetensors: {error}") from None


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


def metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its tensors; {} where it has none.

    Raises:
        UserError: the file is missing, truncated or not safetensors; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} can't be read as safetensors: {error}") from None


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash a state dict: SHA-256 over names, shapes, types and bytes, sorted by name."""
    parts: list[bytes | str] = []
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        parts += [f"{name} {value.dtype} {tuple(value.shape)}", value.numpy().tobytes()]
    return digest(parts)


def fit(model: Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a model.

    Args:
        model: is changed.
        tensors: by name, as its `state_dict()` has them.
        source: of the tensors, for errors.

    Raises:
        UserError: names what is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    head = [name for name, value in wanted.items() if name.endswith("bias") and value.dim() == 1]
    for name in head[-1:]:  # the last by the model's order: a file may have another
        if name in tensors and tensors[name].shape != wanted[name].shape:
            raise UserError(f"{source} was made for {tensors[name].numel()} classes, the data has {len(wanted[name])}")
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    if missing or unexpected:
        faults = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has also", unexpected)) if names]
        raise UserError(f"{source} does not fit the model: it {' and '.join(faults)}: another architecture?")
    for name, value in wanted.items():
        if value.shape != tensors[name].shape:
            shapes = ["x".join(map(str, t.shape)) or "a number" for t in (tensors[name], value)]
            raise UserError(f"{source}: {name} is {shapes[0]} in the file, {shapes[1]} in the model: another architecture?")
    model.load_state_dict(dict(tensors))


def foreign(spec: str, base: Path, downloads: Path) -> tuple[dict[str, Tensor], str]:
    """Read a state dict of other origin.

    Args:
        spec: `<file>` or `<URL>#sha256=<sum>`: .safetensors, or what torch.load reads with weights_only.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.

    Returns:
        Tensors by name (without the prefix "module." of DataParallel), and the file's SHA-256.

    Raises:
        UserError: there is no such file, it can't be downloaded, or holds no state dict.
    """
    path = _fetched(spec, downloads) if "://" in spec else base / Path(spec).expanduser()
    if not path.is_file():
        raise UserError(f"{spec} is not a file; it takes a .pth or .safetensors file, or <URL>#sha256=<sum>")
    try:
        return _state_dict(path, spec), digest_file(path)
    except UserError:
        if "://" in spec:  # what is mended at its address must be downloaded again
            path.unlink(missing_ok=True)
        raise


def _state_dict(path: Path, spec: str) -> dict[str, Tensor]:
    tree = load(path)[0] if path.suffix == ".safetensors" else _unpickled(path, spec)
    for _ in WRAPPERS:
        tree = next((tree[name] for name in WRAPPERS if isinstance(tree, dict) and isinstance(tree.get(name), dict)), tree)
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise UserError(f"{spec} holds no state dict (a mapping from names to tensors){_instead(tree)}")
    return {name.removeprefix("module."): value for name, value in tree.items()}


def foreign_hash(spec: str, base: Path, downloads: Path) -> str | None:
    """Return the SHA-256 of a file of other origin, without downloading it; None where there is no file and no sum to go by.

    Args:
        spec: as `foreign` takes it.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.
    """
    url, _, sum_ = spec.partition("#sha256=") if "://" in spec else ("", "", "")
    path = _download(url, downloads) if url else base / Path(spec).expanduser()
    return sum_.lower() or (digest_file(path) if path.is_file() else None)


def _unpickled(path: Path, spec: str) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways, which mean one of two things
        if "GLOBAL" in str(error):
            raise UserError(
                f"{spec} holds more than weights (a whole model?), and pickled code is not run; it takes what "
                "torch.save(model.state_dict(), ...) writes, or .safetensors"
            ) from None
        raise UserError(f"{spec} is cut short, or was not written by torch.save; it takes a saved state dict, or .safetensors") from None


def _instead(tree: Any) -> str:
    """Describe what a file holds in place of a state dict."""
    if not isinstance(tree, dict):
        return f", but a {type(tree).__name__}"
    named = [name for name, value in tree.items() if isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values())]
    if named:
        keys, accepted = ", ".join(map(repr, named)), " or ".join(map(repr, WRAPPERS))
        return f"; there is one under the key {keys}: save that alone, or under {accepted}"
    return f", but {_few([repr(name) for name in tree])}" if tree else ", it is empty"


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(spec: str, downloads: Path) -> Path:
    from torch.hub import download_url_to_file

    url, _, sum_ = spec.partition("#sha256=")
    path = _download(url, downloads)
    if not path.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(path), progress=False)
        except Exception as error:  # urllib, sockets, TLS: the user needs the address and the reason
            if isinstance(error, HTTPError):
                error.close()
            raise UserError(f"{url} can't be downloaded: {error}") from None
    actual = digest_file(path)
    if sum_ and actual != sum_.lower():
        path.unlink()
        raise UserError(f"{url}: its SHA-256 is {actual}, not {sum_}")
    return path


def _download(url: str, downloads: Path) -> Path:
    return downloads / f"{digest([url])[:12]}-{urlsplit(url).path.rsplit('/', 1)[-1]}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
