"""Distributions over models: are the outputs of unlearned and of retrained models on an image drawn from the same distribution?

K unlearned models, M retrained models, F images; phi is the log odds of the true class, as in logits tables."""

from math import ceil, floor, log

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DELTA = 1e-5
SMALLEST_SHARE = 1e-5  # of the reference group in a bin of KLOM
LARGEST = 50.0  # epsilon of two groups that can be separated without error
BIN = 0.5  # width of epsilon's bins in the forgetting quality
SLACK = 2.0  # by how much the ends of an interval, and its width, may differ from the narrower group's


def klom(unlearned_KF: Floats, retrained_MF: Floats, bins: int = 20, floor_: float = SMALLEST_SHARE) -> Floats:
    """KLOM, KL divergence of margins: Georgiev et al., arXiv:2410.23232, section 3.

    KL(unlearned || retrained) between histograms of phi on equal bins over the joint range, the last bin closed. Swap the arguments for
    the other direction.

    Args:
        unlearned_KF: phi of the unlearned models, clipped at +-100.
        retrained_MF: phi of the retrained models, clipped at +-100.
        bins: number of bins.
        floor_: lower limit of the second histogram's shares.

    Returns:
        [F], in nats.
    """
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
    """For each image the largest epsilon that an attack on the two groups demonstrates, at most 50.

    Triantafillou et al., arXiv:2406.09073, appendix A. Attacks: phi >= t for the group with the larger median, for every t; l <= phi <= r
    for the narrower group, for every r within SLACK of its largest value and every l at which r - l is within SLACK of its range. The
    competition sweeps t, l and r in steps of 0.01; here every division of the models that such an attack can make is tried.

    Args:
        unlearned_KF: phi of the unlearned models.
        retrained_MF: phi of the retrained models.

    Returns:
        [F].
    """
    return np.array([_epsilon(u, r) for u, r in zip(unlearned_KF.T, retrained_MF.T, strict=True)])


def _epsilon(unlearned: Floats, retrained: Floats) -> float:
    wide, narrow = sorted((unlearned, retrained), key=np.ptp, reverse=True)
    if np.ptp(narrow) < 0.01 * np.ptp(wide):
        return LARGEST
    positive, negative = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    values = np.unique(np.concatenate([unlearned, retrained]))

    def below(group: Floats) -> npt.NDArray[np.int64]:
        """[values + 1]: how many are below each value, and the total."""
        return np.append(np.searchsorted(np.sort(group), values, side="left"), len(group))

    low, high = _intervals(values, float(narrow.max()), float(np.ptp(narrow)))

    def between(group: Floats) -> Floats:
        counts = below(group)
        return np.asarray((counts[high + 1] - counts[low]) / len(group))

    false_negative = np.concatenate([below(positive)[:-1] / len(positive), 1 - between(narrow)])
    false_positive = np.concatenate([1 - below(negative)[:-1] / len(negative), between(wide)])
    return strongest(false_positive, false_negative)


def _intervals(values: Floats, largest: float, width: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last of the values within each interval of the family: those for which some pair l, r exists.

    values[low] is the first within if values[low - 1] < l <= values[low], values[high] the last if values[high] <= r < values[high + 1].

    Args:
        values: all observed values, sorted, without repetition.
        largest: value of the narrower group.
        width: range of the narrower group.
    """
    low, high = np.triu_indices(len(values))
    before, behind = np.append(-np.inf, values)[low], np.append(values, np.inf)[high + 1]
    from_, to = np.maximum(values[high], largest - SLACK), np.minimum(values[low] + width + SLACK, largest + SLACK)
    above = before + width - SLACK  # r lies above this and below `behind`, both excluded
    possible = (from_ <= to) & (above < to) & (from_ < behind) & (above < behind)
    return low[possible], high[possible]


def strongest(false_positive: Floats, false_negative: Floats, delta: float = DELTA) -> float:
    """Epsilon of the best of several attacks.

    Args:
        false_positive: false-positive rate of each attack.
        false_negative: false-negative rate of each attack.
        delta: of (epsilon, delta)-differential privacy.

    Returns:
        50 if both rates of some attack are 0. Attacks with exactly one rate of 0 are left out, as there are too few models to estimate
        it; 0 if no attack remains.
    """
    # rates are fractions of small integers: anything closer to 0 is a rounding error
    zero = [np.abs(rates) < 1e-12 for rates in (false_positive, false_negative)]
    if (zero[0] & zero[1]).any():
        return LARGEST
    usable = ~zero[0] & ~zero[1]
    fpr, fnr = false_positive[usable], false_negative[usable]
    with np.errstate(divide="ignore", invalid="ignore"):  # a rate of 1 gives the logarithm of a negative number
        epsilons_ = np.concatenate([np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr)])
    return float(min(LARGEST, np.nanmax(epsilons_, initial=0.0)))


def largest_shown(unlearned: int, retrained: int) -> float:
    """Compute the largest epsilon below 50 that this many models can demonstrate: with a single error of each kind.

    Args:
        unlearned: number of unlearned models.
        retrained: number of retrained models.

    Returns:
        Epsilon, 0 or more; delta is DELTA.
    """
    fpr, fnr = 1 / unlearned, 1 / retrained
    return max(0.0, log(max(1 - DELTA - fpr, DELTA) / fnr), log(max(1 - DELTA - fnr, DELTA) / fpr))


def forgetting_quality(epsilons_F: Floats, models: int) -> Floats:
    """Compute the forgetting quality of each image: Triantafillou et al., arXiv:2406.09073, appendix A.

    It is 2^-(bin of epsilon), with bins of width 0.5 up to ceil(ln(models - 1)), and 0 from there on.

    Args:
        epsilons_F: epsilon of each image, as `epsilons` returns it.
        models: number of models of each kind that the epsilons were estimated from.

    Returns:
        float64 [F], 0 to 1.
    """
    bins = floor(ceil(log(models - 1)) / BIN) if models > 1 else 0
    number = np.floor(epsilons_F / BIN)
    return np.where(number < bins, 2.0**-number, 0.0)
