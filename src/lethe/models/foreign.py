"""Files of weights of other origin: told apart by their content, and read without running code that they hold."""

import importlib
import re
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lethe._util.errors import UserError
from lethe._util.files import user_path
from lethe._util.integrity import digest_file
from lethe._util.log import log
from lethe._util.redact import without_secrets
from lethe.models import checkpoint, download

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which checkpoints keep a state dict, first come first
ALONE = 'save the weights alone: torch.save(model.state_dict(), "weights.pth")'
MORE, NOT_RUN = "holds more than weights (a whole model?)", f"code in a file is not run, so {ALONE}"
UNPACKED = 4  # times the size of a file, which its contents may have
DEEPEST = 16  # mappings around a state dict; a pickled mapping can also hold itself
FLOAT = "it takes floating-point weights, from before they were quantised"

# Objects next to the weights (accuracies, arguments, a program's own configuration) are not read: objects of our own that take any
# arguments and do nothing stand in for them. What the standard library has besides these is refused: files that would run code name
# its functions
VALUES = frozenset(("numpy", "_codecs", "datetime", "decimal", "enum", "pathlib", "uuid"))
HOLDERS = frozenset(("argparse", "collections", "types"))
BUILTINS = frozenset(f"builtins.{name}" for name in ("bytearray", "complex", "dict", "frozenset", "list", "object", "set", "slice"))
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of git LFS, not the file itself; `git lfs pull` fetches it"),
    (b"<", "a web page (HTML), not a file of weights; give the address of the file itself, or download it in a browser"),
    (b"{", "JSON text, such as the index of weights in several files; put them into one file"),
    (b"\x89HDF", "an HDF5 file (Keras?); it takes PyTorch's weights"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"GGUF", "a GGUF file; it takes PyTorch's weights"),
    (b"\x93NUMPY", "a NumPy array; it takes a state dict"),
)


@dataclass(frozen=True)
class Spec:
    """A checkpoint as a key names it: `<file or URL>`, with `#sha256=<sum>` and `#key=<name>` after it.

    Args:
        file: a path or a URL.
        sha256: of the file, in hex; "": any.
        key: of the state dict in a file that has several; "": the first of WRAPPERS.
    """

    file: str
    sha256: str = ""
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Take the parts after `#` off; a `#` that starts neither belongs to the file's name. Secrets of an address are left out.

        Raises:
            UserError: the sum is no SHA-256, or something else is after the `#` of an address.
        """
        file, found = text, dict[str, str]()
        while (at := max(file.rfind("#sha256="), file.rfind("#key="), file.rfind("&sha256="), file.rfind("&key="))) > 0:
            name, _, value = file[at + 1 :].partition("=")
            found[name], file = value, file[:at]
        spec = cls(without_secrets(file), found.get("sha256", "").lower(), found.get("key", ""))
        if "sha256" in found and not re.fullmatch("[0-9a-f]{64}", spec.sha256):
            raise UserError(f"{spec.file}#sha256={found['sha256']}: a SHA-256 has 64 hexadecimal digits")
        if spec.url and "#" in spec.file:
            raise UserError(f"{spec.file}: after # it takes sha256=<sum> and key=<name>")
        return spec

    @property
    def url(self) -> bool:
        """Whether the file is downloaded."""
        return "://" in self.file

    def identity(self, sha256: str) -> str:
        """What identifies the weights: the SHA-256 of the file, and the key in it."""
        return f"{sha256}#key={self.key}" if self.key else sha256


def read(text: str, base: Path, downloads: Path, *, quiet: bool = False) -> tuple[dict[str, Tensor], str]:
    """Read a state dict of other origin. What is not obvious about the choice is logged.

    Args:
        text: `<file>` or `<URL>`, with `#sha256=<sum>` and `#key=<name>`: safetensors, or what torch.load reads with weights_only.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.
        quiet: log nothing.

    Returns:
        Tensors by name, as the file has them, and what identifies them: the file's SHA-256, with `#key=<name>` after it if one is named.

    Raises:
        UserError: there is no such file, it can't be downloaded, is of another kind, or holds no state dict.
    """
    spec = Spec.parse(text)
    path = download.fetched(spec.file, downloads) if spec.url else base / user_path(spec.file)
    if path.is_dir():
        raise UserError(f"{spec.file} is not a file but a folder; {_in_folder(path)}")
    if not path.is_file():
        raise UserError(f"{spec.file} is not a file; it takes a .pth or .safetensors file, or <URL>#sha256=<sum>")
    actual = digest_file(path)
    if spec.sha256 and actual != spec.sha256:
        if spec.url:  # it is downloaded again
            path.unlink()
        raise UserError(f"{spec.file}: its SHA-256 is {actual}, not {spec.sha256}")
    try:
        tree, unread = (checkpoint.load(path)[0], ()) if _is_safetensors(path) else _unpickled(path, spec.file)
        tensors = _state_dict(tree, spec, quiet, unread)
        return {name: _plain(name, value, spec.file) for name, value in tensors.items()}, spec.identity(actual)
    except UserError:
        if spec.url:  # what is repaired at its address must be downloaded again
            path.unlink(missing_ok=True)
        raise


def identity(text: str, base: Path, downloads: Path) -> str | None:
    """Return what identifies the weights of a file of other origin, without downloading it.

    Args:
        text: as `read` takes it.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.

    Returns:
        The file's SHA-256, with the key after it if one is named, as `read` returns it; None where there is no file and no sum.
    """
    spec = Spec.parse(text)
    path = download.place(spec.file, downloads) if spec.url else base / user_path(spec.file)
    sha256 = spec.sha256 or (digest_file(path) if path.is_file() else "")
    return spec.identity(sha256) if sha256 else None


# --- the file -----------------------------------------------------------------------------------------------------------


def _is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors, by its content: a length, then JSON. By its ending where it is too short to say."""
    with path.open("rb") as file:
        start = file.read(9)
    return (len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size) or (
        path.suffix == ".safetensors" and not start.startswith((b"version h", b"<", b"PK"))
    )


def _unpickled(path: Path, name: str) -> tuple[Any, Sequence[str]]:
    """What torch.load reads without running code, and the classes of programs that something of our own stands in for."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    onnx = "an ONNX file; it takes PyTorch's weights" if path.suffix == ".onnx" else None
    kind = (
        onnx
        or next((kind for first, kind in KINDS if start.startswith(first)), None)
        or (_kind_of_archive(path) if start[:2] == b"PK" else None)
    )
    if kind:
        raise UserError(f"{name} is {kind}")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the format before torch 1.6 can't be looked through, and a broken file is named below
        names = []
    names = sorted(names)
    if code := [one for one in names if _may_run(one)]:
        raise UserError(f"{name} {MORE}: {_few(code)}; {NOT_RUN}")
    if any(one.startswith("torch.distributed.") for one in names):
        importlib.import_module("torch.distributed.tensor")  # which makes its tensors known to torch.load
    unread = [one for one in names if not one.startswith("torch.distributed.")]
    stand_ins: list[Any] = [(type("StandIn", (_Value if _package(one) in VALUES else _Holder,), {}), one) for one in unread]
    unread = [one for one in unread if _package(one) not in VALUES]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # about the types of tensors, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True), unread
    except Exception as error:  # unpickling fails in many ways, which mean one of two things
        if "GLOBAL" in str(error) or unread:
            raise UserError(f"{name} {MORE}{f': {_few(unread)}' if unread else ''}; {NOT_RUN}") from None
        raise UserError(f"{name} is cut short, or was not written by torch.save; it takes a saved state dict, or .safetensors") from None


def _package(name: str) -> str:
    return name.partition(".")[0]


def _may_run(name: str) -> bool:
    """Whether a pickle's global is of the standard library, and not a plain value."""
    package = _package(name)
    return package in sys.stdlib_module_names and package not in VALUES | HOLDERS and name not in BUILTINS


class _Value:
    """In place of a value that is not read."""

    def __new__(cls, *args: object, **named: object) -> "_Value":
        return object.__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Holder:
    """In place of an object of a class that may be a kind of dict: what it holds by key is kept, as torch.load can fill it."""

    def __new__(cls, *args: object, **named: object) -> Any:
        return OrderedDict[Any, Any]()


def _kind_of_archive(path: Path) -> str | None:
    """What a zip file is, if not what torch.save writes; None: that, or a broken one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, unpacked = archive.namelist(), sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return None
    if unpacked > UNPACKED * path.stat().st_size + 2**20:  # torch.save does not compress
        return f"a zip archive that unpacks to {unpacked:,} bytes; it takes what torch.save wrote"
    inside = [member.partition("/")[2] for member in names]
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return f"TorchScript (torch.jit.save), a program with its weights; {ALONE}"
    if any(name.endswith("archive_format") or name.startswith("models/") for name in inside):
        return f"a program of torch.export; {ALONE}"
    if "data.pkl" in inside:
        return f"damaged: {damaged} in it has another checksum; copy it again" if (damaged := _damaged(path)) else None
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz); it takes a state dict of PyTorch"
    return f"a zip archive with {_few(names) or 'nothing in it'}; unpack it"


def _damaged(path: Path) -> str | None:
    """The first member of a zip file whose content is not that of its checksum, which torch.load does not look at.

    None also where no member has a right one: torch.serialization.set_crc32_options(False) writes such files."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        wrong = [member.filename for member in members if not _is_whole(archive, member)]
    return wrong[0] if 0 < len(wrong) < len(members) else None


def _is_whole(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(member) as content:
            while content.read(2**20):
                pass
    except (zipfile.BadZipFile, zlib.error):  # the former at the end of the content, where its checksum is known
        return False
    except RuntimeError:  # packed in a way that is not read here: torch.load decides
        return True
    return True


def _in_folder(folder: Path) -> str:
    if any(folder.glob("*.distcp")):
        return "torch.distributed.checkpoint wrote it: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch` makes it a file"
    found = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
    return f"it takes one of its files: {_few(found)}" if found else "it takes a .pth or .safetensors file"


# --- the state dict in it -----------------------------------------------------------------------------------------------


def _state_dict(tree: Any, spec: Spec, quiet: bool, unread: Sequence[str]) -> dict[str, Tensor]:
    """The state dict in a file: under the asked key, under one of WRAPPERS, under the only other key that has one, or all of it.

    Raises UserError where there is none; it names the classes of objects that were not read."""
    if spec.key:
        return _asked(tree, spec)
    path: list[str] = []
    while isinstance(tree, Mapping):
        if len(path) > DEEPEST:
            raise UserError(f"{spec.file} holds no state dict within {DEEPEST} mappings in one another (does it hold itself?); {ALONE}")
        known = next((name for name in WRAPPERS if isinstance(tree.get(name), Mapping)), None)
        others = [name for name in _state_dicts(tree) if name != known]
        if known is None and len(others) != 1:
            break
        if known is not None and others and not quiet:
            log(f"{spec.file}: its {known!r} is taken; it has also {_quoted(others)}, which {spec.file}#key={others[0]} takes")
        path.append(known or others[0])
        tree = tree[path[-1]]
    if path and path[-1] not in WRAPPERS and not quiet:
        log(f"{spec.file}: the weights under {path[-1]!r} are taken, the only ones in it")
    if isinstance(tree, Mapping) and (packed := next((name for name in tree if "_packed_params" in str(name)), None)):
        raise UserError(f"{spec.file} holds quantised weights ({packed}), which can't be trained; {FLOAT}")
    if not isinstance(tree, Mapping) or not (tensors := _tensors(tree)):
        if unread and not (isinstance(tree, Mapping) and _state_dicts(tree)):
            raise UserError(f"{spec.file} {MORE}: {_few([*unread])}; {NOT_RUN}")
        raise UserError(f"{spec.file} holds no state dict (a mapping from names to tensors){_instead(tree, spec)}")
    return tensors


def _asked(tree: Any, spec: Spec) -> dict[str, Tensor]:
    """The state dict under the asked key, or the tensors whose names begin with it."""
    for holder in (tree, *(_get(tree, name) for name in WRAPPERS)):
        held = _get(holder, spec.key)
        for _ in range(DEEPEST):
            held = next((value for name in WRAPPERS if isinstance(value := _get(held, name), Mapping)), held)
        if tensors := _tensors(held):
            return tensors
        if below := {name: value for name, value in _tensors(holder).items() if name.startswith(f"{spec.key}.")}:
            return below
    raise UserError(f"{spec.file} holds no state dict under the key {spec.key!r}{_instead(tree, spec)}")


def _get(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, Mapping) else None


def _tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors of a mapping, without the numbers and texts next to them; {} where it holds other mappings."""
    if not isinstance(tree, Mapping) or any(isinstance(value, Mapping | list) for value in tree.values()):
        return {}
    return {str(name): value for name, value in tree.items() if isinstance(value, Tensor)}


def _state_dicts(tree: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name, value in tree.items() if any(tensor.dim() for tensor in _tensors(value).values())]


def _instead(tree: Any, spec: Spec) -> str:
    """Describe what a file holds in place of a state dict."""
    if not isinstance(tree, Mapping):
        return f", but a {type(tree).__name__}"
    named = _state_dicts(tree)
    if named:
        return f"; there is one under each of the keys {_quoted(named)}: {spec.file}#key={named[0]} takes the first"
    return f", but {_few([repr(name) for name in tree])}" if tree else ", it is empty"


def _plain(name: str, value: Tensor, file: str) -> Tensor:
    """The tensor as one of its own, in memory and dense."""
    local = getattr(value, "to_local", None)
    if local is not None:  # a DTensor, of a model that was divided among processes
        whole, value = value.shape, local()
        if value.shape != whole:
            raise UserError(f"{file} holds only a part of {name}, of a model divided among processes; gather it, then {ALONE}")
    if value.is_meta:
        raise UserError(f"{file} holds only the shape of {name}, of a model on the device meta, and no values")
    if value.is_quantized:
        raise UserError(f"{file} holds quantised weights ({name}: {value.dtype}), which can't be trained; {FLOAT}")
    if value.layout != torch.strided:
        raise UserError(f"{file} holds sparse tensors ({name}); save them dense: tensor.to_dense()")
    return value.detach()


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
