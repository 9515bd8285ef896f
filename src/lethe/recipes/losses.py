"""Losses: (logits_BC, batch, references) -> scalar tensor.

torch is imported where a loss is computed, so that naming one (in a recipe, in --help) does not take seconds.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from lethe.recipes import forward
from lethe.recipes.held_out import halves
from lethe.recipes.values import Value, later

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import Batch, DataSource, References


SMALLEST = 1e-7  # nats, of a loss whose log odds are taken: what float32 tells from 0
LARGEST = 80.0  # nats, up to which float32 has the exponential of a loss; above, log odds are the loss itself
LEAST_SPREAD = 0.1  # of log odds, where unseen images are few and alike


class Loss(Protocol):
    """A loss; a frozen dataclass, so that `recipe.parse` can read its repr.

    One that looks at a whole split has a method `prepare(model, data, refs) -> Loss` in addition: the engine calls it at the start of
    every epoch, and steps on what it returns."""

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


@dataclass(frozen=True, repr=False)
class CrossEntropy(Value):
    """Mean cross-entropy against the true labels, in nats.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., arXiv:1512.00567, section 7).
        class_weights: a weight for each class; the mean is weighted by them, as torch's `weight`. Empty: all the same.
    """

    of_logits: ClassVar[bool] = True  # uses no input and no reference, so that cached features can replace inputs (engine/frozen_prefix.py)
    label_smoothing: float = later(0.0)
    class_weights: tuple[float, ...] = later(())

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import cross_entropy

        weights_C = logits_BC.new_tensor(self.class_weights) if self.class_weights else None
        return cross_entropy(logits_BC, batch.labels_B, weights_C, label_smoothing=self.label_smoothing)


class _OfClassesSeen(CrossEntropy):
    """Cross-entropy in which classes of the network after the last one with a weight have weight 0."""

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        unseen = logits_BC.shape[1] - len(self.class_weights)
        return CrossEntropy(self.label_smoothing, (*self.class_weights, *[0.0] * unseen))(logits_BC, batch, refs)


@dataclass(frozen=True)
class BalancedCrossEntropy:
    """Cross-entropy whose classes all weigh the same: a class's weight is inversely proportional to its images in the stream.

    The weights are those of scikit-learn's `class_weight="balanced"`, N / (classes x images of the class); a class without images has
    weight 0. They are counted in the images that are trained on, so a retrained model has those of retain.

    Args:
        stream: split whose images are counted.
        label_smoothing: as in `CrossEntropy`.
    """

    of_logits: ClassVar[bool] = True
    stream: Literal["retain", "forget", "train"]
    label_smoothing: float = 0.0

    def prepare(self, model: "Module", data: "DataSource", refs: "References") -> "Loss":
        """The loss with the weights of the classes.

        Args:
            model: not used.
            data: examples by split.
            refs: not used.

        Returns:
            Cross-entropy with a weight for each class, inverse to its number of images in the stream; 0 for a class without any.
        """
        counts_C = data.labels_N[data.splits[self.stream]].bincount(minlength=int(data.labels_N.max()) + 1).double()
        weights_C = (counts_C.sum() / ((counts_C > 0).sum() * counts_C)).where(counts_C > 0, 0.0)
        return _OfClassesSeen(self.label_smoothing, tuple(weights_C.tolist()))

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        raise TypeError("BalancedCrossEntropy has no weights before `prepare`")


@dataclass(frozen=True)
class RandomLabels:
    """Mean cross-entropy against labels drawn uniformly in every batch, the true one included (Golatkar et al., arXiv:1911.04933)."""

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits_BC, torch.randint(0, logits_BC.shape[1], batch.labels_B.shape, device=logits_BC.device))


@dataclass(frozen=True)
class Hinge:
    """Mean of max(0, `margin` - cross-entropy), in nats: raises the loss of an image up to `margin` and leaves it alone above."""

    of_logits: ClassVar[bool] = True
    margin: float

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import cross_entropy

        return (self.margin - cross_entropy(logits_BC, batch.labels_B, reduction="none")).relu().mean()


@dataclass(frozen=True)
class Uniform:
    """Mean KL divergence of the answers from the uniform distribution over the classes: its cross-entropy less log(classes)."""

    of_logits: ClassVar[bool] = True

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import math

        return -logits_BC.log_softmax(1).mean() - math.log(logits_BC.shape[1])


@dataclass(frozen=True)
class Sensitivity:
    """How much more an image moves the logit of its label than that of another class (MU-Mis, arXiv:2402.15109, equation 8).

    The mean of |gradient of the label's logit|^2 - |gradient of the other's|^2, both with respect to the image; the other class is drawn
    uniformly in every batch. On batches of `inputs.Differentiable`."""

    of_gradients: ClassVar[bool] = True  # with respect to images: a bias that no activation follows has no part in it

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch

        classes = logits_BC.shape[1]
        other_B = (batch.labels_B + torch.randint(1, classes, batch.labels_B.shape, device=logits_BC.device)) % classes

        def squared(wanted_B: "Tensor") -> "Tensor":
            total = logits_BC.gather(1, wanted_B[:, None]).sum()
            (gradient,) = torch.autograd.grad(total, batch.images_BCHW, create_graph=True)
            return gradient.flatten(1).square().sum(1)

        return (squared(batch.labels_B) - squared(other_B)).mean()


@dataclass(frozen=True)
class Weighted:
    """Cross-entropy averaged with weights proportional to its own power, through which no gradient flows.

    With `power` -0.5 it is the forget loss of SFR-on (arXiv:2409.19732, equation 10): images that are known best weigh most."""

    of_logits: ClassVar[bool] = True
    power: float = -0.5

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        from torch.nn.functional import cross_entropy

        loss_B = cross_entropy(logits_BC, batch.labels_B, reduction="none")
        weight_B = loss_B.detach().clamp(min=1e-6) ** self.power  # a loss of 0 would have all the weight
        return (weight_B * loss_B).sum() / weight_B.sum()


@dataclass(frozen=True)
class Distillation:
    """temperature^2 x mean KL divergence of the student's softened answers from the teacher's (Hinton et al., arXiv:1503.02531).

    Args:
        teacher: "original", or as in Bad Teacher (arXiv:2205.08096) a randomly initialised network, "fresh_init" or "random_init", by
            its name in `protocols.References`.
        temperature: by which logits are divided.
    """

    teacher: Literal["original", "random_init", "fresh_init"] = "original"
    temperature: float = 1.0

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import kl_div

        with torch.no_grad():
            wanted_BC = (getattr(refs, self.teacher)(batch.images_BCHW).float() / self.temperature).log_softmax(1)
        given_BC = (logits_BC / self.temperature).log_softmax(1)
        return kl_div(given_BC, wanted_BC, log_target=True, reduction="batchmean") * self.temperature**2


@dataclass(frozen=True, repr=False)
class ToUnseen(Value):
    """Raise the losses of forget to those of images that no model was trained on, and no further.

    Smooth-L1 distance of min(cross-entropy, target) from the target, so that an image whose loss exceeds its target is left alone: it is
    never trained on. The target of an image is a quantile of the losses of its class in the shaping half of validation
    (`held_out.halves`), at the image's own rank by loss among the forget images of its class, both by the model at the start of the
    epoch, in eval mode. A class without validation images takes the quantiles of all of validation.

    Args:
        beta: distance in nats below which the smooth-L1 loss is quadratic.
        cap: highest target, in nats.
        both_ways: also lower losses above the target, which trains on what is to be forgotten.
        on: "log_odds" takes the distance between the log odds of a wrong answer, log(exp(loss) - 1), in place of the losses. Where a model
            is certain of nearly all images, losses are near 0 and so are their distances and gradients; log odds are not.
            "scaled_log_odds" divides them, and so the distance, by their standard deviation over the shaping half, so that a weight means
            the same for a certain and an uncertain model. Quantiles are then of log odds, and at (rank + 0.5) / images of the class, so
            that of a handful the last does not take the highest loss of all, and the loss is multiplied by the cube root of forget /
            retain, at most 1: the fewer there are, the more often each is pulled.
        fade: mean signed distance of forget from its targets, in the units of `on`, below which the loss weakens in proportion, measured
            where targets are: at 0 nothing is pulled any more. 0: it never weakens.
    """

    uses_validation: ClassVar[bool] = True
    beta: float = 0.5
    cap: float = 4.0
    both_ways: bool = False
    on: Literal["loss", "log_odds", "scaled_log_odds"] = later("loss")
    fade: float = later(0.0)

    def prepare(self, model: "Module", data: "DataSource", refs: "References") -> "Loss":
        """The loss with the targets of an epoch.

        Args:
            model: the network at the start of the epoch; its modes are not changed for the caller.
            data: examples by split; it needs validation.
            refs: not used.

        Returns:
            The loss with a target in nats for each image of forget, at most `cap`.
        """
        forget_F = data.splits["forget"]
        shaping_V = halves(data.splits["validation"], data.labels_N)[0]
        splits = forget_F, shaping_V
        forget, unseen = ((_losses(model, data, index_N), data.labels_N[index_N]) for index_N in splits)
        spread, share = 1.0, 1.0
        if self.on == "scaled_log_odds":
            odds_F, odds_V = _as_log_odds(forget[0]), _as_log_odds(unseen[0])
            spread = max(float(odds_V.std(unbiased=False)), LEAST_SPREAD)
            share = min(len(forget_F) / len(data.splits["retain"]), 1.0) ** (1 / 3)
            targets_F = quantiles(odds_F, forget[1], odds_V, unseen[1], inner=True).exp().log1p().clamp(max=self.cap)
        else:
            targets_F = quantiles(*forget, *unseen).clamp(max=self.cap)
        targets_N = targets_F.new_zeros(len(data.labels_N))
        targets_N[forget_F] = targets_F
        left = float((self.measured(targets_F, spread) - self.measured(forget[0], spread)).mean())
        return TowardsTargets(self, targets_N, spread, share * min(max(left / self.fade, 0.0), 1.0) if self.fade else share)

    def measured(self, losses_N: "Tensor", spread: float) -> "Tensor":
        """Losses in nats in the units of `on`; spread: what log odds are divided by."""
        return losses_N if self.on == "loss" else _as_log_odds(losses_N) / spread

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        raise TypeError("ToUnseen has no targets before `prepare`")


@dataclass(frozen=True, eq=False)
class TowardsTargets:
    """`ToUnseen` with the target of each image; part of no recipe. targets_N: float32, by index into all images; spread: what log odds are
    divided by; share: what is left of the weight."""

    rule: ToUnseen
    targets_N: "Tensor"
    spread: float = 1.0
    share: float = 1.0

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import cross_entropy, smooth_l1_loss

        target_B = self.rule.measured(self.targets_N[batch.index_B], self.spread)
        if self.rule.on == "loss":
            loss_B = cross_entropy(logits_BC, batch.labels_B, reduction="none")
        else:
            loss_B = _log_odds(logits_BC, batch.labels_B) / self.spread
        raised_B = loss_B if self.rule.both_ways else torch.minimum(loss_B, target_B)
        return self.share * smooth_l1_loss(raised_B, target_B, beta=self.rule.beta)


def _as_log_odds(losses_N: "Tensor") -> "Tensor":
    """Log odds of a wrong answer for cross-entropies in nats, float32 [N]."""
    return losses_N.clamp(SMALLEST, LARGEST).expm1().log() + (losses_N - LARGEST).clamp(min=0)


def _log_odds(logits_BC: "Tensor", labels_B: "Tensor") -> "Tensor":
    """Log odds of a wrong answer, float32 [B]: log of the sum of the other classes' probabilities minus log of the label's."""
    import torch

    of_label = torch.zeros_like(logits_BC, dtype=torch.bool).scatter(1, labels_B[:, None], True)
    others_B = logits_BC.masked_fill(of_label, float("-inf")).logsumexp(1)
    return others_B - logits_BC.gather(1, labels_B[:, None])[:, 0]


def quantiles(forget_F: "Tensor", labels_F: "Tensor", unseen_V: "Tensor", labels_V: "Tensor", *, inner: bool = False) -> "Tensor":
    """The loss at the rank of each forget image among unseen images of its class.

    Args:
        forget_F: float32, losses of the forget images.
        labels_F: int64, their labels.
        unseen_V: float32, losses of images that no model was trained on.
        labels_V: int64, their labels.
        inner: at (rank + 0.5) / forget images of the class, in place of rank / (forget images of the class - 1).

    Returns:
        float32 [F]: the quantile of the unseen losses of the class at the image's rank, from 0; a single image has 0.5.
    """
    import torch

    targets_F = torch.empty_like(forget_F)
    for label in labels_F.unique():
        own = (labels_F == label).nonzero()[:, 0]
        rank = forget_F[own].argsort(stable=True).argsort().to(forget_F.dtype)
        share = (rank + 0.5) / len(own) if inner or len(own) == 1 else rank / (len(own) - 1)
        unseen = unseen_V[labels_V == label]
        targets_F[own] = torch.quantile(unseen if len(unseen) else unseen_V, share)
    return targets_F


def _losses(model: "Module", data: "DataSource", index_N: "Tensor") -> "Tensor":
    """Cross-entropy of each image in eval mode, float32 [N]."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(forward.logits(model, data, index_N), data.labels_N[index_N], reduction="none")
