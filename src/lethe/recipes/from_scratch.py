"""Training from scratch as a recipe: of the original and of the retrained reference."""

import math
from collections.abc import Mapping
from typing import Any

from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Augment, Phase, Recipe, Stream, Term
from lethe.recipes.schedules import Cosine, OneCycle


def from_scratch(
    stream: Stream,
    *,
    epochs: int,
    final_epochs: int,
    lr: float,
    final_lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    crop: int,
    flip: bool,
) -> Recipe:
    """Train from random weights: `epochs` with a one-cycle learning rate, crop and flip, then `final_epochs` with a cosine and flips.

    Args:
        stream: "train" for the original, "retain" for the retrained model.
        epochs: number of epochs of the first phase.
        final_epochs: number of epochs of the second phase.
        lr: peak of the one-cycle schedule.
        final_lr: start of the cosine schedule.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: examples per batch.
        crop: pixels of zero padding for the random crop.
        flip: whether images are flipped at random.

    Returns:
        A recipe of two phases; the second keeps the optimizer and its momentum.
    """
    terms = (Term(stream),)
    optimizer = SGD(momentum, weight_decay)
    return (
        Phase("train", epochs, terms, batch_size, OneCycle(lr), optimizer=optimizer, augment=Augment(crop, flip), lr_steps="batch"),
        Phase("anneal", final_epochs, terms, batch_size, Cosine(final_lr), augment=Augment(0, flip)),
    )


SMALLEST_BATCH = 16  # below, BatchNorm's statistics of a batch are mostly noise


def enough_steps(numbers: Mapping[str, Any], images: int, least: int) -> dict[str, Any]:
    """Change the numbers of `from_scratch` where they would take too few optimizer steps to learn so few images.

    The batch size is halved, down to SMALLEST_BATCH, and both learning rates with it, which keeps the noise of the steps (linear scaling,
    Goyal et al., arXiv:1706.02677) and passes no more images; what is still missing is made up by more epochs.

    Args:
        numbers: the keyword arguments of `from_scratch`.
        images: number of training images of the original; a retrained model is trained by the same numbers.
        least: optimizer steps that the two phases together must take.

    Returns:
        The numbers; equal ones where they take enough steps, and where they have no epochs.
    """
    changed = dict(numbers)
    while 0 < optimizer_steps(changed, images) < least and changed["batch_size"] // 2 >= SMALLEST_BATCH:
        changed |= {"batch_size": changed["batch_size"] // 2, "lr": changed["lr"] / 2, "final_lr": changed["final_lr"] / 2}
    steps = optimizer_steps(changed, images)
    if 0 < steps < least:
        changed |= {phase: math.ceil(changed[phase] * least / steps) for phase in ("epochs", "final_epochs")}
    return changed


def optimizer_steps(numbers: Mapping[str, Any], images: int) -> int:
    """Return the optimizer steps of both phases, one for each batch, for the keyword arguments of `from_scratch`."""
    return int((numbers["epochs"] + numbers["final_epochs"]) * math.ceil(images / numbers["batch_size"]))
