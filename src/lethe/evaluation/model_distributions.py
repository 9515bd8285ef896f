"""Two groups of models, N unlearned and N retrained: is what they say of an image drawn from one distribution?

K unlearned models, M retrained ones, F images; phi as in logits tables (the log odds of the true class)."""

from math import ceil, floor, log

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DELTA = 1e-5
LARGEST = 50.0  # epsilon of what can be told apart without fail
BIN = 0.5


def klom(unlearned_KF: Floats, retrained_MF: Floats, bins: int = 20, floor_: float = 1e-5) -> Floats:
    """[F]: KL(unlearned || retrained) in nats between histograms of phi, on equal bins over the joint range, the last one closed.

    phi is clipped at +-100, the second histogram at `floor_` from below; swapped arguments give the other direction.
    Georgiev et al., arXiv:2410.23232, section 3 (KL divergence of margins)."""
    groups = [np.clip(group, -100.0, 100.0) for group in (unlearned_KF, retrained_MF)]
    low = np.minimum(*(group.min(axis=0) for group in groups))
    width = np.maximum(*(group.max(axis=0) for group in groups)) - low
    images = np.arange(len(low))
    shares = []
    for group in groups:
        place = np.floor((group - low) / np.where(width > 0, width, 1.0) * bins).astype(np.int64)
        flat = (images * bins + np.minimum(place, bins - 1)).ravel()
        shares.append(np.bincount(flat, minlength=len(images) * bins).reshape(len(images), bins) / len(group))
    p, q = shares[0], np.maximum(shares[1], floor_)
    return np.asarray(np.where(p > 0, p * (np.log(np.where(p > 0, p, 1.0)) - np.log(q)), 0.0).sum(axis=1))


def epsilons(unlearned_KF: Floats, retrained_MF: Floats) -> Floats:
    """[F]: for each image the largest epsilon that an attack between the two groups shows, at most 50.

    Attacks: phi >= t for the group with the larger median; l <= phi <= r for the narrower group; every t, l and r that was seen.
    Triantafillou et al., arXiv:2406.09073, appendix A."""
    return np.array([_epsilon(u, r) for u, r in zip(unlearned_KF.T, retrained_MF.T, strict=True)])


def _epsilon(unlearned: Floats, retrained: Floats) -> float:
    wide, narrow = sorted((unlearned, retrained), key=np.ptp, reverse=True)
    if np.ptp(narrow) < 0.01 * np.ptp(wide):
        return LARGEST
    positive, negative = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    values = np.unique(np.concatenate([unlearned, retrained]))

    def below(group: Floats) -> npt.NDArray[np.int64]:
        """[values + 1]: how many lie below each value, and all."""
        return np.append(np.searchsorted(np.sort(group), values, side="left"), len(group))

    def between(group: Floats) -> Floats:
        counts = below(group)
        return np.asarray((counts[high + 1] - counts[low]) / len(group))

    low, high = np.triu_indices(len(values))
    false_negative = np.concatenate([below(positive)[:-1] / len(positive), 1 - between(narrow)])
    false_positive = np.concatenate([1 - below(negative)[:-1] / len(negative), between(wide)])
    return strongest(false_positive, false_negative)


def strongest(false_positive: Floats, false_negative: Floats, delta: float = DELTA) -> float:
    """Epsilon of the best of several attacks, by their error rates: 50 where both are 0; an attack of which exactly one is 0 is left
    out, as too few models were seen; 0 where none is left."""
    # rates are shares of small whole numbers: what is not a whole number away from 0 is 0
    zero = [np.abs(rates) < 1e-12 for rates in (false_positive, false_negative)]
    if (zero[0] & zero[1]).any():
        return LARGEST
    known = ~zero[0] & ~zero[1]
    fpr, fnr = false_positive[known], false_negative[known]
    with np.errstate(divide="ignore", invalid="ignore"):  # a rate of 1 leaves nothing to take the logarithm of
        found = np.concatenate([np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr)])
    return float(min(LARGEST, np.nanmax(found, initial=0.0)))


def largest_shown(unlearned: int, retrained: int) -> float:
    """The largest epsilon below 50 that so many models can show: one error of each kind."""
    fpr, fnr = 1 / unlearned, 1 / retrained
    return max(0.0, log(max(1 - DELTA - fpr, DELTA) / fnr), log(max(1 - DELTA - fnr, DELTA) / fpr))


def forgetting_quality(epsilons_F: Floats, models: int) -> Floats:
    """[F]: 2^-(number of epsilon's bin), bins of 0.5 up to ceil(ln(models - 1)), 0 beyond. Appendix A of arXiv:2406.09073."""
    bins = floor(ceil(log(models - 1)) / BIN) if models > 1 else 0
    number = np.floor(epsilons_F / BIN)
    return np.where(number < bins, 2.0**-number, 0.0)
