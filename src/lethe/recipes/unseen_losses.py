"""Losses that compare forget with images that no model was trained on: the shaping half of validation (`held_out.halves`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from lethe.recipes import forward
from lethe.recipes.held_out import halves
from lethe.recipes.values import Value, later

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

        Returns:
            The loss with one target for each class, probabilities that sum to 1.
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


@dataclass(frozen=True, repr=False)
class ByForgetting(Value):
    """Mean cross-entropy against random labels, by how much better than an unseen image the model still knows each (FaLW, ICLR 2026).

    The weight of an image is 1 + sign(z) tanh(|z|) ^ (1 / b): z is the probability of its label, in standard deviations above the mean of
    unseen images of its class, which are measured at the start of every epoch; b = (images to forget / (classes x those of its class)) ^
    `balance`, 1 for a balanced request. No gradient flows through the weight. A class with fewer than two unseen images takes all.

    Args:
        balance: how much images of rare classes differ.
        exponent_on: "weight", as in recipes written before, has the exponent on the whole: (1 + tanh(z)) ^ (1 / b).
    """

    uses_validation: ClassVar[bool] = True
    balance: float = 0.5
    exponent_on: Literal["tanh", "weight"] = later("weight")

    def prepare(self, model: "Module", data: "DataSource", refs: "References") -> "Loss":
        """The loss with the probabilities of unseen images.

        Args:
            model: the network at the start of the epoch; its modes are not changed for the caller.
            data: examples by split; it needs validation.
            refs: not used.

        Returns:
            The loss with mean, spread and exponent of each class.
        """
        import torch

        forget_F, index_V = data.splits["forget"], halves(data.splits["validation"], data.labels_N)[0]
        answers_VC, labels_V = forward.logits(model, data, index_V).softmax(1), data.labels_N[index_V]
        known_V = answers_VC.gather(1, labels_V[:, None])[:, 0]
        classes = answers_VC.shape[1]
        own = [known_V[labels_V == label] for label in range(classes)]
        own = [each if len(each) > 1 else known_V for each in own]
        means_C, spreads_C = (torch.stack(each) for each in ([o.mean() for o in own], [o.std(unbiased=False) for o in own]))
        count_C = torch.bincount(data.labels_N[forget_F], minlength=classes).clamp(min=1)
        powers_C = (len(forget_F) / (classes * count_C)) ** -self.balance
        return _Reweighted(means_C, spreads_C.clamp(min=1e-6), powers_C, self.exponent_on == "weight")

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        raise TypeError("ByForgetting knows no unseen images before `prepare`")


@dataclass(frozen=True, eq=False)
class _Reweighted:
    """`ByForgetting` with its statistics by class, float32 [classes]; part of no recipe."""

    means_C: "Tensor"
    spreads_C: "Tensor"
    powers_C: "Tensor"
    whole: bool

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import cross_entropy

        drawn_B = torch.randint(0, logits_BC.shape[1], batch.labels_B.shape, device=logits_BC.device)
        known_B = logits_BC.detach().softmax(1).gather(1, batch.labels_B[:, None])[:, 0]
        z_B = (known_B - self.means_C[batch.labels_B]) / self.spreads_C[batch.labels_B]
        power_B = self.powers_C[batch.labels_B]
        weight_B = (1 + z_B.tanh()) ** power_B if self.whole else 1 + z_B.sign() * z_B.abs().tanh() ** power_B
        return (weight_B * cross_entropy(logits_BC, drawn_B, reduction="none")).mean()
