"""Uncertainty: bootstrap intervals over examples for one model, Student's t over seeds for several, tests between methods.

All intervals are 95 % intervals. Resampling is seeded, so a score that is computed again is identical."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
BATCH = 50  # resamples at a time: an array of 18 MB for 45,000 images
EXAMPLES, SEEDS = "bootstrap over examples", "Student-t over seeds"


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: the point estimate.
        low, high: ends of the 95 % interval; None if there is none.
        interval: what the interval is taken over, EXAMPLES or SEEDS; "" if there is none.
        models: number of models (seeds) that the value is a mean over.
    """

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""
    models: int = 1

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the two intervals share a point; a value without an interval counts as a point."""
        (low, high), (start, end) = self.ends(), other.ends()
        return low <= end and start <= high

    def ends(self) -> tuple[float, float]:
        """Low and high end; the value itself without an interval."""
        return (self.value if self.low is None else self.low), (self.value if self.high is None else self.high)


def bootstrap(statistic: Callable[..., Any], *sizes: int, resample: bool = True, seed: int = 0) -> list[Estimate]:
    """Percentile bootstrap intervals over 1,000 resamples (Efron 1979; scipy.stats.bootstrap).

    Args:
        statistic: takes an array of indices [..., size] for each sample, returns K numbers as [K, ...]. Arrays that are indexed by the
            same indices stay paired.
        sizes: size of each sample; they are resampled independently.
        resample: whether to compute intervals; otherwise, and for a sample below 2, only the values are returned.
        seed: of the resampling.

    Returns:
        K estimates.
    """
    values = [float(value) for value in statistic(*(np.arange(n) for n in sizes))]
    if not resample or min(sizes) < 2:
        return [Estimate(value) for value in values]
    from scipy import stats

    ends = stats.bootstrap(
        [np.arange(n) for n in sizes],
        lambda *drawn, axis: statistic(*(index.astype(np.int64, copy=False) for index in drawn)),
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    lows, highs = (np.atleast_1d(end) for end in ends)
    return [Estimate(value, float(low), float(high), EXAMPLES) for value, low, high in zip(values, lows, highs, strict=True)]


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over models that differ only in their seed, with Student's t interval; a single model has no interval."""
    average = float(np.mean(values))
    if len(values) < 2:
        return Estimate(average, models=len(values))
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(average, average - half, average + half, SEEDS, len(values))


def margin_of_error(*accuracies: tuple[float, int]) -> float:
    """How much a sum or difference of accuracies can vary by chance: half the width of its 95 % interval, in points.

    Agresti and Caffo's interval, which is not 0 at 100 percent. The spread between seeds is not included.

    Args:
        accuracies: (percent, number of images) of each.

    >>> round(margin_of_error((88.0, 5000), (88.0, 5000)), 2)
    1.27
    """
    shares = [((percent / 100 * n + 1) / (n + 2), n) for percent, n in accuracies]
    return 196 * math.sqrt(sum(share * (1 - share) / (n + 2) for share, n in shares))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of Student's paired t-test between two methods.

    Args:
        ours: one number per seed.
        theirs: the other method's, for the same seeds.

    Returns:
        p; 1 if all pairs are equal, 0 if all differ by the same non-zero amount.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    from scipy import stats

    apart = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if len(apart) < 2:
        raise ValueError(f"a paired test takes at least 2 seeds, not {len(apart)}")
    if np.ptp(apart) == 0:  # t is 0/0 or infinite
        return 1.0 if apart[0] == 0 else 0.0
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for multiple tests by Holm's step-down method (Holm 1979): rejecting below 0.05 bounds the family-wise error by it.

    Args:
        p_values: name of the test -> p.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def discriminates(original: Estimate, held_out: Estimate) -> bool:
    """Test whether a measure separates the original, which forgot nothing, from a held-out retrained model.

    If it does not, it can't judge any method.

    Args:
        original: the measure of the original.
        held_out: the measure of the retrained model.

    Returns:
        True if their intervals do not overlap.
    """
    return not original.overlaps(held_out)
