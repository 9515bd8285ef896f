"""Who may move: names of blocks, held against the model at hand. A name that matches nothing is an error."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lethe._util.errors import UserError
from lethe.recipes.blocks import SYMBOLS, resolve

if TYPE_CHECKING:
    from torch.nn import Module


class Select(Protocol):
    def __call__(self, model: "Module", t: float) -> frozenset[str]:
        """Names of the parameters that train at time t. Raises UserError when a name matches nothing."""
        ...


@dataclass(frozen=True)
class Layers:
    """The parameters of modules by name ("layer4", "layer4.1.conv2").

    Names that depend on the architecture are resolved by `blocks.resolve`: "all", "head", "last_block", "early"."""

    names: tuple[str, ...]

    def __call__(self, model: "Module", t: float) -> frozenset[str]:
        everything = [name for name, _ in model.named_parameters()]
        chosen: set[str] = set()
        for layer in self.names:
            modules = resolve(model, layer)
            found = {n for n in everything if layer == "all" or n in modules or n.startswith(tuple(f"{module}." for module in modules))}
            if not found:
                blocks = dict.fromkeys(n.split(".")[0] for n in everything)
                raise UserError(f"no layer is called {layer!r}; this architecture has {', '.join(blocks)} (or: {', '.join(SYMBOLS)})")
            chosen |= found
        return frozenset(chosen)


@dataclass(frozen=True)
class Stages:
    """Pairs (from which t on, who): the last one whose time has come."""

    stages: tuple[tuple[float, Layers], ...]

    def __call__(self, model: "Module", t: float) -> frozenset[str]:
        chosen = [layers(model, t) for start, layers in self.stages if t >= start]
        return chosen[-1] if chosen else frozenset()


ALL = Layers(("all",))
