"""Optimizers as values: what a phase builds at its start."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class OptimizerRecipe(Protocol):
    """Builds an optimizer; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over all parameters; the engine sets the learning rate before each step."""
        ...


@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD, at the phase's learning rate."""

    momentum: float
    weight_decay: float

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        import torch

        return torch.optim.SGD(parameters, lr=0.0, momentum=self.momentum, weight_decay=self.weight_decay)
