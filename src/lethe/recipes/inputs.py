"""What a phase makes of a stream's batches before the network sees them: a second view, perturbed copies, adversarial examples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from lethe.recipes.held_out import halves

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import Batch, DataSource, References

BATCH = 256  # images that are attacked at once
CERTAIN = -30.0  # log odds of a mistake, below which float32 has next to nothing left of the gradient of the cross-entropy


class Inputs(Protocol):
    """Changes the batches of a stream; a frozen dataclass, so that `recipe.parse` can read its repr."""

    @property
    def copies(self) -> int:
        """Examples in a changed batch for each image."""
        ...

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        """Begin a phase. What is computed here depends on the arguments alone, so that a resumed run computes the same.

        Args:
            data: examples by split.
            refs: frozen models.

        Returns:
            What the engine applies to every batch of the stream; it may draw from torch's global generator.
        """
        ...


@dataclass(frozen=True)
class Views:
    """Append a second view of every image, augmented at random as `recipe.Augment` says: the batch as it was, then the second views."""

    copies: ClassVar[int] = 2
    crop: int = 4
    flip: bool = True
    resized: float | None = None

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        import torch

        def change(batch: "Batch") -> "Batch":
            images = torch.cat([batch.images_BCHW, data.augmented(batch.index_B, self.crop, self.flip, self.resized)])
            return batch.of(images, batch.labels_B.repeat(2), batch.index_B.repeat(2))

        return change


@dataclass(frozen=True)
class Perturbed:
    """Append perturbed copies of every image (RURK, arXiv:2601.22359).

    Perturbations are uniform in the L2 ball of `radius` x sqrt(number of values of an image), for pixels in [0, 1], without clipping.

    Args:
        radius: root mean square of the largest perturbation.
        draws: perturbed copies of an image.
    """

    radius: float = 0.03
    draws: int = 1

    @property
    def copies(self) -> int:
        """The image and its perturbed copies."""
        return 1 + self.draws

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        import torch

        def change(batch: "Batch") -> "Batch":
            pixels = data.pixels(batch.index_B)
            parts = [batch.images_BCHW]
            for _ in range(self.draws):
                noise = torch.randn_like(pixels).flatten(1)
                size = noise.shape[1]
                distance = torch.rand(len(noise), 1, device=noise.device) ** (1 / size) * (self.radius * size**0.5)
                parts.append(data.as_inputs(pixels + (noise / noise.norm(dim=1, keepdim=True) * distance).view_as(pixels)))
            return batch.of(torch.cat(parts), batch.labels_B.repeat(self.copies), batch.index_B.repeat(self.copies))

        return change


@dataclass(frozen=True)
class Differentiable:
    """The same inputs, with respect to which a loss may take gradients."""

    copies: ClassVar[int] = 1

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        return lambda batch: batch.of(batch.images_BCHW.requires_grad_(True), batch.labels_B, batch.index_B)


@dataclass(frozen=True)
class WithRetain:
    """Append as many retain images, drawn at random with replacement: the batch as it was, then the drawn images."""

    copies: ClassVar[int] = 2

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        import torch

        retain_R = data.splits["retain"]

        def change(batch: "Batch") -> "Batch":
            drawn_B = retain_R[torch.randint(0, len(retain_R), batch.labels_B.shape, device=retain_R.device)]
            images = torch.cat([batch.images_BCHW, data.normalised(drawn_B)])
            labels = torch.cat([batch.labels_B, data.labels_N[drawn_B]])
            return batch.of(images, labels, torch.cat([batch.index_B, drawn_B]))

        return change


@dataclass(frozen=True)
class InsteadUnseen:
    """Replace the batch by as many images of the shaping half of validation (`held_out.halves`), drawn at random with replacement."""

    uses_validation: ClassVar[bool] = True
    copies: ClassVar[int] = 1

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        import torch

        unseen_V = halves(data.splits["validation"], data.labels_N)[0]

        def change(batch: "Batch") -> "Batch":
            drawn_B = unseen_V[torch.randint(0, len(unseen_V), batch.labels_B.shape, device=unseen_V.device)]
            return batch.of(data.normalised(drawn_B), data.labels_N[drawn_B], drawn_B)

        return change


@dataclass(frozen=True)
class Adversarial:
    """Replace each image by the nearest example that the original misclassifies, labelled as the original classifies it (AMUN).

    The nearest example that a PGD-L2 attack finds: gradient steps of `radius` / 10, in the ball of `radius` around the image, up to 50;
    without success the radius is doubled and the attack goes on from where it is (arXiv:2503.00917, section 4). An image that the
    original misclassifies already stays as it is; so does one, with its label, that is not misclassified at `radius` x 2 ** `doublings`.

    Args:
        radius: of the first ball, in the L2 norm, for pixels in [0, 1].
        steps: gradient steps in each ball.
        doublings: how often the radius is doubled at most.
    """

    copies: ClassVar[int] = 1
    radius: float = 0.04
    steps: int = 50
    doublings: int = 9

    def __call__(self, data: "DataSource", refs: "References") -> "Callable[[Batch], Batch]":
        import torch

        index_F = data.splits["forget"]
        attacked = [self._attack(data, refs.original, index_B) for index_B in index_F.split(data.at_once(BATCH))]
        inputs_F, answers_F = (torch.cat(parts) for parts in zip(*attacked, strict=True))
        place_N = torch.zeros_like(data.labels_N)
        place_N[index_F] = torch.arange(len(index_F), device=place_N.device)

        def change(batch: "Batch") -> "Batch":
            place_B = place_N[batch.index_B]
            return batch.of(inputs_F[place_B], answers_F[place_B], batch.index_B)

        return change

    def _attack(self, data: "DataSource", model: "Module", index_B: "Tensor") -> "tuple[Tensor, Tensor]":
        """Adversarial inputs of a batch, and the model's answers to them."""
        import torch
        from torch.nn.functional import cross_entropy

        start_B, labels_B = data.pixels(index_B), data.labels_N[index_B]
        low, high = data.limits or (None, None)
        found_B, left = start_B.clone(), torch.arange(len(index_B), device=labels_B.device)  # left: those that are not misclassified yet

        def norms(values: "Tensor") -> "Tensor":
            sizes: Tensor = values.flatten(1).norm(dim=1).clamp(min=1e-12)
            return sizes.view(-1, *(1 for _ in values.shape[1:]))

        for step in range(self.steps * (self.doublings + 1)):
            radius = self.radius * 2 ** (step // self.steps)
            seen = data.as_inputs(found_B[left]).requires_grad_(True)
            logits = model(seen)
            right = logits.argmax(1) == labels_B[left]
            true = labels_B[left][:, None]
            margin = logits.scatter(1, true, -math.inf).logsumexp(1) - logits.gather(1, true)[:, 0]
            # cross-entropy is log(1 + exp(margin)), whose gradient has the direction of the margin's and vanishes with exp(margin)
            loss = torch.where(margin < CERTAIN, margin, cross_entropy(logits, true[:, 0], reduction="none")).sum()
            (gradient,) = torch.autograd.grad(loss, seen)
            left, gradient = left[right], gradient[right]
            if not len(left):
                break
            change = found_B[left] + radius / 10 * gradient / norms(gradient) - start_B[left]
            moved = start_B[left] + change * (radius / norms(change)).clamp(max=1)
            found_B[left] = moved if low is None else moved.clamp(low, high)
        with torch.no_grad():
            answers_B: Tensor = model(data.as_inputs(found_B)).argmax(1)
        stays = (answers_B == labels_B).view(-1, *(1 for _ in found_B.shape[1:]))
        return data.as_inputs(torch.where(stays, start_B, found_B)), answers_B
