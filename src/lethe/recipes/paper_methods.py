"""The ten methods of the project report "Efficient Machine Unlearning for Deep Neural Networks" and its notebook.

A method is a function of numbers that returns a recipe; params.yaml holds the numbers. R is an optimizer step on a retain batch, F one on
a forget batch at a negative scale (gradient ascent).
"""

from lethe.recipes.ordering import Alternate, Every, InTurn
from lethe.recipes.parameters import Epochs, FinalEpochs, Peak, Power, RampShape, RepairEvery, Scale, Unfreeze, UnfreezeAt
from lethe.recipes.recipe import Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.schedules import Ramp, Schedule
from lethe.recipes.trainable import Layers, Select, Stages
from lethe.recipes.training import Training

PAPER_METHODS = (*(f"model_{number}" for number in range(1, 7)), *(f"hybrid_{number}" for number in range(1, 5)))

RETAIN = (Term("retain"),)


def forget_at(scale: float | Schedule) -> tuple[Term, ...]:
    """The forget loss at a scale; negative: gradient ascent."""
    return (Term("forget", weight=scale),)


@register_method(source="report, Model 1 (5 epochs; notebook 100)")
def model_1(training: Training, *, epochs: Epochs) -> Recipe:
    """Fine-tune the whole network on retain.

    Batch order: R R R.
    Weakness: nothing pushes the forget set out; what it left in the weights stays.

    Returns:
        One phase, `retain`.
    """
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)


@register_method(source="report, Model 2 (5 epochs; notebook 100, started from Model 1's result)")
def model_2(training: Training, *, epochs: Epochs) -> Recipe:
    """Fine-tune the last block and the head on retain.

    Batch order: R R R.
    Weakness: as Model 1, and the frozen layers keep everything.

    Returns:
        One phase, `retain`; trains is layer4 and fc in params.yaml.
    """
    return model_1(training, epochs=epochs)


@register_method(source="report, Model 3 (10 epochs, scale -1)")
def model_3(training: Training, *, epochs: Epochs, scale: Scale) -> Recipe:
    """Fine-tune the last block and the head on retain, then one epoch of gradient ascent on forget.

    Batch order: R R R, and F F once at the end, with the same optimizer.
    Weakness: no repair follows the ascent.

    Returns:
        Phases `retain` and `reversal`; without epochs both are of 0.
    """
    return (
        training.first("retain", epochs, RETAIN),
        training.then("reversal", min(1, epochs), forget_at(scale), keep=training.keep),
    )


@register_method(source="report, Model 4 (10 epochs, scale -0.1)")
def model_4(training: Training, *, epochs: Epochs, scale: Scale) -> Recipe:
    """Descend on all of retain, then ascend on all of forget, every epoch.

    Batch order: R R R R F F.
    Weakness: each epoch ends on damage that the next pass over retain undoes.

    Returns:
        One phase, `in_turn`.
    """
    return (training.first("in_turn", epochs, RETAIN + forget_at(scale), InTurn(), keep=training.keep),)


@register_method(source="report, Model 5 (50 epochs of 40 pairs, scale -0.5)")
def model_5(training: Training, *, epochs: Epochs, scale: Scale) -> Recipe:
    """Alternate retain and forget batches until forget is used up.

    Batch order: R F R F.
    Weakness: sees a ninth of retain per epoch, and loses accuracy everywhere.

    Returns:
        One phase, `alternate`.
    """
    return _alternating(training, epochs, scale)


@register_method(source="report, Model 6 (50 + 5 epochs, scale -0.5)")
def model_6(training: Training, *, epochs: Epochs, scale: Scale, final_epochs: FinalEpochs) -> Recipe:
    """Model 5, then epochs on retain.

    Batch order: R F R F; at the end R R R.
    Weakness: the final epochs bring much of forget back.

    Returns:
        Phases `alternate` and `final`.
    """
    return _alternating(training, epochs, scale, final_epochs)


@register_method(source="report, Hybrid-1 (50 epochs, linear; peak not stated, notebook -0.6)")
def hybrid_1(training: Training, *, epochs: Epochs, peak: Peak, shape: RampShape, power: Power) -> Recipe:
    """Model 5 with a scale that grows from 0.

    Batch order: R F R F.
    Weakness: ends at the peak without repair, and loses accuracy everywhere.

    Returns:
        One phase, `alternate`.
    """
    return _alternating(training, epochs, Ramp(peak, shape, power))


@register_method(source='report, Hybrid-2 (numbers not stated; notebook 50 + 10, peak -0.8, its "exponential" ramp is t ** 2)')
def hybrid_2(training: Training, *, epochs: Epochs, peak: Peak, shape: RampShape, power: Power, final_epochs: FinalEpochs) -> Recipe:
    """Model 6 with a scale that grows from 0.

    Batch order: R F R F; at the end R R R.
    Weakness: as Model 6.

    Returns:
        Phases `alternate` and `final`.
    """
    return _alternating(training, epochs, Ramp(peak, shape, power), final_epochs)


@register_method(source="report, Hybrid-3 (numbers not stated; notebook 50 + 10, peak -1, t ** 2, head only)")
def hybrid_3(
    training: Training,
    *,
    epochs: Epochs,
    peak: Peak,
    shape: RampShape,
    power: Power,
    repair_every: RepairEvery,
    final_epochs: FinalEpochs,
) -> Recipe:
    """All of retain with two forget batches after each retain batch until forget is used up; repair passes; epochs on retain.

    Batch order: R F F R F F R R R, after every 10th epoch also R R R R R; at the end R R R.
    Weakness: only the last block and the head forget; what the frozen layers know of forget stays.

    Returns:
        Phases `hybrid` and `final`.
    """
    layers = Layers(training.trains)
    return _repaired(training, epochs, Ramp(peak, shape, power), repair_every, final_epochs, layers, layers)


@register_method(source="report, Hybrid-4 (layer1 and layer2 from 30 % on; notebook 50 + 10, peak -1, t ** 2)")
def hybrid_4(
    training: Training,
    *,
    epochs: Epochs,
    peak: Peak,
    shape: RampShape,
    power: Power,
    repair_every: RepairEvery,
    final_epochs: FinalEpochs,
    unfreeze: Unfreeze,
    unfreeze_at: UnfreezeAt,
) -> Recipe:
    """Hybrid-3 in which early layers train too after a fraction of the epochs.

    Batch order: as Hybrid-3.
    Weakness: at the report's numbers it over-forgets: forget accuracy far below a retrained model's.

    Returns:
        Phases `hybrid` and `final`; `hybrid` also trains unfreeze from the share unfreeze_at of its epochs on, `final` throughout.
    """
    unfrozen = Layers(training.trains + unfreeze)
    stages = Stages(((0.0, Layers(training.trains)), (unfreeze_at, unfrozen)))
    return _repaired(training, epochs, Ramp(peak, shape, power), repair_every, final_epochs, stages, unfrozen)


def _alternating(training: Training, epochs: int, scale: float | Schedule, final_epochs: int | None = None) -> Recipe:
    """Alternating retain and forget batches; with `final_epochs`, then epochs on retain."""
    terms = RETAIN + forget_at(scale)
    if final_epochs is None:
        return (training.first("alternate", epochs, terms, Alternate(), keep=training.keep),)
    return (
        training.first("alternate", epochs, terms, Alternate()),
        training.then("final", final_epochs, RETAIN, keep=training.keep),
    )


def _repaired(
    training: Training, epochs: int, scale: Schedule, repair_every: int, final_epochs: int, trains: Select, finally_: Select
) -> Recipe:
    """Two forget batches after each retain batch, repair passes, then epochs on retain that train `finally_`."""
    order = Every(repair_every, Alternate(2, "longest"))
    return (
        training.first("hybrid", epochs, RETAIN + forget_at(scale), order, trains=trains),
        training.then("final", final_epochs, RETAIN, trains=finally_, keep=training.keep),
    )
