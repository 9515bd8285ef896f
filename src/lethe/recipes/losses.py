"""Losses: (logits_BC, batch, references) -> scalar tensor.

torch is imported where a loss is computed, so that naming one (in a recipe, in --help) does not take seconds.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from lethe.recipes.protocols import Batch, References


class Loss(Protocol):
    """A loss; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        """The loss of a batch.

        Args:
            logits_BC: float32 [B, classes].
            batch: inputs, labels and indices of the same examples.
            refs: frozen models to compare with.

        Returns:
            A scalar to be minimised.
        """
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy against the true labels, in nats."""

    of_logits: ClassVar[bool] = True  # uses no input and no reference, so that cached features can replace inputs (engine/frozen_prefix.py)

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits_BC, batch.labels_B)
