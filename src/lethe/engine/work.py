"""The work of a run in floating-point operations, counted while it happens: independent of the machine and of what else runs on it.

By hooks on layers, not by torch's FlopCounterMode: that one goes through torch._dynamo, which sets the frame evaluation of the whole
interpreter, and a run crashed in it while the thread that sends to MLflow was at work; it also counts a grouped convolution's backward pass
once per group, and stacked models several times over (torch 2.15.0)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.hooks import RemovableHandle

PER_MULTIPLICATION = 2  # operations: a product and its sum


@dataclass
class Work:
    """Operations so far."""

    flops: int = 0
    _hooks: dict[Module, RemovableHandle] = field(default_factory=dict, repr=False)

    def watch(self, *models: Module) -> None:
        """Count the layers of further models, and of their copies; those that are counted already count once."""

        def add(layer: Module, inputs: tuple[Any, ...], output: Tensor) -> None:  # no method: a copied layer would add to a copy of this
            weight, given = layer.weight, inputs[0] if inputs else None
            assert isinstance(weight, Tensor)
            passes = 1
            if torch.is_grad_enabled():
                passes += weight.requires_grad + (isinstance(given, Tensor) and given.requires_grad)
            counts = given if isinstance(layer, _ConvTransposeNd) and isinstance(given, Tensor) else output
            self.flops += PER_MULTIPLICATION * passes * counts.numel() * weight[0].numel()

        for layer in (layer for model in models for layer in model.modules() if isinstance(layer, Linear | _ConvNd)):
            if layer not in self._hooks:
                self._hooks[layer] = layer.register_forward_hook(add)

    def end(self) -> None:
        """Count no more."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()


@contextmanager
def counted(*models: Module) -> Iterator[Work]:
    """Count the operations of convolutions and linear layers, which are nearly all of a network's.

    A layer's forward pass counts when it runs. If a gradient is recorded, its backward pass counts too: as much again for the
    gradient of a weight that trains, and as much again for the gradient of the input where an earlier layer trains. So a
    layer in the middle of a network that trains whole counts three forward passes, a frozen layer before all that train counts one, and one
    whose outputs are cached none at all. Reference models that a loss looks at count with one. Normalisation, activations, attention's
    products of queries and keys, the loss and the optimizer are left out.

    Args:
        *models: whose layers are counted; those that occur in several are counted once per call.

    Yields:
        The work, which grows until the end of the context.
    """
    work = Work()
    work.watch(*models)
    try:
        yield work
    finally:
        work.end()
