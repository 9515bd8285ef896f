"""Uncertainty: intervals over examples for one model, Student's t over seeds for several.

All intervals are 95 % intervals; bench/coverage.py measures how often each holds the true value. Resampling is seeded, so a score that is
computed again is identical."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 1000
BATCH = 50  # resamples at a time: an array of 18 MB for 45,000 images
KEPT = 1_000_000  # indices of all resamples, at most, that are drawn once and kept: 8 MB
EXAMPLES, SEEDS = "bootstrap over examples", "Student-t over seeds"
REFITTED = "Clopper-Pearson over examples, and refits of the attack"
SHARE, RATE, RANKS = "Clopper-Pearson over examples", "Clopper-Pearson of rate and threshold over examples", "order statistics of examples"
MODELS, CURVE = "bootstrap over models and examples", "first step whose interval reaches the line, over examples"

Range = tuple[float, float]
UNBOUNDED: Range = (-math.inf, math.inf)
PERCENT, POINTS, FRACTION, POSITIVE = (0.0, 100.0), (-100.0, 100.0), (0.0, 1.0), (0.0, math.inf)  # ranges of measures
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: the point estimate.
        low, high: ends of the 95 % interval; None if there is none.
        interval: what the interval is taken over and how, such as EXAMPLES or SEEDS; "" if there is none.
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

    def within(self, bounds: Range) -> "Estimate":
        """The same with an interval inside the range of possible values that contains the value."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=min(self.value, max(self.low, bounds[0])), high=max(self.value, min(self.high, bounds[1])))

    def containing(self, low: float, high: float) -> "Estimate":
        """Widen the interval where it must.

        Args:
            low: the least that it reaches down to.
            high: the least that it reaches up to.

        Returns:
            The same with an interval that reaches at least from `low` to `high`.
        """
        ends = self.ends()
        return replace(self, low=min(ends[0], low), high=max(ends[1], high))

    def widened(self, reach: float, interval: str) -> "Estimate":
        """Add a second, independent source of error (Donner and Zou 2012).

        Args:
            reach: how far its interval reaches to each side.
            interval: name of the interval of both.

        Returns:
            The same with the wider interval.
        """
        low, high = (self.value + side * math.hypot(end - self.value, reach) for side, end in zip((-1, 1), self.ends(), strict=True))
        return replace(self, low=low, high=high, interval=interval)

    def shifted(self, by: float) -> "Estimate":
        """The same with a number added to value and interval."""
        low, high = (None if end is None else end + by for end in (self.low, self.high))
        return Estimate(self.value + by, low, high, self.interval, self.models)


def bootstrap(
    statistic: Callable[..., Any], *sizes: int, resample: bool = True, seed: int = 0, bounds: Range = UNBOUNDED, edges: bool = False
) -> list[Estimate]:
    """Percentile bootstrap intervals over 1,000 resamples (Efron 1979), expanded for small samples.

    A percentile interval is too narrow for few examples: as narrow as one with the normal quantile and the deviation divided by n. So
    percentiles further out are taken, by the size of the smallest sample (Hesterberg 2015, "What teachers should know about the
    bootstrap", section 5.2).

    Args:
        statistic: takes an array of indices [..., size] for each sample, returns K numbers as [K, ...]. Arrays sharing indices stay paired.
        sizes: size of each sample; they are resampled independently.
        resample: whether to compute intervals; otherwise only the values are returned.
        seed: of the resampling.
        bounds: smallest and largest possible value. The interval of a sample of 1 is this range, or missing if that is infinite.
        edges: whether the arrays that `statistic` indexes have two more entries behind the `size` examples, one at each end of what an
            example can give. Resamples draw from these as well (after Agresti and Coull 1998, Agresti and Caffo 2000), the value does
            not: a share of 100 % of 50 images gets an interval, where resampling the images alone would only repeat the 100 %.

    Returns:
        K estimates.
    """
    values = [float(value) for value in statistic(*(np.arange(n) for n in sizes))]
    if not resample:
        return [Estimate(value) for value in values]
    if min(sizes) < 2:
        whole = np.isfinite(bounds).all()
        return [Estimate(value, *bounds, EXAMPLES) if whole else Estimate(value) for value in values]
    level = _expanded(min(sizes))
    ends = np.quantile(_resamples(statistic, sizes, seed, edges), [(1 - level) / 2, (1 + level) / 2], axis=1).T
    return [Estimate(value, float(low), float(high), EXAMPLES).within(bounds) for value, (low, high) in zip(values, ends, strict=True)]


def mean(values_N: Any, resample: bool = True, seed: int = 0, bounds: Range = UNBOUNDED) -> Estimate:
    """Mean of values that may be skewed, with its interval by bootstrap-t (Efron 1981).

    A divergence is tiny on most images and large on a few: few images hold too few of these, and percentiles of the means cover 78 %
    of nominal 95 at 50 images. So the interval is also that of the sample in which the smallest and the largest value occur once more.

    Args:
        values_N: one value per example.
        resample: whether to compute an interval.
        seed: of the resampling.
        bounds: smallest and largest possible value. The interval of a sample of 1 is this range, or missing if that is infinite.

    Returns:
        The mean; without an interval if `resample` is off.
    """
    values = np.asarray(values_N, np.float64)
    (whole,) = bootstrap(lambda index: values[index].mean(-1)[None], len(values), resample=resample, seed=seed, bounds=bounds)
    if not resample or len(values) < 2 or equal(values):
        return whole
    for sample in (values, np.append(values, [values.min(), values.max()])):
        centre, scale = sample.mean(), sample.std(ddof=1)

        def studentized(index: Any, sample: Floats = sample, centre: float = centre, least: float = 1e-9 * scale) -> Floats:
            drawn = sample[index]
            return np.asarray((drawn.mean(-1) - centre) / np.maximum(drawn.std(-1, ddof=1), least))[None]

        tails = np.quantile(_resamples(studentized, [len(sample)], seed, edges=False), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        whole = whole.containing(float(centre - tails[1] * scale), float(centre - tails[0] * scale))
    return whole.within(bounds)


def of_gaps(
    gaps: Callable[..., Any],
    combine: Callable[[Floats], Floats],
    slope: float,
    *sizes: int,
    resample: bool = True,
    seed: int = 0,
    bounds: Range = UNBOUNDED,
) -> Estimate:
    """A number computed from absolute gaps, whose interval covers where gaps are 0 too.

    The absolute value of a mean is never below the true absolute value where that is 0, and so is that of every resample: a percentile
    interval can't hold the 0. But |sum |g'| - sum |g|| is at most sum |g' - g|, so the end on the side of small gaps is as far away as the
    sum of the resamples' deviations goes in 95 %; where all gaps are 0 this is exact, elsewhere it is on the safe side.

    Args:
        gaps: takes an array of indices for each sample, returns K signed gaps [K, ...]; its arrays have edges, see `bootstrap`.
        combine: K absolute gaps [K, ...] -> the number; monotone in each.
        slope: change of the number by a change of 1 in a gap, at most; negative where the number falls with the gaps.
        sizes: size of each sample.
        resample: whether to compute an interval.
        seed: of the resampling.
        bounds: smallest and largest possible value.

    Returns:
        The number. A sample of 1 has the bounds as its interval, or none if they are infinite; without `resample` there is none.
    """
    point = np.asarray(gaps(*(np.arange(n) for n in sizes)), np.float64)
    value = float(combine(np.abs(point)))
    if not resample or min(sizes) < 2:
        return Estimate(value, *bounds, EXAMPLES) if resample and np.isfinite(bounds).all() else Estimate(value)
    drawn, level = _resamples(gaps, sizes, seed, edges=True), _expanded(min(sizes))
    reach = slope * float(np.quantile(np.abs(drawn - point[:, None]).sum(axis=0), level))
    far = float(np.quantile(combine(np.abs(drawn)), (1 + math.copysign(level, slope)) / 2))
    return Estimate(value, min(value - reach, far), max(value - reach, far), EXAMPLES).within(bounds)


def _resamples(statistic: Callable[..., Any], sizes: Sequence[int], seed: int, edges: bool) -> Floats:
    """[K, RESAMPLES]: the statistic's numbers on resamples, which are those of scipy.stats.bootstrap with the same seed and batch."""
    full = tuple(n + 2 * edges for n in sizes)
    batches = _draws(full, seed) if RESAMPLES * sum(full) > KEPT else [_all_draws(full, seed)]
    return np.concatenate([np.atleast_2d(np.asarray(statistic(*drawn), np.float64)) for drawn in batches], axis=-1)


def _draws(sizes: tuple[int, ...], seed: int) -> Iterator[list[Ints]]:
    """Indices [BATCH, n] of resamples of each sample, batch by batch."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES // BATCH):
        yield [generator.integers(0, n, (BATCH, n)) for n in sizes]


@lru_cache(maxsize=8)
def _all_draws(sizes: tuple[int, ...], seed: int) -> tuple[Ints, ...]:
    """All of `_draws` together, [RESAMPLES, n] for each sample. Nearly every measure resamples the same few sizes."""
    drawn = tuple(np.concatenate(parts) for parts in zip(*_draws(sizes, seed), strict=True))
    for each in drawn:
        each.flags.writeable = False  # shared by all who ask
    return drawn


def _expanded(size: int) -> float:
    """Confidence level at which a percentile interval is as wide as Student's t interval of `size` examples."""
    from scipy import stats

    return float(1 - 2 * stats.norm.sf(math.sqrt(size / (size - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, size - 1)))


def share(successes: float, number: int, scale: float = 1.0) -> Estimate:
    """A share with its exact interval (Clopper and Pearson 1934), which covers at least 95 % for any share and number.

    Args:
        successes: how many examples have the property; a mean over models is a fraction.
        number: of how many, at least 1.
        scale: of the value: 1 for a share, 100 for percent.

    Returns:
        The share times `scale`; its interval is within 0 and `scale`.
    """
    low, high = exact_ends(np.array([successes]), number)
    value = scale * successes / number
    return Estimate(value, scale * float(low[0]), scale * float(high[0]), SHARE).within((0.0, scale))


def exact_ends(successes: Any, number: float, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Ends of Clopper and Pearson's interval of shares.

    Args:
        successes: array [...], 0 to `number`; fractions are allowed, as weighted counts have them.
        number: of examples.
        confidence: of the interval.

    Returns:
        Lower and upper ends [...], 0 to 1.
    """
    from scipy import special

    k, tail = np.asarray(successes, np.float64), (1 - confidence) / 2
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1e-12), number - k + 1, tail), 0.0)
    high = np.where(k < number, special.betaincinv(k + 1, np.maximum(number - k, 1e-12), 1 - tail), 1.0)
    return low, high


def paired_ends(only_first: Any, only_second: Any, number: int) -> tuple[Floats, Floats]:
    """Ends of the interval of a difference of two shares of the same examples: Bonett and Price 2012, adjusted Wald.

    Args:
        only_first: how many examples have the property in the first case alone, [...].
        only_second: in the second case alone, [...].
        number: of examples.

    Returns:
        Lower and upper ends [...] of first minus second, -1 to 1.
    """
    from scipy import stats

    first, second = ((np.asarray(count, np.float64) + 1) / (number + 2) for count in (only_first, only_second))
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((first + second - (first - second) ** 2) / (number + 2))
    return np.maximum(first - second - half, -1.0), np.minimum(first - second + half, 1.0)


def jackknife_ends(statistic: Callable[[Any], float], number: int, groups: int = 20) -> tuple[float, float]:
    """Ends of Student's t interval of a statistic that is no mean, by leaving out one group of examples at a time (Quenouille 1956).

    Args:
        statistic: takes the indices of the examples that are kept.
        number: of examples, at least 2.
        groups: of examples, of equal size but for one; at most one for each example.

    Returns:
        Lower and upper end, around the statistic of all examples.
    """
    from scipy import stats

    groups = min(groups, number)
    group = np.random.default_rng(0).permutation(np.arange(number) % groups)
    without = np.array([statistic(np.flatnonzero(group != left)) for left in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(((without - without.mean()) ** 2).sum()))
    value, half = statistic(np.arange(number)), float(stats.t.ppf((1 + CONFIDENCE) / 2, groups - 1)) * error
    return value - half, value + half


def quantile(values_N: Any, probability: float, bounds: Range = UNBOUNDED) -> Estimate:
    """A quantile with its interval by order statistics (Conover 1999, section 3.2), which assumes nothing of the distribution.

    Args:
        values_N: one value per example.
        probability: of the quantile.
        bounds: smallest and largest possible value: the ends of the interval where the examples are too few for an order statistic.

    Returns:
        The quantile; without an interval where an end would be infinite.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values_N, np.float64))
    n, tail = len(ordered), (1 - CONFIDENCE) / 2
    below = int(stats.binom.ppf(tail, n, probability))  # the largest rank whose value exceeds the quantile with at most `tail`
    above = int(stats.binom.ppf(1 - tail, n, probability)) + 1
    low = ordered[below - 1] if below >= 1 else bounds[0]
    high = ordered[above - 1] if above <= n else bounds[1]
    value = float(np.quantile(ordered, probability))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Estimate(value)
    return Estimate(value, float(low), float(high), RANKS).within(bounds)


def over_seeds(values: Sequence[float], bounds: Range = UNBOUNDED) -> Estimate:
    """Mean over models that differ only in their seed, with Student's t interval.

    Args:
        values: one number per model.
        bounds: smallest and largest possible value; the interval ends there.

    Returns:
        The mean. A single model has no interval, and neither have models that all have the same value: nothing is known of their spread.
    """
    average = float(np.mean(values))
    if len(values) < 2 or equal(values):
        return Estimate(average, models=len(values))
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Estimate(average, average - half, average + half, SEEDS, len(values)).within(bounds)


def equal(values: Any) -> bool:
    """Whether all numbers are equal; differences of rounded percentages are so but for their last bits."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


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
