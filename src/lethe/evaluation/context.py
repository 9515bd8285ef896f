"""A model and what it is measured beside: all that a measure may look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lethe._util.errors import InsufficientData
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.logits_table import Array, Floats, Ints, LogitsTable, like, together
from lethe.evaluation.uncertainty import Estimate

Estimates = dict[str, Estimate]  # part -> its number; "" where a measure is one number


@dataclass(frozen=True)
class Clock:
    """Wall clock of the unlearning and of retraining, on the same machine and in the same precision, and the most memory it took."""

    seconds: float
    retrain_seconds: float | None = None
    peak_bytes: int | None = None

    @property
    def share_of_retrain(self) -> float | None:
        return self.seconds / self.retrain_seconds if self.retrain_seconds else None


@dataclass(frozen=True, eq=False)
class Case:
    """A model, and all that it is measured beside. What is left out, the measures that want it name as missing.

    `references`: retrained models without this one; `original`: what unlearning began with; `unlearned`: models of the method, one a
    seed, this one among them. `resample`: whether with intervals.
    Raises UserError, naming both tables, when they are not of the same images, labels, classes and splits."""

    model: LogitsTable
    references: Sequence[LogitsTable] = ()
    original: LogitsTable | None = None
    unlearned: Sequence[LogitsTable] = ()
    clock: Clock | None = None
    resample: bool = True

    def __post_init__(self) -> None:
        together(self.model, *self.references, *([self.original] if self.original else []), *self.unlearned)

    def rows(self, split: str) -> Ints:
        """Raises InsufficientData where the split has no images."""
        rows = self.model.rows(split)
        if not len(rows):
            raise InsufficientData(f"takes {split} images; there are none")
        return rows

    def beside_forget(self, split: str) -> tuple[Ints, Floats]:
        """The held-out images that the forgotten are compared with, and their weights.

        Where the request left a class out (whole classes, one person's images) those are the forgotten classes' alone."""
        rows = self.rows(split)
        weights = like(self.model.labels[self.rows("forget")], self.model.labels[rows])
        return rows[weights > 0], weights[weights > 0]

    def bootstrap(self, statistic: Callable[..., Any], *sizes: int) -> list[Estimate]:
        return intervals.bootstrap(statistic, *sizes, resample=self.resample)

    def mean(self, values_N: Array) -> Estimate:
        return self.bootstrap(lambda index: values_N[index].mean(-1)[None], len(values_N))[0]

    def held_out(self) -> list["Case"]:
        """Each reference in turn as the model, beside the others; with intervals only where it is the only one."""
        return [
            Case(
                reference,
                [other for other in self.references if other is not reference],
                self.original,
                resample=self.resample and len(self.references) == 1,
            )
            for reference in self.references
        ]
