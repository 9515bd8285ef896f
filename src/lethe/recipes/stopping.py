"""When a phase ends before its last epoch: by a quantity that needs no retrained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from lethe.recipes import forward
from lethe.recipes.held_out import halves

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


class Stop(Protocol):
    """Ends a phase; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def measure(self, model: "Module", data: "DataSource", refs: "References") -> float:
        """Measure the model after an epoch; its modes are not changed for the caller.

        Args:
            model: the model that unlearns.
            data: of the run.
            refs: its frozen references.

        Returns:
            A number that `reached` gets with those of the epochs before.
        """
        ...

    def reached(self, values: Sequence[float]) -> bool:
        """Whether the phase ends.

        Args:
            values: what `measure` returned after each epoch of the phase so far.
        """
        ...


@dataclass(frozen=True)
class LossOfUnseen:
    """End after the epoch in which the mean cross-entropy of forget has reached that of unseen images of the same classes.

    Unseen are the images of the shaping half of validation (`held_out.halves`), weighted to the classes of forget."""

    uses_validation: ClassVar[bool] = True

    def measure(self, model: "Module", data: "DataSource", refs: "References") -> float:
        """Measure the loss of forget minus that of unseen images.

        Args:
            model: the model that unlearns.
            data: of the run.
            refs: its frozen references.

        Returns:
            The difference of the means, in nats.
        """
        import torch
        from torch.nn.functional import cross_entropy

        def losses(index_N: "Tensor") -> "Tensor":
            return cross_entropy(forward.logits(model, data, index_N), data.labels_N[index_N], reduction="none")

        forget_F, unseen_V = data.splits["forget"], halves(data.splits["validation"], data.labels_N)[0]
        losses_F, losses_V = losses(forget_F), losses(unseen_V)
        labels_F, labels_V = data.labels_N[forget_F], data.labels_N[unseen_V]
        of_class = {int(label): losses_V[labels_V == label].mean() for label in labels_V.unique()}
        expected_F = torch.stack([of_class.get(label, losses_V.mean()) for label in labels_F.tolist()])
        return float((losses_F - expected_F).mean())

    def reached(self, values: Sequence[float]) -> bool:
        """Whether the last difference is not negative."""
        return bool(values) and values[-1] >= 0


@dataclass(frozen=True)
class SensitivityRose:
    """End after the epoch in which the sensitivity of other classes' logits to forget has risen from its minimum (MU-Mis).

    Sensitivity is the mean norm of the gradient of a logit with respect to the image, of the next class after the label.

    Args:
        by: share of the minimum.
    """

    by: float = 0.1

    def measure(self, model: "Module", data: "DataSource", refs: "References") -> float:
        """Measure the sensitivity in eval mode.

        Args:
            model: the model that unlearns.
            data: of the run.
            refs: its frozen references.

        Returns:
            The mean norm over forget.
        """
        import torch

        modes = {module: module.training for module in model.modules()}
        flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
        model.eval().requires_grad_(False)
        total = 0.0
        try:
            for index_B in data.splits["forget"].split(data.at_once(forward.BATCH)):
                images = data.normalised(index_B).requires_grad_(True)
                logits_BC = model(images).float()
                other_B = (data.labels_N[index_B] + 1) % logits_BC.shape[1]
                (gradient,) = torch.autograd.grad(logits_BC.gather(1, other_B[:, None]).sum(), images)
                total += float(gradient.flatten(1).norm(dim=1).sum())
        finally:
            for module, mode in modes.items():
                module.training = mode
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
        return total / len(data.splits["forget"])

    def reached(self, values: Sequence[float]) -> bool:
        """Whether the last value is above the lowest by the share."""
        return bool(values) and values[-1] > (1 + self.by) * min(values)
