"""The context of an evaluation: a model's logits table and everything that it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.evaluation import uncertainty
from lethe.evaluation.logits_table import Array, Floats, Ints, LogitsTable, class_weights, require_same_images
from lethe.evaluation.uncertainty import Estimate, Range

Estimates = dict[str, Estimate]  # part -> estimate; the part is "" for a measure with a single value


@dataclass(frozen=True)
class Cost:
    """Cost of an unlearning run.

    Attributes:
        seconds: wall-clock time of unlearning alone.
        flops: floating-point operations of unlearning alone; None if they were not counted.
        retrain_flops: floating-point operations of retraining, counted or by its recipe; None if they are not known.
        peak_bytes: peak memory allocated by tensors on the device; None if the device does not report it.
    """

    seconds: float
    flops: float | None = None
    retrain_flops: float | None = None
    peak_bytes: int | None = None

    @property
    def share_of_retrain(self) -> float | None:
        """Work of unlearning divided by the work of retraining. By the clock it would depend on the machine and on what else runs there."""
        return self.flops / self.retrain_flops if self.flops is not None and self.retrain_flops else None


@dataclass(frozen=True, eq=False)
class EvaluationContext:
    """All that a measure may look at. A measure that needs a part which is left out reports it as missing.

    Attributes:
        model: the model to evaluate.
        references: retrained models, without this one.
        original: the model that unlearning started from.
        unlearned: models of the same method, one per seed, including this one.
        cost: time and memory of the unlearning run.
        resample: whether to compute intervals.

    Raises:
        UserError: the tables differ in images, labels, classes or splits; names both.
    """

    model: LogitsTable
    references: Sequence[LogitsTable] = ()
    original: LogitsTable | None = None
    unlearned: Sequence[LogitsTable] = ()
    cost: Cost | None = None
    resample: bool = True

    def __post_init__(self) -> None:
        require_same_images(self.model, *self.references, *([self.original] if self.original else []), *self.unlearned)

    def rows(self, split: str) -> Ints:
        """Row indices [n] of a split's images in the tables, sorted by id.

        Raises:
            InsufficientData: the split is empty.
        """
        rows = self.model.rows(split)
        if not len(rows):
            raise InsufficientData(f"needs {split} images; the split is empty")
        return rows

    def matched_held_out(self, split: str) -> tuple[Ints, Floats]:
        """Held-out images to compare the forget set with: row indices [n], and weights [n] of mean 1.

        Images of the forgotten classes, weighted to the class histogram of the forget set (`logits_table.class_weights`)."""
        rows = self.rows(split)
        weights = class_weights(self.model.labels[self.rows("forget")], self.model.labels[rows])
        return rows[weights > 0], weights[weights > 0]

    def bootstrap(
        self, statistic: Callable[..., Any], *sizes: int, bounds: Range = uncertainty.UNBOUNDED, edges: bool = False
    ) -> list[Estimate]:
        """Estimate statistics with bootstrap intervals (`uncertainty.bootstrap`); without intervals if `resample` is off.

        Args:
            statistic: takes an array of indices [..., size] for each sample, returns K numbers as [K, ...].
            sizes: size of each sample.
            bounds: smallest and largest possible value.
            edges: whether the arrays that are indexed have two more entries, one at each end of what an example can give.

        Returns:
            K estimates.
        """
        return uncertainty.bootstrap(statistic, *sizes, resample=self.resample, bounds=bounds, edges=edges)

    def of_gaps(self, gaps: Callable[..., Any], combine: Callable[[Floats], Floats], slope: float, *sizes: int, bounds: Range) -> Estimate:
        """Estimate a number computed from absolute gaps (`uncertainty.of_gaps`); without an interval if `resample` is off.

        Args:
            gaps: takes an array of indices for each sample, returns K signed gaps [K, ...].
            combine: K absolute gaps [K, ...] -> the number; monotone in each.
            slope: change of the number by a change of 1 in a gap, at most; negative where the number falls with the gaps.
            sizes: size of each sample.
            bounds: smallest and largest possible value.

        Returns:
            The estimate.
        """
        return uncertainty.of_gaps(gaps, combine, slope, *sizes, resample=self.resample, bounds=bounds)

    def mean(self, values_N: Array, bounds: Range = uncertainty.UNBOUNDED, edges: bool = False) -> Estimate:
        """Mean of per-image values, with its interval over images.

        Args:
            values_N: one value per image [N].
            bounds: smallest and largest possible value of an image. Where every image has one of these two, the mean is a share, and
                the interval exact (`uncertainty.share`); otherwise it is a bootstrap interval.
            edges: whether the bootstrap adds an image at each bound, for values that are mostly at the bounds, such as differences
                of correctness (`uncertainty.bootstrap`); otherwise it allows for skewed values (`uncertainty.mean`).

        Returns:
            The mean, without an interval where the context does not resample.
        """
        values = np.asarray(values_N, np.float64)
        low, high = bounds
        if self.resample and np.isin(values, bounds).all():
            return uncertainty.share(int((values == high).sum()), len(values), high - low).shifted(low)
        if not edges:
            return uncertainty.mean(values, self.resample, bounds=bounds)
        padded = np.append(values, bounds)
        return self.bootstrap(lambda index: padded[index].mean(-1)[None], len(values), bounds=bounds, edges=True)[0]

    def quantile(self, values_N: Array, probability: float, bounds: Range = uncertainty.UNBOUNDED) -> Estimate:
        """Quantile of per-image values [N], with its interval by order statistics, see `uncertainty.quantile`.

        Args:
            values_N: one value per image [N].
            probability: of the quantile, in (0, 1).
            bounds: smallest and largest possible value of an image.

        Returns:
            The quantile, without an interval where the context does not resample.
        """
        estimate = uncertainty.quantile(values_N, probability, bounds)
        return estimate if self.resample else Estimate(estimate.value)

    def leave_one_out(self) -> list["EvaluationContext"]:
        """Each reference in turn as the model, compared with the others; intervals over images only if there is a single reference."""
        return [
            EvaluationContext(
                reference,
                [other for other in self.references if other is not reference],
                self.original,
                resample=self.resample and len(self.references) == 1,
            )
            for reference in self.references
        ]
