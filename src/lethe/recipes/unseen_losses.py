"""Losses that compare forget with images that no model was trained on: the shaping half of validation (`held_out.halves`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lethe.recipes import forward
from lethe.recipes.held_out import halves

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.losses import Loss
    from lethe.recipes.protocols import Batch, DataSource, References


@dataclass(frozen=True)
class LikeUnseen:
    """Mean KL divergence of the answers from the original's mean answer to unseen images (ReGUn, arXiv:2603.11210).

    The mean is over unseen images of the classes of the batch, weighted by how often each class occurs in it. The authors draw images to
    that histogram instead, which is the same up to the noise of the draw. A class without an unseen image takes the mean over all.

    Args:
        target_of: "batch": one target for all images of a batch, as the authors; "class": each image has that of its class.
    """

    uses_validation: ClassVar[bool] = True
    target_of: Literal["batch", "class"] = "batch"

    def prepare(self, model: "Module", data: "DataSource", refs: "References") -> "Loss":
        """The loss with the original's mean answers.

        Args:
            model: not used.
            data: examples by split; it needs validation.
            refs: `original` is the model whose answers are the target.
        """

        index_V = halves(data.splits["validation"], data.labels_N)[0]
        answers_VC = forward.logits(refs.original, data, index_V).softmax(1)
        labels_V = data.labels_N[index_V]
        means_CC = answers_VC.mean(0).repeat(answers_VC.shape[1], 1)
        for label in labels_V.unique():
            means_CC[label] = answers_VC[labels_V == label].mean(0)
        return _TowardsAnswers(means_CC, self.target_of == "batch")

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        raise TypeError("LikeUnseen has no targets before `prepare`")


@dataclass(frozen=True, eq=False)
class _TowardsAnswers:
    """`LikeUnseen` with the mean answer by class, float32 [classes, classes]; part of no recipe."""

    means_CC: "Tensor"
    joint: bool

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import kl_div

        wanted_BC = self.means_CC[batch.labels_B]
        if self.joint:
            wanted_BC = wanted_BC.mean(0).expand_as(wanted_BC)
        return kl_div(logits_BC.log_softmax(1), wanted_BC, reduction="batchmean")
