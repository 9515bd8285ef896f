"""What acts on the weights in every step: constraints, called after it, and penalties, added to its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lethe.recipes.importance import gradient_sum

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


class Constraint(Protocol):
    """Keeps weights from moving; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> Callable[[], None]:
        """Begin a phase.

        Args:
            model: the network.
            data: examples by split.
            refs: frozen models to compare with.

        Returns:
            What the engine calls after every optimizer step of the phase.
        """
        ...


class Penalty(Protocol):
    """A term of the loss that depends on the weights alone; a frozen dataclass."""

    def __call__(self, model: "Module", progress: float) -> "Tensor":
        """The penalty, a scalar.

        Args:
            model: the network; parameters that train have `requires_grad`.
            progress: of the phase, in [0, 1).
        """
        ...


@dataclass(frozen=True)
class Saliency:
    """Move only the `share` of all weights whose gradient on forget is largest at the original (SalUn, arXiv:2310.12508, equation 3).

    The gradient is that of the cross-entropy summed over forget, in eval mode; weights are ranked over all layers together. The other
    weights are put back after every step: masking their gradient would let weight decay and momentum move them."""

    share: float = 0.5

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> Callable[[], None]:
        import torch

        masks = self.masks(data, refs)
        held = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

        def restore() -> None:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(torch.where(masks[name], parameter, held[name]))

        return restore

    def masks(self, data: "DataSource", refs: "References") -> "dict[str, Tensor]":
        """Which weights move, by parameter: bool tensors of their shapes.

        Args:
            data: examples by split.
            refs: `original` is the network whose gradients are ranked.

        Returns:
            True for the `share` of all weights, over all layers together, that moves.
        """
        import torch

        sums = gradient_sum(refs.original, data, data.splits["forget"])
        flat = torch.cat([total.abs().flatten() for total in sums.values()])
        moves = torch.zeros_like(flat, dtype=torch.bool)
        moves[flat.argsort(descending=True, stable=True)[: round(self.share * len(flat))]] = True
        parts = moves.split([total.numel() for total in sums.values()])
        return {name: part.view_as(total) for (name, total), part in zip(sums.items(), parts, strict=True)}


@dataclass(frozen=True)
class L1:
    """`weight` x (1 - progress) x the sum of the absolute values of all weights that train (l1-sparse, arXiv:2304.04934, section 4)."""

    weight: float

    def __call__(self, model: "Module", progress: float) -> "Tensor":
        import torch

        norms = [parameter.abs().sum() for parameter in model.parameters() if parameter.requires_grad]
        return torch.stack(norms).sum() * (self.weight * (1 - progress))
