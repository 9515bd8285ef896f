"""Recipes: a method is a tuple of phases and edits, which are values that compare, print and hash.

The repr of a recipe identifies a run: it is logged and stored in the metadata of every model, and the resume state and DVC depend on it.
`parse` reads it back, so that two recipes are compared as values.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lethe.recipes import (
    constraints,
    contrast,
    gradient_edits,
    gradients,
    inputs,
    kept_weights,
    losses,
    optimizers,
    ordering,
    schedules,
    stopping,
    stored,
    trainable,
    unseen_losses,
    weight_edits,
)
from lethe.recipes.constraints import Constraint, Penalty
from lethe.recipes.gradients import Combination, GradientRule
from lethe.recipes.inputs import Inputs
from lethe.recipes.losses import CrossEntropy, Loss
from lethe.recipes.optimizers import OptimizerRecipe
from lethe.recipes.ordering import InTurn, Lengths, Order
from lethe.recipes.schedules import Constant, Schedule
from lethe.recipes.stopping import Stop
from lethe.recipes.trainable import ALL, Select
from lethe.recipes.values import Value, later

if TYPE_CHECKING:
    from torch import Tensor

Stream: TypeAlias = Literal["retain", "forget", "train"]


@dataclass(frozen=True, repr=False)
class Term(Value):
    """`weight` times `loss` on a batch of `stream`; a negative weight ascends the gradient.

    Args:
        stream: split that the batches come from.
        loss: (logits, batch, references) -> scalar.
        weight: a number, or a function of the phase's progress in [0, 1).
        batch_size: examples per batch of the stream; None: the phase's. Of several terms of a stream the first that has one counts.
        inputs: what is made of the stream's batches before the network sees them. The first of a stream counts.
    """

    stream: Stream
    loss: Loss = CrossEntropy()
    weight: float | Schedule = 1.0
    batch_size: int | None = later(None)
    inputs: Inputs | None = later(None)

    @property
    def letter(self) -> str:
        """The stream's letter in batch orders: R, F or T."""
        return self.stream[0].upper()

    def weight_at(self, progress: float) -> float:
        """The weight at a progress of the phase, in [0, 1)."""
        return self.weight(progress) if callable(self.weight) else self.weight


@dataclass(frozen=True, repr=False)
class Augment(Value):
    """Random crops and flips, drawn for every image in every pass, by a generator seeded with the pass.

    Args:
        crop: pixels of zero padding before a random crop of the image's own size.
        flip: whether an image is flipped horizontally with probability 1/2.
        streams: those that are augmented; None: all.
        resized: in place of `crop`: a random part of the image, of at least this share of its area and an aspect ratio between 3/4 and
            4/3, is enlarged to the image's size (Szegedy et al., arXiv:1409.4842, section 6; torchvision's RandomResizedCrop, but that a
            part which does not fit in the image is made narrower, not drawn again).
    """

    crop: int = 0
    flip: bool = False
    streams: tuple[Stream, ...] | None = later(None)
    resized: float | None = later(None)


@dataclass(frozen=True)
class ByLoss:
    """Draw retain images with replacement, each with a probability proportional to `even` + min(its last loss, `cap`).

    The loss is that of the image's last optimizer step (an image that had none counts as 1 nat), so no forward pass is spent on it.

    Args:
        even: share that every image has in addition to its loss, in nats.
        cap: highest loss that counts, in nats.
        batches: number of batches drawn before the losses are looked at again.
    """

    even: float = 0.4
    cap: float = 3.0
    batches: int = 50

    def weights(self, losses_N: "Tensor") -> "Tensor":
        """What each image's probability is proportional to.

        Args:
            losses_N: float [N], the last loss of each image in nats.
        """
        return self.even + losses_N.clamp(max=self.cap)


@dataclass(frozen=True, repr=False)
class Phase(Value):
    """A number of epochs with the same losses, batch order and optimizer.

    Args:
        name: shown in epoch tables and messages.
        epochs: number of epochs.
        terms: losses by stream; their first stream leads the batch order.
        batch_size: examples per batch, of every stream.
        lr: learning rate as a function of progress in [0, 1).
        order: how batches of the streams follow each other.
        trains: which parameters train.
        optimizer: built at the start of the phase; None keeps the running one with its momentum.
        batchnorm: "train" (as the report's notebook: statistics change in frozen layers too), "eval_frozen" (a BatchNorm that does not
            train keeps its statistics) or "eval" (all keep them).
        augment: random crops and flips, if any.
        keep: "best" restores, at the end, the weights of the epoch with the highest validation accuracy.
        lr_steps: whether the learning rate follows its schedule per epoch or per batch.
        part: length of an epoch as a multiple of what `order` gives: 0.5 stops half way, 1.5 begins the order again.
        weight_steps: whether the weights of terms follow their schedules per epoch or per batch.
        forward: "joint" passes the batches of a step through the network as one batch, so that BatchNorm normalises them together;
            "separate" passes them one after another.
        forget_optimizer: of the steps on forget alone, with its own state (DualOptim, arXiv:2504.15827); None: `optimizer` steps these
            too. It is built at the start of the phase.
        forget_lr: its learning rate; None: `lr`.
        constraint: called after every step, for weights that must not move.
        penalty: added to the loss of every step.
        combine: how the losses of a step on several streams give one gradient; None: their sum's.
        gradients: changes the gradients of every step, before they are clipped.
        stop: ends the phase before its last epoch, if at all.
        clip: highest norm of a step's gradient; None: no limit.
        draw: how retain images are drawn; None: shuffled passes.
        record_losses: whether the last loss of each retain image is recorded, for a later phase that draws by it.
    """

    name: str
    epochs: int
    terms: tuple[Term, ...]
    batch_size: int
    lr: Schedule = Constant(0.001)
    order: Order = InTurn()
    trains: Select = ALL
    optimizer: OptimizerRecipe | None = None
    batchnorm: Literal["train", "eval_frozen", "eval"] = "train"
    augment: Augment | None = None
    keep: Literal["last", "best"] = "last"
    lr_steps: Literal["epoch", "batch"] = "epoch"
    part: float = later(1.0)
    weight_steps: Literal["epoch", "batch"] = later("epoch")
    forward: Literal["separate", "joint"] = later("separate")
    forget_optimizer: OptimizerRecipe | None = later(None)
    forget_lr: Schedule | None = later(None)
    constraint: Constraint | None = later(None)
    penalty: Penalty | None = later(None)
    clip: float | None = later(None)
    draw: ByLoss | None = later(None)
    record_losses: bool = later(False)
    combine: Combination | None = later(None)
    gradients: GradientRule | None = later(None)
    stop: Stop | None = later(None)

    def batch_order(self, lengths: Lengths, epoch: int) -> list[str]:
        """List the optimizer steps of an epoch.

        Args:
            lengths: number of batches per pass, by letter.
            epoch: index within the phase, from 0.

        Returns:
            For each step the letters of the streams whose batches it sums.
        """
        steps = list(self.order(lengths, epoch))
        if self.part == 1 or not steps:
            return steps
        return list(islice(cycle(steps), max(1, round(self.part * len(steps)))))

    def size(self, stream: Stream) -> int:
        """Examples per batch of a stream."""
        own = (term.batch_size for term in self.terms if term.stream == stream)
        return next((size for size in own if size is not None), self.batch_size)

    def augmentation(self, stream: Stream) -> Augment | None:
        """The augmentation of a stream's images, if any."""
        if self.augment is None or self.augment.streams is None or stream in self.augment.streams:
            return self.augment
        return None

    def inputs(self, stream: Stream) -> Inputs | None:
        """What is made of a stream's batches, if anything."""
        return next((term.inputs for term in self.terms if term.stream == stream and term.inputs), None)

    @property
    def streams(self) -> dict[str, Stream]:
        """Stream by letter, in the order of the terms."""
        return {term.letter: term.stream for term in self.terms}

    def scale(self, progress: float) -> float | None:
        """The weight of the forget term (the report's reverse scale) at a progress in [0, 1); None without such a term."""
        return next((term.weight_at(progress) for term in self.terms if term.stream == "forget"), None)

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Return the value that is highest in the best epoch: validation accuracy in percent.

        Raises:
            ValueError: `metrics` has no validation.accuracy.
        """
        if "validation.accuracy" not in metrics:
            raise ValueError(f"phase {self.name!r} keeps its epoch of highest validation.accuracy, which `evaluate` does not measure")
        return metrics["validation.accuracy"]


Edit: TypeAlias = weight_edits.Edit
Recipe: TypeAlias = tuple[Phase | Edit, ...]


def epochs(recipe: Recipe) -> int:
    """Number of epochs of all phases."""
    return sum(step.epochs for step in recipe if isinstance(step, Phase))


def keeps_best(recipe: Recipe) -> bool:
    """Test whether a recipe has to be measured while it runs.

    Args:
        recipe: phases and edits.

    Returns:
        True if a phase keeps the best of its epochs.
    """
    return any(isinstance(step, Phase) and step.keep == "best" for step in recipe)


def last_epoch(recipe: Recipe) -> int:
    """Number of the last epoch, as the engine counts: epochs of all phases and edits, from 1 (`Epoch.global_epoch`)."""
    return sum(step.epochs if isinstance(step, Phase) else 1 for step in recipe)


def _values(*modules: Any) -> dict[str, Callable[..., Any]]:
    return {name: value for m in modules for name, value in vars(m).items() if hasattr(value, "__dataclass_fields__")}


# Class name in recipes written earlier -> its name now. A renamed class gets an entry, so that its results stay valid.
ALIASES: dict[str, str] = {}


VOCABULARY = (
    *(constraints, contrast, gradient_edits, gradients, inputs, kept_weights, losses, optimizers, ordering, schedules, stopping),
    *(stored, trainable, unseen_losses, weight_edits),
)


def names() -> dict[str, Any]:
    """Classes that the repr of a recipe may name, so that `parse(repr(recipe)) == recipe`."""
    own = {c.__name__: c for c in (Term, Augment, ByLoss, Phase)}
    known = {**_values(*VOCABULARY), **own}
    return known | {old: known[new] for old, new in ALIASES.items()}


def parse(text: str) -> Any:
    """Parse the recipe (or any value of the vocabulary) that a text describes. Only constructors of the vocabulary are called.

    Args:
        text: what `repr` returned, now or in an earlier version: classes by former names, without fields added since.

    Returns:
        The value.

    Raises:
        ValueError: the text describes no such value.
    """
    try:
        return _built(ast.parse(text, mode="eval").body, names())
    except (SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a recipe: {error}") from None


def _built(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(_built(each, known) for each in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return known[node.func.id](**{str(word.arg): _built(word.value, known) for word in node.keywords})
    return ast.literal_eval(node)


def same(one: str, other: str) -> bool:
    """Return whether two texts describe the same recipe.

    Args:
        one: repr of a recipe, as `parse` takes it, or any other text.
        other: the same.

    Returns:
        True for equal texts and for texts that parse to equal values. Where one of two different texts is not a recipe: False.
    """
    if one == other:
        return True
    try:
        return bool(parse(one) == parse(other))
    except ValueError:
        return False
