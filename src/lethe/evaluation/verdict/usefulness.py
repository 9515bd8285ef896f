"""Paired comparison of accuracies with few models: McNemar's test for groups of models, with the spread between trainings allowed for."""

import math

import numpy as np

from lethe.evaluation.logits_table import Bools

# Variance of an accuracy between trainings, divided by what independent images would give. Jordan (ICLR 2024, arXiv:2304.01910) finds
# about 1 on CIFAR-10 and ImageNet; bench/verdict.py prints that of its data. With fewer than SEVERAL references it can't be measured
OVERDISPERSION = 2.0
SEVERAL = 8


def paired(ours_MN: Bools, theirs_MN: Bools) -> tuple[float, float]:
    """Compare the accuracy of two groups of models on the same images.

    Under the null hypothesis all models classify an image correctly with the same probability; the variance of the difference is then the
    sum over images of p (1 - p) (1 / ours + 1 / theirs), and for one model against one McNemar's (b + c).

    Args:
        ours_MN: whether each model of the method is correct on each image.
        theirs_MN: the same of the references.

    Returns:
        The studentized difference, ours minus theirs, and its two-sided p.
    """
    from scipy import stats

    images, ours, theirs = ours_MN.shape[1], len(ours_MN), len(theirs_MN)
    share = np.concatenate([ours_MN, theirs_MN]).mean(axis=0)
    models = ours + theirs
    single = float((share * (1 - share)).sum()) * models / (models - 1)  # of one model's number of correct images
    factor, freedom = OVERDISPERSION, math.inf
    if theirs >= SEVERAL:
        within = float((theirs_MN.mean(axis=0) * (1 - theirs_MN.mean(axis=0))).sum()) * theirs / (theirs - 1)
        spread = float(theirs_MN.sum(axis=1).var(ddof=1))
        factor, freedom = max(1.0, spread / within if within > 0 else 1.0), theirs - 1
    variance = factor * (single + 1.0) * (1 / ours + 1 / theirs)  # + 1: where all models agree, one image more or less is no difference
    apart = float(ours_MN.mean(axis=0).sum() - theirs_MN.mean(axis=0).sum())
    size = apart / math.sqrt(variance) if images else 0.0
    return size, float(2 * stats.t.sf(abs(size), freedom))
