"""Losses: values that are called with (logits_BC, batch, refs) and give a scalar tensor.

torch is imported where a loss is computed, so that naming one (in a recipe, in --help) does not cost seconds.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from lethe.recipes.protocols import Batch, References


class Loss(Protocol):
    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor": ...


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy against the true labels, in nats."""

    of_logits: ClassVar[bool] = True  # looks at no image and no reference, so features may stand in for images (prefix.py)

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits_BC, batch.labels_B)
