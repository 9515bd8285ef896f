"""The vocabulary. A method is a tuple of phases and edits: values that compare, print and hash.

The repr of a recipe is what a run *was*: it is logged, stands in the metadata of every model, and the resume state and DVC depend on it.
`parse` reads it back, so that two recipes are compared as values.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lethe.recipes import losses, optimizers
from lethe.recipes import ordering as order
from lethe.recipes import schedules as schedule
from lethe.recipes import trainable as select
from lethe.recipes import weight_edits as edits
from lethe.recipes.losses import CrossEntropy, Loss
from lethe.recipes.optimizers import OptimizerRecipe
from lethe.recipes.ordering import InTurn, Lengths, Order
from lethe.recipes.schedules import Constant, Schedule
from lethe.recipes.trainable import ALL, Select

Stream: TypeAlias = Literal["retain", "forget", "train"]


@dataclass(frozen=True)
class Term:
    """`weight` times `loss` on a batch of `stream`; a negative weight climbs (gradient reversal)."""

    stream: Stream
    loss: Loss = CrossEntropy()
    weight: float | Schedule = 1.0

    @property
    def letter(self) -> str:
        return self.stream[0].upper()

    def weight_at(self, t: float) -> float:
        return self.weight(t) if callable(self.weight) else self.weight


@dataclass(frozen=True)
class Augment:
    """Random crop after zero padding by `crop` pixels, and a horizontal flip with probability 1/2 where `flip`; drawn anew
    for every image in every pass, by a generator seeded with the pass."""

    crop: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Phase:
    """Some epochs of the same word. `optimizer=None` goes on with the running one and its momentum.

    `batchnorm`: "train" (as the report's notebook: statistics move in frozen layers too), "eval_frozen" (a BatchNorm that
    does not train keeps its statistics) or "eval" (all keep them). `keep="best"` ends the phase on a copy of its epoch with
    the highest validation accuracy. `lr_steps` says how often the learning rate follows its schedule.
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

    def word(self, lengths: Lengths, epoch: int) -> list[str]:
        return list(self.order(lengths, epoch))

    @property
    def streams(self) -> dict[str, Stream]:
        """Letter -> stream, in the order of the terms."""
        return {term.letter: term.stream for term in self.terms}

    def scale(self, t: float) -> float | None:
        """The weight of the forget term at t: what the report calls the reverse scale."""
        return next((term.weight_at(t) for term in self.terms if term.stream == "forget"), None)

    def rank(self, metrics: Mapping[str, float]) -> float:
        """What the best epoch has most of. Raises ValueError when it was not measured."""
        if "validation.accuracy" not in metrics:
            raise ValueError(f"phase {self.name!r} keeps its epoch of highest validation.accuracy, which `evaluate` does not measure")
        return metrics["validation.accuracy"]


Edit: TypeAlias = edits.Edit
Recipe: TypeAlias = tuple[Phase | Edit, ...]


def epochs(recipe: Recipe) -> int:
    return sum(step.epochs for step in recipe if isinstance(step, Phase))


def _values(*modules: Any) -> dict[str, Callable[..., Any]]:
    return {name: value for m in modules for name, value in vars(m).items() if hasattr(value, "__dataclass_fields__")}


# Names that classes had in recipes written earlier -> their names now. A class that is renamed gets a line here, and keeps its results.
ALIASES: dict[str, str] = {}


def names() -> dict[str, Any]:
    """What the repr of a recipe may name: `parse(repr(recipe)) == recipe`."""
    own = {c.__name__: c for c in (Term, Augment, Phase)}
    known = {**_values(edits, losses, optimizers, order, schedule, select), **own}
    return known | {old: known[new] for old, new in ALIASES.items()}


def parse(text: str) -> Any:
    """The recipe (or any value of the vocabulary) that a text describes. Nothing is executed but constructors of the vocabulary.

    Args:
        text: what `repr` gave, now or in an earlier version: classes by their old names, without fields that have come since.

    Raises:
        ValueError: the text is no such value.
    """
    try:
        return _built(ast.parse(text, mode="eval").body, names())
    except (SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ValueError(f"no recipe: {error}") from None


def _built(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(_built(each, known) for each in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return known[node.func.id](**{str(word.arg): _built(word.value, known) for word in node.keywords})
    return ast.literal_eval(node)


def same(one: str, other: str) -> bool:
    """Whether two texts describe the same recipe; texts that are no recipes are compared as they are."""
    if one == other:
        return True
    try:
        return bool(parse(one) == parse(other))
    except ValueError:
        return False
