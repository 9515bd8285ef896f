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


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam, at the phase's learning rate; weight decay is added to the gradient."""

    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        import torch

        return torch.optim.Adam(parameters, lr=0.0, betas=(self.beta_1, self.beta_2), weight_decay=self.weight_decay)


@dataclass(frozen=True)
class AdamW:
    """torch.optim.AdamW, at the phase's learning rate; weight decay shrinks the weights (Loshchilov and Hutter, arXiv:1711.05101)."""

    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        import torch

        return torch.optim.AdamW(parameters, lr=0.0, betas=(self.beta_1, self.beta_2), weight_decay=self.weight_decay)
