"""Losses that compare the features or answers of images with each other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from lethe.recipes.protocols import Batch, References


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between two views of each image, on batches of `inputs.Views` (van den Oord et al., arXiv:1807.03748).

    Features are what the head takes, of unit norm. Each view is to be found among the other views of all images of the batch, in both
    directions.

    Args:
        temperature: by which cosines are divided.
    """

    of_features: ClassVar[bool] = True
    temperature: float = 0.1

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import cross_entropy, normalize

        assert batch.features_BD is not None
        one, other = normalize(batch.features_BD, dim=1).chunk(2)
        alike_BB = one @ other.T / self.temperature
        own = torch.arange(len(one), device=one.device)
        return (cross_entropy(alike_BB, own) + cross_entropy(alike_BB.T, own)) / 2


@dataclass(frozen=True)
class AwayFromRetain:
    """Make the answers on forget equally near to all answers on retain, on batches of `inputs.WithRetain` (FCS).

    The mean over all pairs of -log softmax over retain of <logits on forget, logits on retain> / `temperature`. No gradient flows
    through the logits on retain.

    Args:
        temperature: by which products are divided.
    """

    of_logits: ClassVar[bool] = True
    temperature: float = 1.15

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        forget_BC, retain_BC = logits_BC.chunk(2)
        return -(forget_BC @ retain_BC.detach().T / self.temperature).log_softmax(1).mean()
