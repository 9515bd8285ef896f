"""Training of the original and of the retrained reference as a recipe: the built-in one, or a function of the user's own."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from lethe._util.errors import UserError
from lethe._util.plugins import import_reference
from lethe.recipes.losses import BalancedCrossEntropy, CrossEntropy
from lethe.recipes.recipe import Augment, Phase, Recipe, Stream, Term
from lethe.recipes.recipe import epochs as number_of_epochs
from lethe.recipes.schedules import Constant, Cosine, Drops, OneCycle, Schedule, WarmUp
from lethe.recipes.training import augmentation
from lethe.recipes.training import optimizer as optimizer_named

SCHEDULES: Mapping[str, Any] = {"one_cycle": OneCycle, "cosine": Cosine, "constant": Constant, "step": Drops}


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
    optimizer: str = "sgd",
    lr_schedule: str = "one_cycle",
    warmup: float = 0.0,
    augment: tuple[str, ...] | None = None,
    label_smoothing: float = 0.0,
    class_weights: str = "none",
) -> Recipe:
    """Train a reference: `epochs` with augmentation, by default a one-cycle learning rate, then `final_epochs` with a cosine and flips.

    Args:
        stream: "train" for the original, "retain" for the retrained model.
        epochs: number of epochs of the first phase.
        final_epochs: number of epochs of the second phase.
        lr: highest learning rate of the first phase.
        final_lr: start of the cosine schedule of the second.
        momentum: of SGD.
        weight_decay: of the optimizer.
        batch_size: examples per batch.
        crop: pixels of zero padding for the random crop.
        flip: whether images are flipped at random.
        optimizer: sgd, adam or adamw.
        lr_schedule: of the first phase, one of SCHEDULES; followed per batch.
        warmup: share of the first phase in which the learning rate rises from 0 before the schedule.
        augment: names as `training.augmentation` takes them, in place of `crop` and `flip`; None: these.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: none, or balanced (`losses.BalancedCrossEntropy`).

    Returns:
        A recipe of two phases; the second keeps the optimizer and its momentum.
    """
    loss = BalancedCrossEntropy(stream, label_smoothing) if class_weights == "balanced" else CrossEntropy(label_smoothing)
    terms = (Term(stream, loss),)
    schedule: Schedule = SCHEDULES[lr_schedule](lr)
    if warmup:
        schedule = WarmUp(warmup, schedule)
    own = optimizer_named(optimizer, momentum, weight_decay)
    first: Augment | None = Augment(crop, flip)
    second: Augment | None = Augment(0, flip)
    if augment is not None:
        first, second = (augmentation(names) for names in (augment, tuple(name for name in augment if name == "flip")))
    return (
        Phase("train", epochs, terms, batch_size, schedule, optimizer=own, augment=first, lr_steps="batch"),
        Phase("anneal", final_epochs, terms, batch_size, Cosine(final_lr), augment=second),
    )


def own_recipe(reference: str, stream: Stream, numbers: Mapping[str, Any]) -> Recipe:
    """Call a user's function that returns the recipe of a reference: `pretrain.recipe`.

    Args:
        reference: `package.module:function`. Its first argument is the stream; of the others, those that are called as keys of
            `pretrain` (epochs, lr, batch_size, ...) get their values.
        stream: "train" for the original, "retain" for the retrained model.
        numbers: the values by key.

    Returns:
        A recipe that trains on the stream alone.

    Raises:
        UserError: it can't be imported or called, or returns something else.
    """
    called = f"pretrain.recipe is {reference}"
    arguments = own_arguments(reference)
    if not arguments:
        raise UserError(
            f"{called}: it takes no argument; the first is the stream, 'train' for the original and 'retain' for the retrained model"
        )
    _, *others = arguments.values()
    missing = [one.name for one in others if one.name not in numbers and one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if missing:
        raise UserError(f"{called}: its argument {missing[0]} has no default and is no key of pretrain; those are {', '.join(numbers)}")
    named = {one.name: numbers[one.name] for one in others if one.name in numbers}
    try:
        made = import_reference(reference, "pretrain.recipe")(stream, **named)
    except Exception as error:  # the function is the user's own code, and may raise anything
        raise UserError(f"{called}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    steps = tuple(made) if isinstance(made, tuple | list) else ()
    if not steps or not all(isinstance(step, Phase) or (hasattr(step, "name") and callable(step)) for step in steps):
        raise UserError(f"{called}: it returned a {type(made).__name__}; it returns a tuple of lethe.Phase")
    if not number_of_epochs(steps):
        raise UserError(f"{called}: its recipe has no epoch")
    other = {term.stream for step in steps if isinstance(step, Phase) for term in step.terms} - {stream}
    if other:
        raise UserError(f"{called}: it trains on {min(other)}, called with {stream!r}; its terms are lethe.Term(stream)")
    return steps


def own_arguments(reference: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a user's function, by name.

    Args:
        reference: `package.module:function`.

    Raises:
        UserError: it can't be imported, or is no function.
    """
    function = import_reference(reference, "pretrain.recipe")
    if not callable(function):
        raise UserError(f"pretrain.recipe is {reference}: a {type(function).__name__}, not a function")
    return inspect.signature(function).parameters


SMALLEST_BATCH = 16  # below, BatchNorm's statistics of a batch are mostly noise


def enough_steps(numbers: Mapping[str, Any], images: int, least: int) -> dict[str, Any]:
    """Change the numbers of `from_scratch` where they would take too few optimizer steps to learn so few images.

    The batch size is halved, down to SMALLEST_BATCH, and both learning rates with it, which keeps the noise of the steps (linear scaling,
    Goyal et al., arXiv:1706.02677; of Adam and AdamW by the square root, Malladi et al., arXiv:2205.10287) and passes no more images; what
    is still missing is made up by more epochs.

    Args:
        numbers: the keyword arguments of `from_scratch`.
        images: number of training images of the original; a retrained model is trained by the same numbers.
        least: optimizer steps that the two phases together must take.

    Returns:
        The numbers; equal ones where they take enough steps, and where they have no epochs.
    """
    changed = dict(numbers)
    factor = 2.0 if numbers.get("optimizer", "sgd") == "sgd" else math.sqrt(2)
    while 0 < optimizer_steps(changed, images) < least and changed["batch_size"] // 2 >= SMALLEST_BATCH:
        rates = {"lr": changed["lr"] / factor, "final_lr": changed["final_lr"] / factor}
        changed |= {"batch_size": changed["batch_size"] // 2, **rates}
    steps = optimizer_steps(changed, images)
    if 0 < steps < least:
        changed |= {phase: math.ceil(changed[phase] * least / steps) for phase in ("epochs", "final_epochs")}
    return changed


def optimizer_steps(numbers: Mapping[str, Any], images: int) -> int:
    """Return the optimizer steps of both phases, one for each batch, for the keyword arguments of `from_scratch`.

    Args:
        numbers: keyword arguments of `from_scratch`.
        images: number of images that it trains on.

    Returns:
        The number; a last batch that is not full counts as one.
    """
    return int((numbers["epochs"] + numbers["final_epochs"]) * math.ceil(images / numbers["batch_size"]))
