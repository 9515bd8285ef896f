"""Edits that look at gradients: they dampen, move or reset the weights that matter to forget."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lethe._util.errors import UserError
from lethe.recipes.importance import CONVOLUTION, gradient_sum, least_telling, squared_gradients
from lethe.recipes.trainable import Layers
from lethe.recipes.values import Value, later
from lethe.recipes.weight_edits import Init

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


@dataclass(frozen=True)
class Dampen:
    """Shrink the weights that matter much more to forget than to all training images (SSD, arXiv:2308.07707, equations 5 and 6).

    A weight matters as much as its squared gradient of the cross-entropy, I_F on forget and I on all. Where I_F > `threshold` x I, the
    weight is multiplied by min(1, `strength` x I / I_F).

    Args:
        threshold: alpha of the paper.
        strength: lambda of the paper; smaller shrinks more.
        layers: names of modules, or symbols of `blocks.resolve`.
        batch_size: images per squared gradient; 1: the Fisher information as defined.
        name: shown in epoch tables and messages.
    """

    threshold: float = 10.0
    strength: float = 1.0
    layers: tuple[str, ...] = ("all",)
    batch_size: int = 1
    name: str = "dampen"

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def examples(self, sizes: Mapping[str, int]) -> int:
        """Of all training images, and of forget once more."""
        return sizes["retain"] + 2 * sizes["forget"]

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        splits = (data.splits["forget"], torch.cat([data.splits["retain"], data.splits["forget"]]))
        forget, all_ = (squared_gradients(model, data, index_N, self.batch_size) for index_N in splits)
        with torch.no_grad():
            for name in self.writes(model):
                selected = forget[name] > self.threshold * all_[name]
                factor = (self.strength * all_[name] / forget[name]).clamp(max=1)
                weight = model.get_parameter(name)
                weight.copy_(torch.where(selected, weight * factor, weight))


@dataclass(frozen=True, repr=False)
class AscendAndReset(Value):
    """One step of ascent on forget, then a reset of the weights that it concerns least (RELOAD, ICLR 2026, arXiv:2604.10636).

    With G the gradient of the cross-entropy summed over all training images and g that over retain, G - g is forget's: weights move by
    `rate` times its mean over forget. Then the `share` of all weights with the lowest (|G - g| + e) / (|G| + e) is set to a randomly
    initialised network's. The authors store G before the request, so that forget need not be read; here G - g is computed on forget.

    Args:
        rate: of the step of ascent.
        share: of the weights that are reset.
        epsilon: e.
        layers: names of modules, or symbols of `blocks.resolve`; other weights are neither moved nor ranked.
        name: shown in epoch tables and messages.
        init: the randomly initialised network, by its name in `protocols.References`.
    """

    rate: float
    share: float
    epsilon: float = 1e-6
    layers: tuple[str, ...] = ("all",)
    name: str = "ascend_and_reset"
    init: Init = later("random_init")

    def writes(self, model: "Module") -> frozenset[str]:
        """The parameters of the modules."""
        return Layers(self.layers)(model, 0.0)

    def examples(self, sizes: Mapping[str, int]) -> int:
        """Of all training images."""
        return sizes["retain"] + sizes["forget"]

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        names = sorted(self.writes(model))
        forget, retain = (gradient_sum(model, data, data.splits[split]) for split in ("forget", "retain"))
        ratio = torch.cat([((forget[n].abs() + self.epsilon) / ((forget[n] + retain[n]).abs() + self.epsilon)).flatten() for n in names])
        resets = torch.zeros_like(ratio, dtype=torch.bool)
        resets[ratio.argsort(stable=True)[: round(self.share * len(ratio))]] = True
        parts = resets.split([forget[name].numel() for name in names])
        with torch.no_grad():
            for name, part in zip(names, parts, strict=True):
                weight = model.get_parameter(name)
                moved = weight + self.rate / len(data.splits["forget"]) * forget[name]
                weight.copy_(torch.where(part.view_as(weight), getattr(refs, self.init).get_parameter(name), moved))


@dataclass(frozen=True, repr=False)
class ReinitialiseLeast(Value):
    """Randomly initialise the weights of each two-dimensional convolution that `importance.least_telling` finds.

    Args:
        share: of the weights of each convolution.
        layers: names of modules, or symbols of `blocks.resolve`.
        seed: of the draw of retain images that are compared with forget.
        name: shown in epoch tables and messages.
        init: the randomly initialised network, by its name in `protocols.References`.
    """

    share: float = 0.3
    layers: tuple[str, ...] = ("all",)
    seed: int = 0
    name: str = "reinitialise_least"
    init: Init = later("random_init")

    def writes(self, model: "Module") -> frozenset[str]:
        """The weights of the convolutions of the modules."""
        named = dict(model.named_parameters())
        return frozenset(name for name in Layers(self.layers)(model, 0.0) if named[name].ndim == CONVOLUTION)

    def examples(self, sizes: Mapping[str, int]) -> int:
        """Of forget, and of as many retain images."""
        return sizes["forget"] + min(sizes["forget"], sizes["retain"])

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        written = self.writes(model)
        if not written:
            raise UserError(f"{self.name}: {', '.join(self.layers)} has no weights of a two-dimensional convolution")
        masks = least_telling(data, refs, self.share, self.seed)
        with torch.no_grad():
            for name in written:
                weight: Tensor = model.get_parameter(name)
                weight.copy_(torch.where(masks[name], getattr(refs, self.init).get_parameter(name), weight))
