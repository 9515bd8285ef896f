"""Methods of the field with a loss on the labels of forget.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from typing import Any

from lethe.recipes.constraints import Saliency
from lethe.recipes.gradients import Bargain, ForgetSalient
from lethe.recipes.losses import RandomLabels, Weighted
from lethe.recipes.ordering import Ahead, InTurn, Together
from lethe.recipes.parameters import (
    Epochs,
    ForgetClip,
    ForgetEvery,
    JointClip,
    RetainEpochs,
    RetainShare,
    SalienceThreshold,
    SaliencyShare,
    Scale,
)
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.schedules import Cosine
from lethe.recipes.training import Training

RETAIN = (Term("retain"),)


@register_method(source="NegGrad+ (Kurmanji et al., arXiv:2302.09880, section 4)")
def neggrad_plus(training: Training, *, epochs: Epochs, retain_share: RetainShare) -> Recipe:
    """Descend on retain and ascend on forget in the same step.

    Batch order: RF RF RF, two forward passes; the shorter stream is cycled.
    Weakness: the ascent has no bound; the share decides between forgetting nothing and breaking the model."""
    terms = (Term("retain", weight=retain_share), Term("forget", weight=round(retain_share - 1, 12)))
    return (training.first("joint", epochs, terms, Together(), keep=training.keep),)


@register_method(source="random labels (Golatkar et al., arXiv:1911.04933), as SalUn (arXiv:2310.12508) runs it")
def random_label(training: Training, *, epochs: Epochs) -> Recipe:
    """A pass over forget with labels drawn in every batch, then a pass over retain, every epoch.

    Batch order: F F R R R R.
    Weakness: teaches wrong answers, which an attack tells from the answers of a model that never saw the images."""
    return (_random_label(training, epochs, None),)


@register_method(source="SalUn (Fan et al., ICLR 2024, arXiv:2310.12508)")
def salun(training: Training, *, epochs: Epochs, saliency_share: SaliencyShare) -> Recipe:
    """Random labels, moving only the weights with the largest gradient on forget.

    Batch order: F F R R R R.
    Weakness: as random_label; the frozen weights keep what they know."""
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
    Weakness: the ascent is strong and stopped by the schedule alone; results differ much between seeds."""
    terms = (*RETAIN, Term("forget", Weighted(-0.5), Cosine(scale)))
    salient = ForgetSalient(threshold, forget_clip)
    rest: dict[str, Any] = {"order": Ahead(forget_every), "weight_steps": "batch", "gradients": salient, "keep": training.keep}
    return (training.part("forget_and_retain", retain_epochs, 0.0, 1.0, terms, **rest),) if retain_epochs else ()


@register_method(source="MUNBa (Wu and Harandi, arXiv:2411.15537)")
def munba(training: Training, *, epochs: Epochs, joint_clip: JointClip) -> Recipe:
    """Step along the sum of the unit gradients of the losses on retain and on forget with random labels.

    Batch order: RF RF R R, two forward passes; forget is not cycled.
    The authors' closed form; their code decides by other rounding when two gradients are opposite, and cuts its learning rate by steps.
    Weakness: as random_label; a paired step has the same length whether there is much or nothing left to forget."""
    terms = (*RETAIN, Term("forget", RandomLabels()))
    return (training.first("bargain", epochs, terms, Together(cycle=False), combine=Bargain(joint_clip), keep=training.keep),)
