"""ROC curves of membership scores: AUC, and true-positive rates at low false-positive rates, on all images and on resamples.

P positives (forget images), N negatives (held-out images), Z population images of RMIA."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lethe.evaluation import uncertainty
from lethe.evaluation.uncertainty import FRACTION, Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RATES = (0.01, 0.001)  # false-positive rates at which true-positive rates are read
PARTS = ("auc", *(f"tpr_at_{100 * rate:g}" for rate in RATES))


class Roc:
    """ROC curve of a score that separates positives from negatives: AUC, and true-positive rates at the false-positive rates RATES.

    AUC is the probability that a positive has a higher score than a negative, ties counting half; the TPR at a rate is the largest with
    at most that FPR. Equal to scikit-learn's roc_curve, but computed for a thousand resamples at once: values are ranked once, and a
    resample only counts ranks.

    Two more entries stand behind the images of each group, one with a score above and one with a score below all others (`edges` of
    `uncertainty.bootstrap`); only resamples that ask for them meet them.

    Args:
        positives: scores [P].
        negatives: scores [N].
        weights_N: weights of the negatives; 1 by default.
    """

    def __init__(self, positives: Floats, negatives: Floats, weights_N: Floats | None = None) -> None:
        self.sizes: tuple[int, ...] = len(positives), len(negatives)
        values, ranks = np.unique(np.concatenate([-positives, -negatives]), return_inverse=True)  # the highest score first
        self._set(len(values), ranks, np.ones(len(negatives)) if weights_N is None else weights_N)

    def _set(self, values: int, ranks: Ints, weights_N: Floats) -> None:
        edges = [-1, values]
        number = self.sizes[0]
        self._values = values + 2
        self._positives = np.concatenate([ranks[:number], edges]).astype(np.int64) + 1
        self._negatives = np.concatenate([ranks[number:], edges]).astype(np.int64) + 1
        self._effective = effective(weights_N)
        self._weights = with_edges(weights_N)

    def __call__(self, drawn_P: Ints, drawn_N: Ints) -> Floats:
        """AUC and the TPRs, [1 + rates, ...], on resampled images.

        Args:
            drawn_P: indices of positives, [..., P].
            drawn_N: indices of negatives, [..., N].
        """
        return self._curve(self._positives[drawn_P], self._negatives[drawn_N], self._weights[drawn_N])

    def point(self) -> Floats:
        """[1 + rates]: the same on all images, without resampling."""
        return self(*map(np.arange, self.sizes))

    def estimates(self, bootstrap: Callable[..., list[Estimate]]) -> dict[str, Estimate]:
        """AUC and TPRs with their intervals.

        Args:
            bootstrap: `EvaluationContext.bootstrap`.

        Returns:
            Part (PARTS) -> estimate: of the AUC by bootstrap, of a rate by `rate_ends`.
        """
        values = self.point()
        auc = bootstrap(lambda *drawn: self(*drawn)[:1], *self.sizes, bounds=FRACTION, edges=True)[0]
        if auc.low is None:
            return {part: Estimate(float(value)) for part, value in zip(PARTS, values, strict=True)}
        ends = [self.rate_ends(rate) for rate in RATES]
        rates = [Estimate(float(value), *both, uncertainty.RATE).within(FRACTION) for value, both in zip(values[1:], ends, strict=True)]
        return dict(zip(PARTS, [auc, *rates], strict=True))

    def rate_ends(self, rate: float) -> tuple[float, float]:
        """Interval of the TPR at a false-positive rate, which covers at least 95 % for any distribution of scores and any number of images.

        Which score has that FPR among all held-out images is unknown: with 50 of them, 0.1 % may be any score above their second largest.
        The interval holds the TPR of every threshold that Clopper and Pearson's interval of its FPR leaves possible, each with that
        interval; both at 97.5 %, so that together they err in at most 5 % (Bonferroni).

        Args:
            rate: the false-positive rate, 0 to 1.

        Returns:
            Lower and upper end. Weighted negatives count as as many as they are worth.
        """
        number, confidence = self.sizes[0], 1 - (1 - uncertainty.CONFIDENCE) / 2
        true, false = self._shares(self._positives[:number], np.ones(number)), self._shares(self._negatives[:-2], self._weights[:-2])
        above = np.rint(np.concatenate([[0.0], np.cumsum(true)]) * number)  # positives at or above each threshold
        fpr = np.clip(np.concatenate([[0.0], np.cumsum(false)]), 0.0, 1.0)
        fpr_low, fpr_high = uncertainty.exact_ends(fpr * self._effective, self._effective, confidence)
        tpr_low, tpr_high = uncertainty.exact_ends(above, number, confidence)
        return float(np.where(fpr_high <= rate, tpr_low, 0.0).max()), float(np.where(fpr_low <= rate, tpr_high, 0.0).max())

    def _curve(self, positives: Ints, negatives: Ints, weights: Floats) -> Floats:
        return curve(self._shares(positives, np.ones(positives.shape)), self._shares(negatives, weights))

    def _shares(self, ranks: Ints, weights: Floats) -> Floats:
        """[..., values]: the share of images at each value."""
        rows = ranks.reshape(-1, ranks.shape[-1])
        places = (rows + np.arange(len(rows))[:, None] * self._values).ravel()
        counts = np.bincount(places, weights.ravel(), len(rows) * self._values).reshape(*ranks.shape[:-1], self._values)
        return np.asarray(counts / counts.sum(-1, keepdims=True))


class PopulationRoc(Roc):
    """ROC curve of RMIA's score, the share of a population z that an image is ahead of; the population is resampled as well.

    Args:
        positives: how far each positive is ahead of its references, [P]; see `attacks.ahead`.
        negatives: the same of the negatives [N].
        population: the same of the population, plus log gamma, [Z].
        weights_N: weights of the negatives.
    """

    def __init__(self, positives: Floats, negatives: Floats, population: Floats, weights_N: Floats) -> None:
        self.sizes = len(positives), len(negatives), len(population)
        self._large = Roc(positives, negatives, weights_N)  # with a large population, no two images are tied
        beaten = np.searchsorted(np.sort(population), np.concatenate([positives, negatives]), side="left")
        self._set(len(population) + 1, len(population) - beaten, weights_N)

    def __call__(self, drawn_P: Ints, drawn_N: Ints, drawn_Z: Ints | None = None) -> Floats:
        """AUC and the TPRs, [1 + rates, ...], on resampled images and a resampled population (all of it by default).

        A population image that was not drawn separates no scores: those on both sides of it are tied."""
        positives, negatives = self._positives[drawn_P], self._negatives[drawn_N]
        if drawn_Z is not None:
            population = self.sizes[2]
            rows = drawn_Z.reshape(-1, drawn_Z.shape[-1])
            present = np.zeros((len(rows), self._values), np.int64)
            # rank r + 1 is behind the r largest of the population; the first and the last rank are the edges'
            np.put_along_axis(present, np.where(rows < population, population + 1 - rows, 0), 1, axis=1)
            present[:, [0, 1, -1]] = 0, 1, 1
            merged = np.cumsum(present, axis=1).reshape(*drawn_Z.shape[:-1], self._values)
            positives, negatives = (np.take_along_axis(merged, ranks, axis=-1) for ranks in (positives, negatives))
        return self._curve(positives, negatives, self._weights[drawn_N])

    def point(self) -> Floats:
        """[1 + rates]: the same on all images, without resampling."""
        return self(*map(np.arange, self.sizes[:2]))

    def rate_ends(self, rate: float) -> tuple[float, float]:
        """Interval of the TPR that a large population would give: a small one ties the most conspicuous images, so no threshold may
        have a low FPR."""
        return self._large.rate_ends(rate)


class WeightedRoc:
    """ROC curve of weighted positives and negatives, for one set of weights at a time: AUC, and the TPRs at RATES.

    Args:
        positives: scores [P].
        negatives: scores [N].
    """

    def __init__(self, positives: Floats, negatives: Floats) -> None:
        values, ranks = np.unique(np.concatenate([-positives, -negatives]), return_inverse=True)
        self._values, self._positives, self._negatives = len(values), ranks[: len(positives)], ranks[len(positives) :]

    def __call__(self, weights_P: Floats, weights_N: Floats) -> Floats:
        """[1 + rates]."""
        groups = ((self._positives, weights_P), (self._negatives, weights_N))
        true, false = (np.bincount(ranks, weights, self._values) / weights.sum() for ranks, weights in groups)
        return curve(true, false)


def curve(true: Floats, false: Floats) -> Floats:
    """Compute AUC and the TPRs at RATES.

    Args:
        true: shares of the positives at each score, highest score first [..., values].
        false: those of the negatives.

    Returns:
        [1 + rates, ...].
    """
    above, rates = np.cumsum(true, axis=-1), np.cumsum(false, axis=-1)
    auc = (false * (above - true / 2)).sum(-1)
    # 1e-9: a cumulative sum that means 0.01 may be 0.010000000000000002
    powers = [np.where(rates <= rate + 1e-9, above, 0.0).max(-1) for rate in RATES]
    return np.asarray(np.clip(np.stack([auc, *powers]), 0.0, 1.0))


def effective(weights_N: Floats) -> float:
    """As how many images of equal weight the weighted images count (Kish 1965)."""
    return float(weights_N.sum() ** 2 / (weights_N**2).sum())


def with_edges(weights_N: Floats) -> Floats:
    """[N + 2]: weights of images and of two edges (see `uncertainty.bootstrap`), each worth one effective image."""
    return np.append(weights_N, np.full(2, weights_N.sum() / effective(weights_N)))
