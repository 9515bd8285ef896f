"""Methods of the field that compare answers with another model's.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

from lethe.recipes.contrast import AwayFromRetain
from lethe.recipes.inputs import InsteadUnseen, WithRetain
from lethe.recipes.kept_weights import KeepWeights, NearestError
from lethe.recipes.losses import CrossEntropy, Distillation, Uniform
from lethe.recipes.ordering import Alongside, InTurn
from lethe.recipes.parameters import (
    ContrastTemperature,
    CrossEntropyWeight,
    DistillationWeight,
    EndAt,
    Epochs,
    ForgetBatchSize,
    ForgetEpochs,
    ForgetWeight,
    TargetOf,
    Temperature,
    UniformEpochs,
    UniformRate,
    UnseenEpochs,
)
from lethe.recipes.recipe import Edit, Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.schedules import Constant, Part
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
    end_at: EndAt = "last",
) -> Recipe:
    """Move away from the original's answers on forget, in the first epochs, and towards them on retain.

    Batch order: F F R R R R in the first forget_epochs, then R R R R.
    Both streams have batches of batch_size, and the learning rate follows lr_schedule over the whole run; the authors' batches of forget
    are smaller, and their rate falls to a tenth after 3, 5 and 9 epochs. end_at unseen is SCRUB+R: the weights after every epoch are
    kept, with their error on forget, and the run ends on those whose error is nearest to the last epoch's on unseen images of the classes
    of forget, from half of validation. A forget_optimizer then begins again in every epoch.
    Weakness: the divergence from the original has no bound.

    Returns:
        Phase `max_min` of forget_epochs, then `min` for the rest of epochs with the same optimizer. The loss on retain is ce_weight x
        cross-entropy + distillation_weight x divergence; `max_min` subtracts the divergence on forget. With end_at unseen each epoch is a
        phase of its own, followed by an edit that keeps the weights; the last edit goes back to the chosen ones. Empty without epochs.
    """
    away = Term("forget", Distillation(temperature=temperature), -1.0)
    towards = (Term("retain", CrossEntropy(), ce_weight), Term("retain", Distillation(temperature=temperature), distillation_weight))
    first = min(forget_epochs, epochs)
    phases: list[Phase] = []
    for start, stop in pairwise(range(epochs + 1) if end_at == "unseen" else sorted({0, first, epochs})):
        name, terms = ("max_min", (away, *towards)) if start < first else ("min", towards)
        changes: dict[str, Any] = {"optimizer": None} if start else {}
        if not isinstance(training.schedule, Constant) and (start, stop) != (0, epochs):
            changes["lr"] = Part(training.schedule, start / epochs, stop / epochs)
        phases.append(training.first(name, stop - start, terms, InTurn(), **changes))
    if end_at == "unseen" and phases:
        steps: list[Phase | Edit] = [step for phase in phases for step in (phase, KeepWeights())]
        return (*steps, NearestError())
    return (*phases[:-1], replace(phases[-1], keep=training.keep)) if phases else ()


@register_method(source="ReGUn, and with target_of class a variant of our own (arXiv:2603.11210)")
def regun(training: Training, *, epochs: Epochs, forget_weight: ForgetWeight, target_of: TargetOf) -> Recipe:
    """Move the answers on forget to the original's mean answer to unseen images, while training on retain.

    Batch order: RF RF RF, as many as forget has batches.
    The unseen images are half of validation, where the authors hold out a tenth of the training images.
    Weakness: on a shuffled batch the target is nearly uniform, which no model that never saw the images answers; it needs unseen images.

    Returns:
        One phase, `guided`: forget_weight x divergence on forget + (1 - forget_weight) x cross-entropy on retain.
    """
    terms = (Term("forget", LikeUnseen(target_of), forget_weight), Term("retain", weight=1 - forget_weight))
    return (training.first("guided", epochs, terms, Alongside(), keep=training.keep),)


@register_method(source="Bad Teacher (Chundawat et al., AAAI 2023, arXiv:2205.08096)")
def bad_teacher(training: Training, *, epochs: Epochs, temperature: Temperature, forget_batch_size: ForgetBatchSize) -> Recipe:
    """Learn the answers of a randomly initialised network on forget, and the original's on part of retain.

    Batch order: RF RF RF in one forward pass, as many as forget has batches.
    The authors draw 30 % of retain once and shuffle it with forget; here every batch holds the same share of forget, and retain goes
    round. The divergence is the mean over images; the authors' code divides it by the number of classes, too.
    Weakness: the answers of a network that knows nothing are not those of one that never saw the images; an attack tells them apart.

    Returns:
        One phase, `two_teachers`; both divergences count by their number of images in the batch.
    """
    whole = training.batch_size + forget_batch_size
    away = Distillation("fresh_init", temperature)
    terms = (
        Term("forget", away, forget_batch_size / whole, forget_batch_size),
        Term("retain", Distillation("original", temperature), training.batch_size / whole),
    )
    return (training.first("two_teachers", epochs, terms, Alongside(), forward="joint", keep=training.keep),)


@register_method(source="FCS (team Fanchuan, winner of the NeurIPS 2023 unlearning challenge)")
def fcs(
    training: Training,
    *,
    epochs: Epochs,
    uniform_epochs: UniformEpochs,
    uniform_lr: UniformRate,
    contrast_temperature: ContrastTemperature,
) -> Recipe:
    """Uniform answers on forget first; then answers on forget that are equally near to all on retain, and passes over retain.

    Batch order: F F; then F F R R R R, where F holds as many retain images as forget images.
    Steps on forget have an optimizer of their own, forget_optimizer, with the same momentum and decay. The authors pair a batch of retain
    with each of forget in two forward passes, and let the learning rate of these steps fall on a cosine; here both are one batch, and
    the rate is constant.
    Weakness: made for a fixed budget of one data set; nothing says when it has forgotten enough.

    Returns:
        Phases `uniform` of uniform_epochs and `contrast` of epochs; one without epochs is left out.
    """
    away = Term("forget", AwayFromRetain(contrast_temperature), inputs=WithRetain())
    own: dict[str, Any] = {"lr": Constant(uniform_lr), "forget_optimizer": None, "forget_lr": None}
    first = training.first("uniform", uniform_epochs, (Term("forget", Uniform()),), **own)
    rest = training.first("contrast", epochs, (away, Term("retain")), InTurn(), keep=training.keep)
    return (*([first] if uniform_epochs else []), *([rest] if epochs else []))


@register_method(source="KDE (team Amnesiacs, NeurIPS 2023 unlearning challenge)")
def kde(
    training: Training, *, epochs: Epochs, unseen_epochs: UnseenEpochs, temperature: Temperature, distillation_weight: DistillationWeight
) -> Recipe:
    """Reset the first convolution and the head (those of reinit), learn the original's answers to unseen images, then train on retain.

    Batch order: F F F, where F holds unseen images in place of forget's; then R R R with distillation from the original.
    The unseen images are drawn from half of validation, as many as forget has; the authors go over all of it. Their soft cross-entropy
    and divergence have the same gradient, so that one distillation stands for both.
    Weakness: the original's answers on retain carry what it knows; it needs unseen images.

    Returns:
        Phases `unseen` of unseen_epochs and `retain` of epochs, with cross-entropy + distillation_weight x divergence; one without epochs
        is left out.
    """
    soft = Distillation(temperature=temperature)
    terms = (Term("retain"), Term("retain", soft, distillation_weight))
    own: dict[str, Any] = {"forget_optimizer": None, "forget_lr": None}
    first = training.first("unseen", unseen_epochs, (Term("forget", soft, inputs=InsteadUnseen()),), **own)
    rest = training.first("retain", epochs, terms, keep=training.keep)
    return (*([first] if unseen_epochs else []), *([rest] if epochs else []))
