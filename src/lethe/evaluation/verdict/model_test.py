"""Permutation test over models: do the models of a method differ from retrained ones by more than retrained models differ among themselves?

Under the null hypothesis the models of the method are retrained models too, so all models may be relabelled. Groups of the same sizes are
compared, and a maximum over all statistics is one decision: the false-alarm rate is exact for any number of statistics, however much
they hang together. It takes so many models that the smallest possible p is below the false-alarm rate.

M models in all, m of them of the method; K statistics per model, D matrices of distances between models, B relabellings."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

from lethe.evaluation.logits_table import Bools, Floats

RELABELLINGS = 1999


def smallest_p(ours: int, theirs: int) -> float:
    """Compute the smallest p that a test by relabelling can give.

    Args:
        ours: number of models of the method.
        theirs: number of references.

    Returns:
        1 by the number of relabellings.
    """
    return 1 / min(comb(ours + theirs, ours), RELABELLINGS + 1)


def relabellings(ours: int, theirs: int, seed: int = 0) -> Bools:
    """Draw which models are the method's.

    Args:
        ours: number of models of the method, which come first.
        theirs: number of references.
        seed: of the draws.

    Returns:
        [B, M]; the first is the true one. All that exist, if they are at most RELABELLINGS + 1.
    """
    models = ours + theirs
    if comb(models, ours) <= RELABELLINGS + 1:
        chosen = np.array(list(combinations(range(models), ours)))
    else:
        rng = np.random.default_rng(seed)
        drawn = rng.random((RELABELLINGS, models)).argsort(axis=1)[:, :ours]
        chosen = np.concatenate([np.arange(ours)[None], drawn])
    labels = np.zeros((len(chosen), models), bool)
    np.put_along_axis(labels, chosen, True, axis=1)
    return labels


def permutation_test(
    values_MK: Floats, floors_K: Floats, distances_DMM: Sequence[Floats], ours: int, seed: int = 0
) -> tuple[Floats, Floats]:
    """Test all statistics, corrected for testing several by the maximum over them.

    Args:
        values_MK: statistics of each model, those of the method's models first; compared two-sided by the difference of the means.
        floors_K: smallest standard deviation between models to divide by: a statistic in which retrained models happen to agree must
            not make every other model an outlier.
        distances_DMM: distances between models; only larger distances between the groups than within count.
        ours: number of models of the method.
        seed: of the relabellings.

    Returns:
        Studentized statistics [K + D] (sign: method minus references), and their adjusted p.
    """
    labels = relabellings(ours, len(values_MK) - ours, seed)
    statistics = np.concatenate(
        [_means(values_MK, floors_K, labels), *(_apart(matrix, labels)[:, None] for matrix in distances_DMM)], axis=1
    )
    one_sided = np.arange(statistics.shape[1]) >= values_MK.shape[1]
    size = np.where(one_sided, statistics, np.abs(statistics))
    largest = size.max(axis=1)
    exceeded = (largest[:, None] >= size[0] - 1e-9 * np.abs(size[0])).mean(axis=0)
    return statistics[0], exceeded


def _means(values: Floats, floors: Floats, labels: Bools) -> Floats:
    """Student's t with the deviations within groups pooled, [B, K]."""
    groups = [labels.astype(np.float64), (~labels).astype(np.float64)]
    counts = [group.sum(axis=1, keepdims=True) for group in groups]
    means = [group @ values / count for group, count in zip(groups, counts, strict=True)]
    squares = sum(group @ values**2 - count * mean**2 for group, count, mean in zip(groups, counts, means, strict=True))
    within = np.sqrt(np.maximum(squares, 0.0) / max(len(values) - 2, 1))
    scale = np.maximum(within, floors) * np.sqrt(sum(1 / count for count in counts))
    return np.asarray((means[0] - means[1]) / scale)


def _apart(matrix: Floats, labels: Bools) -> Floats:
    """Distances between the groups minus those within, standardized over the relabellings, [B].

    A group of one model has no distances within; then only the reference's count."""
    ours, theirs = labels.astype(np.float64), (~labels).astype(np.float64)
    between = np.einsum("bi,ij,bj->b", ours, matrix, theirs, optimize=True) / (ours.sum(1) * theirs.sum(1))
    within = [np.einsum("bi,ij,bj->b", group, matrix, group, optimize=True) for group in (ours, theirs)]
    pairs = [group.sum(1) * (group.sum(1) - 1) for group in (ours, theirs)]
    energy = 2 * between - sum(w / np.maximum(p, 1) for w, p in zip(within, pairs, strict=True))
    centre = np.median(energy)
    scale = np.median(np.abs(energy - centre)) * 1.4826
    return np.asarray((energy - centre) / (scale if scale > 0 else 1.0))
