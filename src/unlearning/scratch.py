"""Training from scratch, as a recipe: the original's and the retrained reference's."""

from unlearning.config import Config
from unlearning.recipe import SGD, Augment, Phase, Recipe, Term
from unlearning.schedule import Cosine, OneCycle

STAGE = {"original": "pretrain", "retrained": "retrain"}


def recipe(config: Config, kind: str) -> Recipe:
    """Training from scratch: one-cycle with crop and flip, then a cosine with flips alone."""
    said = config.pretrain
    epochs, final = said.epochs, said.final_epochs
    if kind == "retrained":
        epochs = epochs if config.retrain.epochs is None else config.retrain.epochs
        final = final if config.retrain.final_epochs is None else config.retrain.final_epochs
    terms = (Term("train" if kind == "original" else "retain"),)
    crop_and_flip, flip = Augment(said.crop, said.flip), Augment(0, said.flip)
    sgd = SGD(said.momentum, said.weight_decay)
    return (
        Phase("train", epochs, terms, said.batch_size, OneCycle(said.lr), optimizer=sgd, augment=crop_and_flip, lr_steps="batch"),
        Phase("anneal", final, terms, said.batch_size, Cosine(said.final_lr), augment=flip),
    )
