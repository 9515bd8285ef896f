"""Parts of a network by role: what "head", "last_block" and "early" mean in an architecture.

Modules are taken in the order in which the network defines them."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

SYMBOLS = ("all", "head", "last_block", "early")
# ResNet's names, which the methods' defaults are -> the same part of a network that has no modules of these names
RESNET = {"layer1": "early", "layer2": "early", "layer3": "middle", "layer4": "last_block", "fc": "head"}
SHARE = re.compile(r"0?\.\d*[1-9]\d*")  # the last share of the blocks, and the head
# A block that holds a larger share of the weights before the head is divided into its own blocks
MOST = {"last_block": 0.9, "early": 0.5}


def resolve(model: "Module", name: str) -> tuple[str, ...]:
    """Resolve a name to modules of the model.

    `first` is the first convolution, or linear layer in a network without one, `head` the last linear layer, `last_block` the last
    block before it, `early` the first half of the blocks before it. A share such as `0.25` is that share of the blocks, the last ones, and
    the head. A block is a child module that has weights, with the normalisation that follows it; one that holds most of the weights is
    divided further. ResNet's names stand for the same parts of another network: layer1 and layer2 for `early`, layer3 for the blocks
    between, layer4 for `last_block`, fc for `head`.

    Args:
        model: the network.
        name: a module's or parameter's name, which always wins, a symbol, or a share of depth.

    Returns:
        Names of modules (or the one parameter); the name itself if it is not a symbol, or if the model has a module of that name.
    """
    modules = {module for module, _ in model.named_modules()}
    if name in RESNET and name not in modules and (name == "fc" or modules.isdisjoint(RESNET.keys() - {"fc"})):
        name = RESNET[name]
    elif name == "first" and name not in modules:
        return (first(model),)
    elif (name not in SYMBOLS and not SHARE.fullmatch(name)) or name == "all" or name in modules:
        return (name,)
    last = head(model)
    if name == "head":
        return (last,)
    before = blocks(model, last, MOST.get(name, MOST["early"]))
    if name == "last_block":
        return before[-1] if before else ()
    half = max(1, len(before) // 2)
    if name == "early":
        chosen = before[:half]
    elif name == "middle":
        chosen = before[half:-1] or before[-1:]
    else:
        chosen = [*before[-max(1, round(float(name) * len(before))) :], (last,)]
    return tuple(module for block in chosen for module in block)


def first(model: "Module") -> str:
    """Name of the first convolution; without one, of the first linear layer; without either, of the first layer that has weights."""
    from torch.nn import Linear
    from torch.nn.modules.conv import _ConvNd

    layers = [(name, module) for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    by_kind = ([name for name, module in layers if isinstance(module, kind)] for kind in (_ConvNd, Linear))
    return str(next(filter(None, by_kind), [name for name, _ in layers])[0])


def head(model: "Module") -> str:
    """Name of the last linear layer; without one, of the last layer that has weights."""
    from torch.nn import Linear

    layers = [(name, module) for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    linear: list[str] = [name for name, module in layers if isinstance(module, Linear)]
    return linear[-1] if linear else str(layers[-1][0])


def blocks(model: "Module", last: str, most: float) -> list[tuple[str, ...]]:
    """Divide the network before its head into blocks.

    Args:
        model: the network.
        last: name of the head.
        most: share of the weights before the head above which a block is divided.

    Returns:
        The blocks in order, each as the names of its modules: the block and the normalisation that follows it.
    """
    parts = _children(model, "", last)
    while True:
        weights = [_weights(module) for _, module in parts]
        at = next((i for i, own in enumerate(weights) if own > most * sum(weights) and _children(parts[i][1], parts[i][0], last)), None)
        if at is None:
            break
        parts[at : at + 1] = _children(parts[at][1], parts[at][0], last)
    found: list[tuple[str, ...]] = []
    for name, module in parts:
        if found and _normalises(module):
            found[-1] = (*found[-1], name)
        else:
            found.append((name,))
    return found


def _children(module: "Module", name: str, last: str) -> list[tuple[str, "Module"]]:
    """Child modules that have weights; in place of one that contains the head its own children, without the head."""
    found: list[tuple[str, Module]] = []
    for child, own in module.named_children():
        full = f"{name}.{child}" if name else child
        if last.startswith(f"{full}."):
            found += _children(own, full, last)
        elif full != last and _weights(own):
            found.append((full, own))
    return found


def _weights(module: "Module") -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _normalises(module: "Module") -> bool:
    """Whether all its weights are those of normalisation layers."""
    return all("Norm" in type(own).__name__ for own in module.modules() if any(True for _ in own.parameters(recurse=False)))
