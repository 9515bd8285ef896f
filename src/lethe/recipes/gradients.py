"""What acts on the gradients of a step before the optimizer does: rules that change them, and combinations of several losses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lethe.recipes.importance import least_telling, squared_gradients

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from lethe.recipes.protocols import DataSource, References


class GradientRule(Protocol):
    """Changes the gradients of steps; a frozen dataclass, so that `recipe.parse` can read its repr."""

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> Callable[[str], None]:
        """Begin a phase. What is computed here depends on `data` and `refs` alone, so that a resumed run computes the same.

        Args:
            model: the network.
            data: examples by split.
            refs: frozen models to compare with.

        Returns:
            What the engine calls after every backward pass of the phase with the letters of the step's streams; it changes `.grad`.
        """
        ...


class Combination(Protocol):
    """Combines the losses of a step on several streams into one gradient; a frozen dataclass."""

    def __call__(self, losses: "Sequence[Tensor]", parameters: "Sequence[Parameter]") -> None:
        """Set the gradients of a step.

        Args:
            losses: scalars, one for each stream of the step, in the order of its letters; weights of the terms are in them.
            parameters: those that train; their `.grad` is set.
        """
        ...


@dataclass(frozen=True)
class Bargain:
    """The Nash bargaining solution of two losses (MUNBa, arXiv:2411.15537, closed form of its theorem for two players).

    The gradient a_1 g_1 + a_2 g_2 with a_i = 1 / (|g_i| sqrt(1 + cos(g_1, g_2))): the sum of the two unit gradients, of norm sqrt(2)
    whatever the losses are, and then no longer than `max_norm`. Opposite gradients, and a gradient of 0, have no such solution: as in the
    authors' code, the step is then on the first loss and 0.1 times the second.

    Args:
        max_norm: highest norm of the gradient.
    """

    max_norm: float = 1.0

    def __call__(self, losses: "Sequence[Tensor]", parameters: "Sequence[Parameter]") -> None:
        import torch

        first, second = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True) for loss in losses
        )
        flat = [torch.cat([gradient.flatten() for gradient in own]) for own in (first, second)]
        norms = [own.norm() for own in flat]
        together = 1 + flat[0] @ flat[1] / (norms[0] * norms[1])
        # decided on the device: a step waits for nothing
        solved = torch.isfinite(together) & (together > 1e-6)
        weights = [torch.where(solved, 1 / (norm * together.sqrt()), other) for norm, other in zip(norms, (1.0, 0.1), strict=True)]
        for parameter, one, other in zip(parameters, first, second, strict=True):
            parameter.grad = weights[0] * one + weights[1] * other
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)


@dataclass(frozen=True)
class GainOnForget:
    """In each tensor of weights, the step that lowers the first loss most while it raises the second by a stated amount (HAMU-Q).

    With g_r and g_f the gradients of the two losses in a tensor, R = lr |g_r| the length of a plain step and Q = `gain` x lr: where the
    plain step raises the second loss by Q anyway, g_r.g_f <= -Q |g_r| / R, it is taken. Otherwise the step is
    Q g_f / |g_f|^2 - sqrt(R^2 - Q^2 / |g_f|^2) u, u the unit vector of g_r's part orthogonal to g_f. Where that would raise the first loss,
    g_r.g_f > sqrt((|g_r| |g_f|)^2 - Q^2 |g_r|^2 / R^2), or no step of length R gains Q, the tensor stays. arXiv:2606.02119.

    Args:
        gain: Q as a share of the learning rate.
        max_norm: highest norm of each of the two gradients, over all tensors.
    """

    gain: float
    max_norm: float = 1.0

    def __call__(self, losses: "Sequence[Tensor]", parameters: "Sequence[Parameter]") -> None:
        import torch

        gradients = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True) for loss in losses]
        clipped = []
        for own in gradients:
            norm = torch.stack([gradient.norm() for gradient in own]).norm()
            clipped.append([gradient * (self.max_norm / norm.clamp(min=self.max_norm)) for gradient in own])
        for parameter, retain, forget in zip(parameters, *clipped, strict=True):
            parameter.grad = self._step(retain, forget)

    def _step(self, retain: "Tensor", forget: "Tensor") -> "Tensor":
        """Minus the step, divided by the learning rate. Decided on the device: a step waits for nothing."""
        import torch

        tiny = 1e-12
        dot, of_retain, of_forget = (retain * forget).sum(), (retain**2).sum(), (forget**2).sum()
        across = retain - dot / of_forget.clamp(min=tiny) * forget
        rest = of_retain - self.gain**2 / of_forget.clamp(min=tiny)
        bent = rest.clamp(min=0).sqrt() * across / across.norm().clamp(min=tiny) - self.gain * forget / of_forget.clamp(min=tiny)
        stays = (rest <= 0) | (dot > (of_retain * of_forget - self.gain**2).clamp(min=0).sqrt())
        return torch.where(dot <= -self.gain, retain, torch.where(stays, torch.zeros_like(retain), bent))


@dataclass(frozen=True)
class ForgetSalient:
    """In steps on forget alone: only weights that matter to forget at least as much as to retain (SFR-on, arXiv:2409.19732, equation 12).

    A weight matters as much as the squared gradients of its cross-entropy at the original, in eval mode, on batches as the authors take
    them. Other weights get a gradient of 0, so that only momentum and weight decay move them, as in the authors' code.

    Args:
        threshold: smallest ratio of forget's squared gradient to retain's.
        max_norm: highest norm of the gradient of a step on forget.
        batch_size: images per squared gradient.
    """

    threshold: float = 1.0
    max_norm: float = 7.0
    batch_size: int = 128

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> Callable[[str], None]:
        import torch

        forget, retain = (squared_gradients(refs.original, data, data.splits[split], self.batch_size) for split in ("forget", "retain"))
        tiny = 1e-15  # a weight without gradients counts as salient, as in the authors' code
        salient = {name: (forget[name] + tiny) / (retain[name] + tiny) >= self.threshold for name in forget}

        def mask(letters: str) -> None:
            if letters != "F":
                return
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    parameter.grad *= salient[name]
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.max_norm)

        return mask


@dataclass(frozen=True)
class SlowOthers:
    """Multiply the gradients of the convolutions' other weights than `importance.least_telling` finds by `factor` (MSG).

    Args:
        share: of the weights of each convolution that keep their gradient.
        factor: of the others' gradients.
        seed: as in `gradient_edits.ReinitialiseLeast`.
    """

    share: float = 0.3
    factor: float = 0.1
    seed: int = 0

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> Callable[[str], None]:
        masks = least_telling(data, refs, self.share, self.seed)
        factors = {name: mask + self.factor * ~mask for name, mask in masks.items()}

        def slow(letters: str) -> None:
            for name, own in factors.items():
                gradient = model.get_parameter(name).grad
                if gradient is not None:
                    gradient *= own

        return slow
