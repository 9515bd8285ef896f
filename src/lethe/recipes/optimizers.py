"""Optimizers as values: what a phase builds at its start."""

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from lethe.recipes.values import Value, later

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer


class OptimizerRecipe(Protocol):
    """Builds an optimizer; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over all parameters; the engine sets the learning rate before each step."""
        ...


@dataclass(frozen=True, repr=False)
class SGD(Value):
    """torch.optim.SGD, at the phase's learning rate; `nesterov`: with Nesterov's momentum."""

    momentum: float
    weight_decay: float
    nesterov: bool = later(False)

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        return _build("SGD", parameters, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam, at the phase's learning rate; weight decay is added to the gradient."""

    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        return _build("Adam", parameters, betas=(self.beta_1, self.beta_2), weight_decay=self.weight_decay)


@dataclass(frozen=True)
class AdamW:
    """torch.optim.AdamW, at the phase's learning rate; weight decay shrinks the weights (Loshchilov and Hutter, arXiv:1711.05101)."""

    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999

    def build(self, parameters: "list[Parameter]") -> "Optimizer":
        """A new optimizer over `parameters`."""
        return _build("AdamW", parameters, betas=(self.beta_1, self.beta_2), weight_decay=self.weight_decay)


def _build(name: str, parameters: "list[Parameter]", **numbers: Any) -> "Optimizer":
    optimizer: Optimizer = without_compiler(name)(parameters, lr=0.0, **numbers)
    return optimizer


@cache
def without_compiler(name: str) -> "type[Any]":
    """Make a class of torch's optimizers whose methods are not wrapped for torch.compile.

    The wrappers import torch's compiler, which takes more than a second of a command, at the first optimizer; no step is compiled here.
    The arithmetic, the state and its keys are those of torch's class.

    Args:
        name: of the class in torch.optim.

    Returns:
        A subclass of the same name.
    """
    import torch

    kind = getattr(torch.optim, name)
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")}
    methods |= {"step": torch.no_grad()(inspect.unwrap(kind.step)), "__reduce_ex__": _reduced}
    return type(kind.__name__, (kind,), methods | {"__module__": kind.__module__})


def _reduced(optimizer: Any, _: object) -> tuple[Any, ...]:
    """How pickle makes such an optimizer again: its class is in no module."""
    return _blank, (type(optimizer).__name__,), optimizer.__getstate__()


def _blank(name: str) -> Any:
    kind: Any = without_compiler(name)
    return kind.__new__(kind)
