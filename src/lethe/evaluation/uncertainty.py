"""How sure a number is: bootstrap over examples for one model, Student's t over seeds for several, tests between methods.

Intervals are of 95 %. Draws come from one seed, so that a score made again is the same score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
BATCH = 50  # resamples at a time: of 45,000 images an array of 18 MB
EXAMPLES, SEEDS = "bootstrap over examples", "Student-t over seeds"


@dataclass(frozen=True)
class Estimate:
    """A number; its interval, where it has one; what that is an interval of; how many models (seeds) it is over."""

    value: float
    low: float | None = None
    high: float | None = None
    interval: str = ""
    models: int = 1

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the two intervals share a point; a number without one is its own."""
        (low, high), (start, end) = self.ends(), other.ends()
        return low <= end and start <= high

    def ends(self) -> tuple[float, float]:
        return (self.value if self.low is None else self.low), (self.value if self.high is None else self.high)


def bootstrap(statistic: Callable[..., Any], *sizes: int, resample: bool = True, seed: int = 0) -> list[Estimate]:
    """Percentile intervals over 1,000 resamples of samples of these sizes, each drawn by itself (Efron 1979; scipy.stats.bootstrap).

    `statistic` takes one array of indices [..., size] a sample, and returns [K, ...]: K numbers. Two arrays cut by the same indices
    stay paired. Without `resample`, and for a sample below 2, there are only the numbers."""
    found = [float(value) for value in statistic(*(np.arange(n) for n in sizes))]
    if not resample or min(sizes) < 2:
        return [Estimate(value) for value in found]
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
    return [Estimate(value, float(low), float(high), EXAMPLES) for value, low, high in zip(found, lows, highs, strict=True)]


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over models that differ in their seed alone, with Student's t interval; of one model there is none."""
    average = float(np.mean(values))
    if len(values) < 2:
        return Estimate(average, models=len(values))
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(average, average - half, average + half, SEEDS, len(values))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of Student's paired t-test on two methods' numbers, one pair a seed. 1 where all pairs are equal."""
    from scipy import stats

    apart = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if len(apart) < 2:
        raise ValueError(f"a paired test takes at least 2 seeds, not {len(apart)}")
    if np.ptp(apart) == 0:  # t is 0/0 or infinite
        return 1.0 if apart[0] == 0 else 0.0
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p adjusted for so many tests, by name: below 0.05 means that the family's error stays below it (Holm 1979, step-down)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def discriminates(original: Estimate, held_out: Estimate) -> bool:
    """Whether a measure separates the original, which forgot nothing, from a held-out retrained model: their intervals do not overlap.

    Otherwise it can't judge any method."""
    return not original.overlaps(held_out)
