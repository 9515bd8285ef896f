"""Whether a recipe of the caller's own fits a model and its data: what does not is an error in one line, before the first step."""

import numbers
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from torch.nn import Module

from lethe._util.errors import UserError
from lethe.data.device_data import Data, RawInputs
from lethe.recipes.held_out import shapes
from lethe.recipes.inputs import Adversarial, Differentiable, Perturbed, Views
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.stopping import SensitivityRose

RECIPE = "a tuple of phases and edits"
SCHEDULE = "a schedule, e.g. Constant(0.01)"
# Fields of a phase that are functions of the kind that is named
FUNCTIONS = {
    "lr": SCHEDULE,
    "forget_lr": SCHEDULE,
    "order": "a batch order, e.g. InTurn()",
    "trains": 'a choice of parameters, e.g. Layers(("head",))',
}


def check(recipe: Recipe, model: Module, data: Data, measured: bool) -> None:
    """Check that the engine can run a recipe.

    Args:
        recipe: phases and edits.
        model: that it is to change.
        data: that it is to be run on.
        measured: whether the run measures the splits that are given, as it does by default.

    Raises:
        UserError: it can't; the message names the phase and the field.
    """
    if isinstance(recipe, str) or not isinstance(recipe, Sequence):
        raise UserError(f"the recipe is {recipe!r}; it takes {RECIPE} (lethe.unlearn takes a method's name, too)")
    if not recipe:
        raise UserError(f"the recipe is empty; it takes {RECIPE}")
    has_optimizer = False
    for step in recipe:
        if not isinstance(step, Phase):
            if isinstance(step, type) or not callable(step) or not hasattr(step, "name"):
                raise UserError(f"the recipe has {step!r} in it; it takes {RECIPE}")
            continue
        _check_fields(step)
        _check_streams(step, data)
        has_optimizer = has_optimizer or step.optimizer is not None
        if step.epochs and not has_optimizer:
            raise UserError(
                f"phase {step.name} has no optimizer, and no phase before it has one; "
                "it takes optimizer=, e.g. SGD(momentum=0.9, weight_decay=0.0)"
            )
        if step.keep == "best" and measured and "validation" not in data.splits:
            raise UserError("keep is best, which selects by validation accuracy; it takes validation=")
        for t in (0.0, 1.0):
            step.trains(model, t)
    if shapes(recipe) and "validation" not in data.splits:
        raise UserError("the recipe takes the losses of images that no model was trained on; it takes validation=")


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check an argument that counts.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest value that is accepted.
        most: the largest; None: there is none.

    Raises:
        UserError: it is another value.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise UserError(f"{name} is {value!r}; it takes a whole number from {least} {'on' if most is None else f'to {most}'}")


def _check_fields(phase: Phase) -> None:
    """What the fields are, whatever the data."""
    name = f"phase {phase.name}"
    terms = phase.terms
    if not isinstance(terms, tuple | list) or not terms or not all(isinstance(term, Term) for term in terms):
        raise UserError(f'{name}: terms is {terms!r}; it takes a tuple of terms, e.g. (Term("retain"),)')
    whole_number(f"{name}: epochs", phase.epochs, 0)
    for size in (phase.batch_size, *(term.batch_size for term in terms if term.batch_size is not None)):
        whole_number(f"{name}: batch_size", size, 1)
    values: tuple[Phase | Term, ...] = (phase, *terms)
    for value in values:
        for one in fields(value):
            found = getattr(value, one.name)
            if get_origin(one.type) is Literal and found not in get_args(one.type):
                raise UserError(f"{name}: {one.name} is {found!r}; it takes {', '.join(get_args(one.type))}")
    for field, takes in FUNCTIONS.items():
        found = getattr(phase, field)
        if not (field == "forget_lr" and found is None) and (isinstance(found, type) or not callable(found)):
            raise UserError(f"{name}: {field} is {found!r}; it takes {takes}")
    for field in ("optimizer", "forget_optimizer"):
        found = getattr(phase, field)
        if found is not None and (isinstance(found, type) or not hasattr(found, "build")):
            raise UserError(f"{name}: {field} is {found!r}; it takes a recipe of one, e.g. SGD(momentum=0.9, weight_decay=0.0)")
    for term in terms:
        if isinstance(term.loss, type) or not callable(term.loss):
            raise UserError(f"{name}: the loss of {term.stream} is {term.loss!r}; it takes a loss, e.g. CrossEntropy()")


def _check_streams(phase: Phase, data: Data) -> None:
    """Whether the data have what the phase takes of them."""
    for stream in phase.streams.values():
        if stream not in data.splits:
            raise UserError(f"phase {phase.name} trains on {stream}, which is not given")
    retain = len(data.splits["retain"]) if "retain" in data.splits else len(data.labels_N)
    if phase.batch_size > retain:
        raise UserError(f"batch_size is {phase.batch_size}; it takes at most the {retain} retain examples")
    lengths = {letter: data.length(stream, phase.size(stream)) for letter, stream in phase.streams.items()}
    try:
        phase.batch_order(lengths, 0)
    except (TypeError, ValueError) as error:  # one that takes two streams, of another number of them
        streams = ", ".join(phase.streams.values())
        raise UserError(f"phase {phase.name}: order is {phase.order!r}, which does not take the streams {streams} ({error})") from None
    made = [phase.inputs(stream) for stream in phase.streams.values()]
    images = data.images_NCHW
    if images.ndim != 4 and (phase.augment is not None or any(isinstance(each, Views) for each in made)):
        raise UserError(f"phase {phase.name} augments images [B, channels, height, width]; the inputs are of another shape")
    moved = isinstance(phase.stop, SensitivityRose) or any(isinstance(each, Perturbed | Adversarial | Differentiable) for each in made)
    if moved and isinstance(data, RawInputs) and not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"phase {phase.name} moves inputs or takes gradients by them; it takes uint8 images or floats, not {kind}")
