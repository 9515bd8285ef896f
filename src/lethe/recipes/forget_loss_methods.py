"""Methods of the field with a loss on the labels of forget.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from typing import Any

from lethe.recipes.constraints import Saliency
from lethe.recipes.gradients import Bargain, ForgetSalient, GainOnForget
from lethe.recipes.inputs import Adversarial, Differentiable, Perturbed
from lethe.recipes.losses import Hinge, RandomLabels, Sensitivity, Weighted
from lethe.recipes.ordering import Ahead, Alongside, InTurn, Together
from lethe.recipes.parameters import (
    AscentLimit,
    AttackRadius,
    AttackSteps,
    Balance,
    Draws,
    Epochs,
    ForgetBatchSize,
    ForgetClip,
    ForgetEvery,
    ForgetGain,
    JointClip,
    Radius,
    RetainEpochs,
    RetainShare,
    SalienceThreshold,
    SaliencyShare,
    Scale,
    SensitivityRise,
)
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.schedules import Cosine
from lethe.recipes.stopping import SensitivityRose
from lethe.recipes.training import Training, augmentation
from lethe.recipes.unseen_losses import ByForgetting

RETAIN = (Term("retain"),)


@register_method(source="NegGrad+ (Kurmanji et al., arXiv:2302.09880, section 4)")
def neggrad_plus(training: Training, *, epochs: Epochs, retain_share: RetainShare, ascent_limit: AscentLimit = 0.0) -> Recipe:
    """Descend on retain and ascend on forget in the same step.

    Batch order: RF RF RF, two forward passes; the shorter stream is cycled.
    ascent_limit is ours: with it the ascent is bounded, and images whose loss is above it are left alone.
    Weakness: the ascent has no bound; the share decides between forgetting nothing and breaking the model.

    Returns:
        One phase, `joint`: retain_share x loss on retain - (1 - retain_share) x loss on forget; with ascent_limit
        + (1 - retain_share) x max(0, ascent_limit - loss) of each forget image in place of the last.
    """
    rest = round(1 - retain_share, 12)
    away = Term("forget", Hinge(ascent_limit), rest) if ascent_limit else Term("forget", weight=-rest)
    terms = (Term("retain", weight=retain_share), away)
    return (training.first("joint", epochs, terms, Together(), keep=training.keep),)


@register_method(source="random labels (Golatkar et al., arXiv:1911.04933), as SalUn (arXiv:2310.12508) runs it")
def random_label(training: Training, *, epochs: Epochs) -> Recipe:
    """A pass over forget with labels drawn in every batch, then a pass over retain, every epoch.

    Batch order: F F R R R R.
    Weakness: teaches wrong answers, which an attack tells from the answers of a model that never saw the images.

    Returns:
        One phase, `random_label`.
    """
    return (_random_label(training, epochs, None),)


@register_method(source="SalUn (Fan et al., ICLR 2024, arXiv:2310.12508)")
def salun(training: Training, *, epochs: Epochs, saliency_share: SaliencyShare) -> Recipe:
    """Random labels, moving only the weights with the largest gradient on forget.

    Batch order: F F R R R R.
    Weakness: as random_label; the frozen weights keep what they know.

    Returns:
        One phase, `random_label`, that moves only saliency_share of the weights.
    """
    return (_random_label(training, epochs, Saliency(saliency_share)),)


def _random_label(training: Training, epochs: int, constraint: Saliency | None) -> Phase:
    terms = (Term("forget", RandomLabels()), *RETAIN)
    return training.first("random_label", epochs, terms, InTurn(), constraint=constraint, keep=training.keep)


@register_method(source="SFR-on (Huang et al., NeurIPS 2024, arXiv:2409.19732; with forget_optimizer: DualOptim, arXiv:2504.15827)")
def sfr_on(
    training: Training,
    *,
    retain_epochs: RetainEpochs,
    forget_every: ForgetEvery,
    scale: Scale,
    threshold: SalienceThreshold,
    forget_clip: ForgetClip,
) -> Recipe:
    """Descend on retain; every few steps ascend on forget, with the weights that matter to forget more than to retain.

    Batch order: F R R R R R.
    Images that are known best weigh most in the ascent, whose weight falls from scale to 0 on a cosine, as the learning rate does.
    As the authors' code, except that each pass over retain begins with a step on forget.
    Weakness: the ascent is strong and stopped by the schedule alone; results differ much between seeds.

    Returns:
        One phase, `forget_and_retain`, of retain_epochs passes over retain. Empty without them.
    """
    terms = (*RETAIN, Term("forget", Weighted(-0.5), Cosine(scale)))
    salient = ForgetSalient(threshold, forget_clip)
    rest: dict[str, Any] = {"order": Ahead(forget_every), "weight_steps": "batch", "gradients": salient, "keep": training.keep}
    return (training.part("forget_and_retain", retain_epochs, 0.0, 1.0, terms, **rest),) if retain_epochs else ()


@register_method(source="MUNBa (Wu and Harandi, arXiv:2411.15537)")
def munba(training: Training, *, epochs: Epochs, joint_clip: JointClip) -> Recipe:
    """Step along the sum of the unit gradients of the losses on retain and on forget with random labels.

    Batch order: RF RF R R, two forward passes; forget is not cycled, and what it has beyond retain is left out of the epoch.
    The authors' closed form; their code decides by other rounding when two gradients are opposite, and cuts its learning rate by steps.
    Weakness: as random_label; a paired step has the same length whether there is much or nothing left to forget.

    Returns:
        One phase, `bargain`, whose gradient has a norm of joint_clip at most.
    """
    terms = (*RETAIN, Term("forget", RandomLabels()))
    return (training.first("bargain", epochs, terms, Alongside(cycle=False), combine=Bargain(joint_clip), keep=training.keep),)


@register_method(source="HAMU-Q (Chen et al., ICML 2026, arXiv:2606.02119), from a third party's summary")
def hamu(training: Training, *, epochs: Epochs, forget_gain: ForgetGain, joint_clip: JointClip) -> Recipe:
    """Step, tensor by tensor, so that the loss on forget rises by a stated amount and that on retain falls most.

    Batch order: RF RF RF, two forward passes; the shorter stream is cycled.
    A tensor whose step would raise the loss on retain stays; the authors then think of stopping. They take layers where this takes
    tensors, and what the rule gives goes through the optimizer, with its momentum.
    Weakness: the ascent has no bound but retain's gradient, which is small where retain is known by heart: then little is gained.

    Returns:
        One phase, `gain`: each step raises the loss on forget by forget_gain x learning rate, to first order.
    """
    terms = (*RETAIN, Term("forget"))
    return (training.first("gain", epochs, terms, Together(), combine=GainOnForget(forget_gain, joint_clip), keep=training.keep),)


@register_method(source="FaLW (ICLR 2026), from a third party's summary, on random labels")
def falw(training: Training, *, epochs: Epochs, balance: Balance) -> Recipe:
    """Random labels, weighted by how much better than unseen images the model still knows each image.

    Batch order: F F R R R R.
    The statistics of unseen images are measured at the start of every epoch, on half of validation; the authors' interval is not known.
    Weakness: as random_label; it needs unseen images of every class.

    Returns:
        One phase, `reweighted`.
    """
    terms = (Term("forget", ByForgetting(balance, "tanh")), *RETAIN)
    return (training.first("reweighted", epochs, terms, InTurn(), keep=training.keep),)


@register_method(source="RURK (Hsu et al., arXiv:2601.22359)")
def rurk(training: Training, *, epochs: Epochs, scale: Scale, radius: Radius, draws: Draws) -> Recipe:
    """Descend on retain and ascend on forget and on perturbed copies of it, in the same step.

    Batch order: RF RF RF, two forward passes; the shorter stream is cycled; F holds each image and its copies.
    Copies are drawn in a ball around the image and not clipped, as this project's measure of residual knowledge draws them. The weight
    of the ascent is ours, as NegGrad+'s: the authors' is not known to us.
    Weakness: the ascent has no bound, as NegGrad+'s.

    Returns:
        One phase, `joint`: loss on retain + scale x loss on forget and its copies; scale is negative.
    """
    terms = (*RETAIN, Term("forget", weight=scale, inputs=Perturbed(radius, draws)))
    return (training.first("joint", epochs, terms, Together(), keep=training.keep),)


@register_method(source="AMUN (Ebrahimpour-Boroojeny et al., arXiv:2503.00917)")
def amun(
    training: Training, *, epochs: Epochs, attack_radius: AttackRadius, attack_steps: AttackSteps, forget_batch_size: ForgetBatchSize
) -> Recipe:
    """Fine-tune on all training images and on adversarial examples of forget, labelled as the original misclassifies them.

    Batch order: TF TF TF in one forward pass; T is a batch of retain and forget with their labels, F one of adversarial examples.
    The authors shuffle the three sets together; here each batch holds the same share of adversarial examples. Their learning rate falls
    to a tenth after every epoch; here it follows lr_schedule. Only T is augmented.
    Weakness: trains on forget with its labels. The attack takes many passes over forget before the first step, which the planned cost
    leaves out and the measured one counts.

    Returns:
        One phase, `adversarial`; the loss is the mean over all images of the batch.
    """
    whole = training.batch_size + forget_batch_size
    terms = (
        Term("train", weight=training.batch_size / whole),
        Term("forget", weight=forget_batch_size / whole, batch_size=forget_batch_size, inputs=Adversarial(attack_radius, attack_steps)),
    )
    rest: dict[str, Any] = {"forward": "joint", "augment": augmentation(training.augment, ("train",)), "keep": training.keep}
    return (training.first("adversarial", epochs, terms, Alongside(), **rest),)


@register_method(source="MU-Mis (Cheng et al., ICLR 2026, arXiv:2402.15109)")
def mu_mis(training: Training, *, epochs: Epochs, sensitivity_rise: SensitivityRise) -> Recipe:
    """Make each forget image move the logit of its label no more than those of other classes, until these begin to react.

    Batch order: F F F. Retain is not used.
    It ends after the epoch in which the other classes' sensitivity has risen from its minimum. The authors look at it step by step, and
    their other class is a fixed draw; the rise and the learning rate are ours, not read in their code.
    Weakness: the loss has no bound; on a random request its gap is large, and only its answers on forget come near.

    Returns:
        One phase, `insensitive`, of epochs at most.
    """
    term = Term("forget", Sensitivity(), inputs=Differentiable())
    return (training.first("insensitive", epochs, (term,), stop=SensitivityRose(sensitivity_rise), keep=training.keep),)
