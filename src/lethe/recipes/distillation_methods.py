"""Methods of the field that compare answers with another model's.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from dataclasses import replace

from lethe.recipes.losses import CrossEntropy, Distillation
from lethe.recipes.ordering import Alongside, InTurn
from lethe.recipes.parameters import CrossEntropyWeight, DistillationWeight, Epochs, ForgetEpochs, ForgetWeight, TargetOf, Temperature
from lethe.recipes.recipe import Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.training import Training
from lethe.recipes.unseen_losses import LikeUnseen

RETAIN = (Term("retain"),)


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


@register_method(source="ReGUn, and with target_of class a variant of our own (arXiv:2603.11210)")
def regun(training: Training, *, epochs: Epochs, forget_weight: ForgetWeight, target_of: TargetOf) -> Recipe:
    """Move the answers on forget to the original's mean answer to unseen images, while training on retain.

    Batch order: RF RF RF, as many as forget has batches.
    The unseen images are half of validation, where the authors hold out a tenth of the training images.
    Weakness: on a shuffled batch the target is nearly uniform, which no model that never saw the images answers; it needs unseen images."""
    terms = (Term("forget", LikeUnseen(target_of), forget_weight), Term("retain", weight=1 - forget_weight))
    return (training.first("guided", epochs, terms, Alongside(), keep=training.keep),)
