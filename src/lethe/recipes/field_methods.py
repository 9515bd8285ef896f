"""Methods of the field as recipes, with the numbers of their authors, or those of independent tuning, in params.yaml.

R is an optimizer step on a retain batch, F one on a forget batch."""

from dataclasses import replace

from lethe.recipes.constraints import L1, Saliency
from lethe.recipes.losses import CrossEntropy, Distillation, RandomLabels
from lethe.recipes.ordering import InTurn, Together
from lethe.recipes.parameters import (
    CropShare,
    CrossEntropyWeight,
    DistillationWeight,
    Epochs,
    ForgetEpochs,
    L1Weight,
    RetainEpochs,
    RetainShare,
    SaliencyShare,
    Temperature,
)
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.training import Training, augmentation

RETAIN = (Term("retain"),)


@register_method(source="fine-tuning as the field runs it; rate and augmentation as tuned in CoUn (NeurIPS 2025, appendix E.2)")
def ft(training: Training, *, retain_epochs: RetainEpochs, crop_share: CropShare) -> Recipe:
    """Fine-tune the whole network on retain at a high learning rate, with augmentation.

    Batch order: R R R.
    One run with warm-up and cosine per batch; crops end after crop_share of it, flips stay.
    Weakness: nothing pushes the forget set out; a model that is trained longer forgets more."""
    if not retain_epochs:
        return ()
    flips = augmentation(tuple(name for name in training.augment if name == "flip"))
    cropped = training.part("fine_tune", retain_epochs, 0.0, crop_share, RETAIN) if crop_share else None
    rest = training.part("fine_tune_flips", retain_epochs, crop_share, 1.0, RETAIN, augment=flips) if crop_share < 1 else None
    *before, last = (phase for phase in (cropped, rest) if phase)
    return (*before, replace(last, keep=training.keep))


@register_method(source="NoT (CVPR 2025): negation of the first convolution; rate and augmentation as ft", name="not")
def negation(training: Training, *, retain_epochs: RetainEpochs, crop_share: CropShare) -> Recipe:
    """Negate the weights of the first convolution, then fine-tune as `ft`.

    Batch order: R R R.
    Weakness: what is negated is found again by training on retain, and with it some of forget."""
    return ft(training, retain_epochs=retain_epochs, crop_share=crop_share)


@register_method(source="NegGrad+ (Kurmanji et al., arXiv:2302.09880, section 4)")
def neggrad_plus(training: Training, *, epochs: Epochs, retain_share: RetainShare) -> Recipe:
    """Descend on retain and ascend on forget in the same step.

    Batch order: RF RF RF, two forward passes; the shorter stream is cycled.
    Weakness: the ascent has no bound; the share decides between forgetting nothing and breaking the model."""
    terms = (Term("retain", weight=retain_share), Term("forget", weight=round(retain_share - 1, 12)))
    return (training.first("joint", epochs, terms, Together(), keep=training.keep),)


@register_method(source="l1-sparse (Jia et al., NeurIPS 2023, arXiv:2304.04934, section 4)")
def l1_sparse(training: Training, *, epochs: Epochs, l1_weight: L1Weight) -> Recipe:
    """Fine-tune on retain with an L1 penalty on all weights, which falls linearly to 0.

    Batch order: R R R.
    Weakness: forgets by shrinking every weight, so that retain and test pay for it."""
    return (training.first("sparse", epochs, RETAIN, penalty=L1(l1_weight), keep=training.keep),)


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


@register_method(source="SCRUB (Kurmanji et al., NeurIPS 2023, arXiv:2302.09880)")
def scrub(
    training: Training,
    *,
    epochs: Epochs,
    forget_epochs: ForgetEpochs,
    temperature: Temperature,
    ce_weight: CrossEntropyWeight,
    distillation_weight: DistillationWeight,
) -> Recipe:
    """Move away from the original's answers on forget, in the first epochs, and towards them on retain.

    Batch order: F F R R R R in the first forget_epochs, then R R R R.
    Weakness: the divergence from the original has no bound."""
    away = Term("forget", Distillation(temperature=temperature), -1.0)
    towards = (Term("retain", CrossEntropy(), ce_weight), Term("retain", Distillation(temperature=temperature), distillation_weight))
    first = min(forget_epochs, epochs)
    phases = [training.first("max_min", first, (away, *towards), InTurn())] if first else []
    if epochs > first:
        rest = training.first("min", epochs - first, towards)
        phases.append(replace(rest, optimizer=None) if first else rest)
    return (*phases[:-1], replace(phases[-1], keep=training.keep)) if phases else ()


@register_method(source="CF-k (Goel et al., arXiv:2201.06640): fine-tuning of the last k layers")
def cf_k(training: Training, *, epochs: Epochs) -> Recipe:
    """Fine-tune the last layers on retain: those of trains.

    Batch order: R R R.
    Weakness: the frozen layers keep everything."""
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)


@register_method(source="EU-k (Goel et al., arXiv:2201.06640): the last k layers trained from scratch")
def eu_k(training: Training, *, epochs: Epochs) -> Recipe:
    """Randomly initialise the last layers, those of reinit, then train on retain what is in trains.

    Batch order: R R R.
    Weakness: the frozen layers keep everything, and features of forget stay as easy as they were."""
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)
