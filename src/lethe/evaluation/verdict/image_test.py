"""Permutation test over images: does a model treat the forget images otherwise than held-out images of the same class?

Under the null hypothesis the model, like the references, never saw the forget images. Then forget and held-out images of one class are
exchangeable, whatever the quality of the models: their values may be permuted within the class. The test needs one reference, and no
estimate of how much retrained models differ. It takes forget images to be drawn like test images of their class.

N forget and held-out images together, K values per image, B permutations."""

from dataclasses import dataclass

import numpy as np

from lethe.evaluation.logits_table import Bools, Floats, Ints

PERMUTATIONS = 1999
HUGE = 1e6  # the studentized size of a difference without any spread
_BLOCK = 2_000_000  # random numbers at a time
_GATHERED = 1_000_000  # values of drawn images at a time


@dataclass(frozen=True, eq=False)
class Strata:
    """Forget and held-out images by class; classes that lack one of the two are left out.

    Attributes:
        rows: row indices [N] of the images in the tables.
        forget: whether each is a forget image, [N].
        classes: consecutive numbers of their classes, [N].
    """

    rows: Ints
    forget: Bools
    classes: Ints

    @classmethod
    def of(cls, forget: Ints, held_out: Ints, labels: Ints) -> "Strata":
        """Take the images of the classes that both groups contain.

        Args:
            forget: row indices of the forget images.
            held_out: row indices of the held-out images.
            labels: class of every row.

        Returns:
            Rows of both groups, forget first; empty if no class is in both.
        """
        both = np.intersect1d(labels[forget], labels[held_out])
        rows = np.concatenate([forget, held_out])
        is_forget = np.arange(len(rows)) < len(forget)
        keep = np.isin(labels[rows], both)
        return cls(rows[keep], is_forget[keep], np.searchsorted(both, labels[rows[keep]]))

    @property
    def number(self) -> int:
        """Number of classes."""
        return int(self.classes.max(initial=-1)) + 1

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of forget and of held-out images."""
        return int(self.forget.sum()), int((~self.forget).sum())

    def centred(self, values_NK: Floats) -> Floats:
        """Values minus the mean of their class, over forget and held-out images together."""
        means = _by_class(values_NK, self.classes, self.number) / np.bincount(self.classes, minlength=self.number)[:, None]
        return np.asarray(values_NK - means[self.classes])

    def weights(self) -> Floats:
        """[N]: one over the number of forget images for each of them; for held-out images the negative share of their class in forget,
        spread over the held-out images of the class. Their product with values is the mean difference."""
        ours, theirs = (np.bincount(self.classes[part], minlength=self.number) for part in (self.forget, ~self.forget))
        total = self.forget.sum()
        return np.asarray(np.where(self.forget, 1 / total, -(ours / theirs / total)[self.classes]), np.float64)


def separates(covariate_N: Floats, strata: Strata) -> bool:
    """Whether a covariate is mostly the division into forget and held-out images itself: more than half of its variance within classes.

    It is so where the references get most of the forget images wrong, as with wrong labels: such a covariate explains any difference away.

    Args:
        covariate_N: a value per image.
        strata: the images.

    Returns:
        False for a covariate that does not vary within classes.
    """
    within = strata.classes * 2 + strata.forget
    sums = np.bincount(within, covariate_N, 2 * strata.number) / np.maximum(np.bincount(within, minlength=2 * strata.number), 1)
    total = float(np.sum(strata.centred(covariate_N[:, None]) ** 2))
    return total > 0 and float(np.sum((covariate_N - sums[within]) ** 2)) < total / 2


def adjusted(values_NK: Floats, covariate_N: Floats, strata: Strata) -> Floats:
    """Compute residuals of a regression on a covariate, with one intercept per class.

    The regression pools forget and held-out images, so that a permutation within classes leaves it as it is. A covariate that separates
    the two is left out: then the values are only centred.

    Args:
        values_NK: values per image.
        covariate_N: another value of the same images.
        strata: the images.

    Returns:
        [N, K], centred within classes.
    """
    values, covariate = strata.centred(values_NK), strata.centred(covariate_N[:, None])[:, 0]
    spread = float(covariate @ covariate)
    if spread == 0 or separates(covariate_N, strata):
        return values
    return values - np.outer(covariate, covariate @ values / spread)


def difference(values_NK: Floats, strata: Strata) -> tuple[Floats, Floats]:
    """Compute the mean difference forget minus held-out within classes, and its covariance by Welch's formula.

    Args:
        values_NK: values per image.
        strata: the images.

    Returns:
        [K] and [K, K].
    """
    weights = strata.weights()
    means = weights @ values_NK
    covariance = np.zeros((values_NK.shape[1],) * 2)
    for group in (strata.forget, ~strata.forget):
        own, number = np.abs(weights[group]), int(group.sum())
        apart = (values_NK[group] - own @ values_NK[group] / own.sum()) * own[:, None]
        covariance += apart.T @ apart * number / max(number - 1, 1)
    return np.asarray(means), covariance


def permutation_test(values_NK: Floats, strata: Strata, seed: int = 0) -> tuple[Floats, Floats]:
    """Test each value, and correct for testing several: Westfall and Young's single-step maximum of absolute studentized differences.

    Args:
        values_NK: values per image, centred within classes.
        strata: the images; at least two of each kind.
        seed: of the permutations.

    Returns:
        Studentized differences [K], forget minus held-out, and their adjusted p [K].
    """
    observed = _studentized(*_observed_sums(values_NK, strata), strata)
    drawn = _permuted(values_NK, strata, np.random.default_rng(seed))
    largest, size = np.abs(drawn).max(axis=1), np.abs(observed)
    exceeded = (largest[:, None] >= size - 1e-9 * size).sum(axis=0)
    return observed, (exceeded + 1) / (len(largest) + 1)


def _observed_sums(values_NK: Floats, strata: Strata) -> tuple[Floats, Floats]:
    """Sums over the forget images of each class of the values and of their squares, [1, classes, K]."""
    forget = strata.classes[strata.forget]
    return _with_totals(
        values_NK, strata, *(_by_class(part[strata.forget], forget, strata.number)[None] for part in (values_NK, values_NK**2))
    )


def _by_class(values_NK: Floats, classes_N: Ints, number: int) -> Floats:
    """Sums of values by class, [classes, K]."""
    return np.stack([np.bincount(classes_N, column, number) for column in values_NK.T], axis=1).astype(np.float64)


def _with_totals(values_NK: Floats, strata: Strata, *sums: Floats) -> tuple[Floats, Floats]:
    """Sums and squares of both groups, [2, B, classes, K]: those of held-out images are what the forget images leave."""
    both = []
    for part, own in zip((values_NK, values_NK**2), sums, strict=True):
        both.append(np.stack([own, _by_class(part, strata.classes, strata.number) - own]))
    return both[0], both[1]


def _studentized(sums: Floats, squares: Floats, strata: Strata) -> Floats:
    """Studentized differences [B, K] (or [K] for B = 1) from sums by group and class."""
    number = strata.number
    counts = np.stack([np.bincount(strata.classes, part, number) for part in (strata.forget, ~strata.forget)])
    share = counts[0] / counts[0].sum()
    factor = np.stack([np.full(number, 1 / counts[0].sum()), share / counts[1]])  # weight of one image, by group and class
    means = np.einsum("gc,gbck->gbk", factor, sums)
    # sum of (w (x - m))^2 over the images of a group
    spread = np.einsum("gc,gbck->gbk", factor**2, squares) - 2 * means * np.einsum("gc,gbck->gbk", factor**2, sums)
    spread = spread + means**2 * (factor**2 * counts).sum(axis=1)[:, None, None]
    totals = counts.sum(axis=1)
    variance = (np.maximum(spread, 0.0) * (totals / np.maximum(totals - 1, 1))[:, None, None]).sum(axis=0)
    apart = means[0] - means[1]
    without_spread = np.where(np.abs(apart) > 1e-12, HUGE * np.sign(apart), 0.0)
    result = np.where(variance > 1e-24, apart / np.sqrt(np.maximum(variance, 1e-24)), without_spread)
    return np.asarray(result[0] if len(result) == 1 else result)


def _permuted(values_NK: Floats, strata: Strata, rng: np.random.Generator) -> Floats:
    """Studentized differences [B, K] after permutations of the images within each class."""
    number = strata.number
    sums = np.zeros((2, PERMUTATIONS, number, values_NK.shape[1]))
    for one in range(number):
        members = np.flatnonzero(strata.classes == one)
        values, chosen = values_NK[members], int(strata.forget[members].sum())
        both = np.concatenate([values, values**2], axis=1)
        few = min(chosen, len(members) - chosen)  # draw the smaller group
        step = max(1, _BLOCK // len(members))
        for start in range(0, PERMUTATIONS, step):
            count = min(step, PERMUTATIONS - start)
            keys = rng.random((count, len(members)), dtype=np.float32)
            index = np.argpartition(keys, few - 1, axis=1)[:, :few]
            rows = max(1, _GATHERED // (few * both.shape[1]))
            drawn = np.concatenate([both[index[at : at + rows]].sum(axis=1) for at in range(0, count, rows)])
            drawn = drawn if few == chosen else both.sum(axis=0) - drawn
            sums[:, start : start + count, one] = np.moveaxis(drawn.reshape(count, 2, -1), 1, 0)
    return _studentized(*_with_totals(values_NK, strata, *sums), strata)
