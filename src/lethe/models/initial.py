"""Weights that training starts from (pretrain.init): a file of other origin, or torchvision's by name."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.models import fitting, foreign
from lethe.models.torchvision_models import torchvision_models

KEY = "pretrain.init"
_NAME = re.compile(r"^(?:(?P<kind>\w+_Weights)\.)?(?P<name>[A-Za-z]\w*)$")


def is_name(text: str) -> bool:
    """Test whether a text has the form of a name of torchvision's weights.

    Args:
        text: as `identity` takes it.

    Returns:
        False for an address, a path, and the name of a file with an ending.
    """
    return _NAME.match(text) is not None


def identity(text: str, architecture: str, base: Path, downloads: Path) -> str:
    """Return what identifies the weights: torchvision's full name, or what `foreign.read` returns.

    Args:
        text: torchvision's name (`IMAGENET1K_V1`, `ResNet18_Weights.IMAGENET1K_V1`), or a file or URL as `foreign.read` takes it.
        architecture: model.architecture.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.

    Returns:
        The same text for the same weights, whichever way they are named.

    Raises:
        UserError: there are no such weights.
    """
    named = _torchvisions(text, architecture, base)
    if named is not None:
        return str(named)
    try:
        return foreign.identity(text, base, downloads) or _read(text, architecture, base, downloads)[1]
    except UserError as error:
        raise UserError(f"{KEY}: {error}") from None


def load(
    network: Module,
    text: str,
    architecture: str,
    base: Path,
    downloads: Path,
    *,
    normalisation: tuple[Sequence[float], Sequence[float]],
    quiet: bool = False,
) -> None:
    """Load the weights into a network; a last layer for other classes keeps its own.

    Args:
        network: with random weights; is changed.
        text: as `identity` takes it.
        architecture: model.architecture.
        base: the folder that a relative file resolves against.
        downloads: the folder that keeps downloads.
        normalisation: data.mean and data.std; what torchvision's weights were trained with is logged if it is another.
        quiet: log nothing.

    Raises:
        UserError: there are no such weights, they can't be fetched, or are those of another network.
    """
    try:
        tensors, which = _read(text, architecture, base, downloads)
        found = fitting.fit(network, tensors, text, quiet=quiet, new_head=True)
        if found:
            found.check(*normalisation, text, quiet=quiet)
    except UserError as error:
        raise error if str(error).startswith(KEY) else UserError(f"{KEY}: {error}") from None
    if quiet:
        return
    log(f"training starts from {text} ({which})")
    own = _preset(_torchvisions(text, architecture, base)) or normalisation
    ours, theirs = ([f"{value:g}" for values in pair for value in values] for pair in (normalisation, own))
    if ours != theirs:
        log(f"{text} was trained with data.mean {','.join(theirs[:3])} and data.std {','.join(theirs[3:])}, and these are others")


def _preset(weights: Any) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and standard deviation that torchvision's weights were trained with."""
    preset: Any = weights.transforms() if weights is not None else None
    return (preset.mean, preset.std) if hasattr(preset, "mean") and hasattr(preset, "std") else None


def _torchvisions(text: str, architecture: str, base: Path) -> Any:
    """Torchvision's weights of this name; None for a file or URL.

    Raises:
        UserError: it names no file, and no weights of this architecture.
    """
    named = _NAME.match(text)
    if named is None or (base / text).exists():
        return None
    try:
        known: Any = torchvision_models().get_model_weights(architecture)
    except ValueError:
        raise UserError(f"{KEY} is {text}, which is no file, and torchvision has no weights for {architecture}; {FILE}") from None
    if named["kind"] in (None, known.__name__) and named["name"].upper() in known.__members__:
        return known[named["name"].upper()]
    raise UserError(f"{KEY} is {text}, which is no file and none of {', '.join(known.__members__)} of {architecture}; {FILE}")


FILE = "it takes a .pth or .safetensors file, <URL>#sha256=<sum>, or a name of torchvision's weights for model.architecture"


@lru_cache(maxsize=1)
def _read(text: str, architecture: str, base: Path, downloads: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors, and what identifies them; read once in a process."""
    named = _torchvisions(text, architecture, base)
    if named is None:
        return foreign.read(text, base, downloads)
    try:
        return named.get_state_dict(progress=False, check_hash=True), str(named)
    except Exception as error:  # urllib, sockets, TLS, a damaged file: the user needs the address and the reason
        raise UserError(f"{KEY}: {named} can't be fetched from {named.url}: {' '.join(str(error).split())}") from None
