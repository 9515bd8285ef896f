"""Select trainable parameters by module name. A name that matches nothing is an error."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lethe._util.errors import UserError
from lethe.recipes.blocks import SYMBOLS, resolve

if TYPE_CHECKING:
    from torch.nn import Module


class Select(Protocol):
    """Chooses the parameters that train."""

    def __call__(self, model: "Module", progress: float) -> frozenset[str]:
        """Choose the parameters that train.

        Args:
            model: the network.
            progress: epoch / epochs of the phase, in [0, 1).

        Returns:
            Their names, as in `model.named_parameters()`.

        Raises:
            UnknownLayer: a name matches no module.
        """
        ...


class UnknownLayer(UserError):
    """A name that matches no module or parameter of the network: `layer`."""

    def __init__(self, layer: str, blocks: Iterable[str]) -> None:
        symbols = f"{', '.join(SYMBOLS)}, a share of depth such as 0.25"
        super().__init__(f"no layer is called {layer!r}; this architecture has {', '.join(blocks)} (or: {symbols})")
        self.layer = layer
        self.blocks = tuple(blocks)

    def __reduce__(self) -> tuple[type["UnknownLayer"], tuple[str, tuple[str, ...]]]:
        return type(self), (self.layer, self.blocks)


@dataclass(frozen=True)
class Layers:
    """The parameters of modules by name ("layer4", "layer4.1.conv2").

    Names that depend on the architecture are resolved by `blocks.resolve`: "all", "head", "last_block", "early", a share of depth ("0.25"),
    and ResNet's names in other networks."""

    names: tuple[str, ...]

    def __call__(self, model: "Module", progress: float) -> frozenset[str]:
        everything = [name for name, _ in model.named_parameters()]
        chosen: set[str] = set()
        for layer in self.names:
            modules = resolve(model, layer)
            found = {n for n in everything if layer == "all" or n in modules or n.startswith(tuple(f"{module}." for module in modules))}
            if not found:
                raise UnknownLayer(layer, tuple(dict.fromkeys(n.split(".")[0] for n in everything)))
            chosen |= found
        return frozenset(chosen)


@dataclass(frozen=True)
class Stages:
    """Layers that change over the phase: pairs (progress, layers), of which the last one that has been reached applies."""

    stages: tuple[tuple[float, Layers], ...]

    def __call__(self, model: "Module", progress: float) -> frozenset[str]:
        chosen = [layers(model, progress) for start, layers in self.stages if progress >= start]
        return chosen[-1] if chosen else frozenset()


ALL = Layers(("all",))
