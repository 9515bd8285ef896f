"""Tests of whether methods differ by more than their seeds do."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lethe.evaluation.uncertainty import equal


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p of Student's paired t-test between two methods.

    Args:
        ours: one number per seed.
        theirs: the other method's, for the same seeds.

    Returns:
        p. Where all differences are equal there is no spread to hold them against, and t is 0/0 or infinite: 1 if they are 0, otherwise
        that of the sign test, 2^(1 - seeds), since nothing more than their sign is known to repeat.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    from scipy import stats

    apart = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if len(apart) < 2:
        raise ValueError(f"a paired test takes at least 2 seeds, not {len(apart)}")
    if equal(apart):
        return 1.0 if apart[0] == 0 else 2.0 ** (1 - len(apart))
    return float(stats.ttest_1samp(apart, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for multiple tests by Holm's step-down method (Holm 1979): rejecting below 0.05 bounds the family-wise error by it.

    Args:
        p_values: name of the test -> p.

    Returns:
        Name of the test -> adjusted p, 1 at most, in ascending order of p.

    Raises:
        ValueError: some p is NaN.
    """
    for name, p in p_values.items():
        if math.isnan(p):
            raise ValueError(f"p of {name} is not a number")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted
