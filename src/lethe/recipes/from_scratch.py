"""Training from scratch, as a recipe: the original's and the retrained reference's."""

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
        lr, final_lr: peak of the one-cycle schedule, start of the cosine.
        crop: pixels of zero padding for the random crop.

    Returns:
        A recipe of two phases; the second keeps the optimizer and its momentum.
    """
    terms = (Term(stream),)
    optimizer = SGD(momentum, weight_decay)
    return (
        Phase("train", epochs, terms, batch_size, OneCycle(lr), optimizer=optimizer, augment=Augment(crop, flip), lr_steps="batch"),
        Phase("anneal", final_epochs, terms, batch_size, Cosine(final_lr), augment=Augment(0, flip)),
    )
