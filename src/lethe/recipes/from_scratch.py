"""Training from scratch as a recipe: of the original and of the retrained reference."""

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
