"""Methods of the field that edit the weights, and repair on retain what the edit broke.

params.yaml holds the numbers: the authors' or those of independent tuning. R is an optimizer step on a retain batch, F one on a forget
batch."""

from dataclasses import replace

from lethe.recipes.gradient_edits import AscendAndReset, Dampen, ReinitialiseLeast
from lethe.recipes.gradients import SlowOthers
from lethe.recipes.parameters import (
    AscentRate,
    DampeningStrength,
    Epochs,
    FinalEpochs,
    RateSpread,
    ReinitialisedShare,
    ResetShare,
    SelectionThreshold,
    SlowFactor,
    Tasks,
    TaskScale,
)
from lethe.recipes.recipe import Edit, Phase, Recipe, Term
from lethe.recipes.registry import register_method
from lethe.recipes.training import Training
from lethe.recipes.weight_edits import KeepTask, SubtractMerged, SubtractTask, Transpose

RETAIN = (Term("retain"),)


@register_method(source="SSD (Foster et al., AAAI 2024, arXiv:2308.07707)")
def ssd(
    training: Training, *, selection_threshold: SelectionThreshold, dampening_strength: DampeningStrength, final_epochs: FinalEpochs
) -> Recipe:
    """Shrink the weights that matter much more to forget than to all training images.

    Batch order: none; with final_epochs R R R after the edit.
    Squared gradients are taken image by image, as the paper defines them; the authors' code squares the means of batches, which needs
    another threshold. final_epochs are ours: 0 gives the authors' method.
    Weakness: on a random request few weights matter to forget alone; the right threshold differs from model to model.

    Returns:
        The edit, then phase `final`.
    """
    edit = Dampen(selection_threshold, dampening_strength, training.trains)
    return (edit, training.first("final", final_epochs, RETAIN, keep=training.keep))


@register_method(source="task arithmetic (Ilharco et al., ICLR 2023, arXiv:2212.04089), negated as in its section 3")
def task_arithmetic(training: Training, *, epochs: Epochs, task_scale: TaskScale) -> Recipe:
    """Fine-tune on forget, then subtract from the original what that changed.

    Batch order: F F F.
    Retain is not used. BatchNorm's statistics are the original's. `neg_merge` merges several such vectors.
    Weakness: a vector that is scaled far enough to forget breaks the rest.

    Returns:
        Phase `task`, then the edit original - task_scale x (fine-tuned - original). Empty without epochs.
    """
    if not epochs:
        return ()
    return (training.first("task", epochs, (Term("forget"),), keep=training.keep), SubtractTask(task_scale, training.trains))


@register_method(source="NegMerge (Kim et al., ICML 2025, arXiv:2410.05583), from a third party's summary")
def neg_merge(training: Training, *, epochs: Epochs, tasks: Tasks, rate_spread: RateSpread, task_scale: TaskScale) -> Recipe:
    """Fine-tune on forget several times, with different learning rates; subtract what all these changes agree in.

    Batch order: F F F for each of the tasks, each from the original.
    The mean of the changes where all have the same sign, as `task_arithmetic` otherwise. Retain is not used. The authors merge the 10 to
    30 models of a search of hyperparameters; here the learning rate alone differs, and the batches.
    Weakness: as task_arithmetic, with fewer weights that move; it pays for every model that it merges.

    Returns:
        For each task a phase `task_<number>` at a learning rate from lr / rate_spread to lr x rate_spread, and the edit that keeps its
        change; at the end the edit that subtracts task_scale x what they agree in. Empty without epochs.
    """
    if not epochs:
        return ()
    steps: list[Phase | Edit] = []
    for task in range(tasks):
        own = replace(training, lr=round(training.lr * rate_spread ** (2 * task / (tasks - 1) - 1), 12))
        steps += [own.first(f"task_{task + 1}", epochs, (Term("forget"),), keep=training.keep), KeepTask(training.trains)]
    return (*steps, SubtractMerged(task_scale, training.trains))


@register_method(source="RELOAD (Newatia et al., ICLR 2026, arXiv:2604.10636), from a third party's summary")
def reload(training: Training, *, epochs: Epochs, ascent_rate: AscentRate, reset_share: ResetShare) -> Recipe:
    """Step up the gradient of forget once, reset the weights that it concerns least, then train on retain.

    Batch order: R R R.
    The rate, the share and e are ours; the authors train until convergence. They never read forget but store a gradient of all training
    images beforehand, which is the same sum.
    Weakness: weights are reset one by one, and what they held is found again by their neighbours.

    Returns:
        The edit, then phase `retain`. Empty without epochs.
    """
    if not epochs:
        return ()
    edit = AscendAndReset(ascent_rate, reset_share, layers=training.trains, init="fresh_init")
    return (edit, training.first("retain", epochs, RETAIN, keep=training.keep))


@register_method(source="MSG (team Kookmin, NeurIPS 2023 unlearning challenge)")
def msg(training: Training, *, epochs: Epochs, reinitialised_share: ReinitialisedShare, slow_factor: SlowFactor) -> Recipe:
    """Reset the weights of each convolution whose gradients on retain and forget differ least, then train on retain, the others slowly.

    Batch order: R R R.
    Reset weights are those of a network initialised as its architecture does it. The learning rate rises for 40 % of the run and falls
    on a cosine; the authors' goes by thirds, epoch by epoch.
    Weakness: needs a network with two-dimensional convolutions; its other layers are only fine-tuned.

    Returns:
        The edit, then phase `retain` in which the gradients of the other weights are multiplied by slow_factor. Empty without epochs.
    """
    if not epochs:
        return ()
    edit = ReinitialiseLeast(reinitialised_share, training.trains, init="fresh_init")
    slow = SlowOthers(reinitialised_share, slow_factor)
    return (edit, training.first("retain", epochs, RETAIN, gradients=slow, keep=training.keep))


@register_method(source="CT (NeurIPS 2023 unlearning challenge, fourth place)")
def ct(training: Training, *, epochs: Epochs) -> Recipe:
    """Transpose every convolution kernel, then train on retain.

    Batch order: R R R.
    Weakness: needs a network with square kernels; what is transposed is found again, as in `not`.

    Returns:
        The edit, then phase `retain`. Empty without epochs.
    """
    return (Transpose(training.trains), training.first("retain", epochs, RETAIN, keep=training.keep)) if epochs else ()
