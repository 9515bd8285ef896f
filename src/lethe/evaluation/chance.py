"""Chance: does one measure of a model differ from what retrained models score by more than chance?

One rule for the report, the card and the alarm. Each comparison stands by itself: of twenty, one differs by chance, so none of them is a
verdict (`verdict.judge`)."""

import math
from collections.abc import Sequence

from lethe.evaluation import uncertainty
from lethe.evaluation.uncertainty import Estimate

# Measures of which only larger values differ: one that is nearer to the references than they are to each other is no worse for it
ONE_SIDED = ("kl_to_reference", "js_to_reference", "klom", "epsilon", "avg_gap")
# Measures of which only smaller values differ
ONE_SIDED_BELOW = ("tow",)
# Parts that do not depend on the model
CONSTANT = ("epsilon.largest_shown", "neurips.between_halves")


def chance_range(estimate: Estimate, reference: Estimate) -> tuple[float, float]:
    """Compute the range in which a retrained model, or the mean of m of them, is expected by chance in 95 of 100 cases.

    Beside the mean of n retrained models it is Student's prediction interval: their interval, widened by sqrt(1 + n / m), as the mean of m
    further models varies as well. Beside a single one it is the interval of a difference from both intervals over images: the root of the
    sum of squares (Zou and Donner, doi:10.1002/sim.3095).

    Args:
        estimate: of the model; its value plays no part, its interval and number of models do.
        reference: of the retrained models.

    Returns:
        Low and high end.
    """
    low, high = reference.ends()
    below, above = reference.value - low, high - reference.value
    if reference.models > 1:
        wider = math.sqrt(1 + reference.models / estimate.models)
        return reference.value - wider * below, reference.value + wider * above
    start, end = estimate.ends()
    return reference.value - math.hypot(below, end - estimate.value), reference.value + math.hypot(above, estimate.value - start)


def differs(id_: str, estimate: Estimate | None, reference: Estimate | None) -> bool | None:
    """Test whether a measure of a model is outside the range of chance.

    Args:
        id_: of the measure and its part.
        estimate: of the model.
        reference: of the retrained models, or a known target.

    Returns:
        None if one of them is unknown, or the part does not depend on the model.
    """
    if estimate is None or reference is None or id_ in CONSTANT:
        return None
    low, high = chance_range(estimate, reference)
    above, below = estimate.value > high, estimate.value < low
    return (above and id_ not in ONE_SIDED_BELOW) or (below and not id_.startswith(ONE_SIDED))


def accuracy(percent: float, images: int) -> Estimate:
    """An accuracy of which nothing but the number of images is known, with the exact interval that a score has (`uncertainty.share`).

    Args:
        percent: the accuracy.
        images: how many it is of, at least 1.

    Returns:
        The accuracy of one model, value and interval in percent.
    """
    return uncertainty.share(percent / 100 * images, images, 100.0)


def difference(plus: Sequence[Estimate], minus: Sequence[Estimate]) -> tuple[float, float]:
    """Compute the interval of a sum of independent values minus another, from the interval of each (Zou and Donner).

    Beside a single retrained model a model is outside of `chance_range` exactly if the interval of their difference leaves out 0.

    Args:
        plus: the values that are added.
        minus: the values that are subtracted.

    Returns:
        Low and high end.
    """
    value = sum(one.value for one in plus) - sum(one.value for one in minus)
    down = [one.value - one.ends()[0] for one in plus] + [one.ends()[1] - one.value for one in minus]
    up = [one.ends()[1] - one.value for one in plus] + [one.value - one.ends()[0] for one in minus]
    return value - math.hypot(*down), value + math.hypot(*up)
