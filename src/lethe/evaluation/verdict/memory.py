"""Memory left: by how much a model knows the forget images better than references do, as a share of what the original knows.

0 is the retrained model, 100 % the original, below 0 is over-forgetting."""

import math

from lethe.evaluation import uncertainty
from lethe.evaluation.logits_table import Floats
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.image_test import Strata, difference
from lethe.evaluation.verdict.words import INTERVAL

# Percent of the original's memory. Where the 95 % interval of a model without memory fits into +-BOUND, a model that kept half of it is
# detected with a probability of about 0.8, and the original practically always
BOUND = 100 / 3
# Percent to each side: an interval around 0 that is wider says nothing of a share. With the original as far from the references as chance
# is, both ends go to infinity
MEASURABLE = 300


def memory_left(model_N: Floats, original_N: Floats, strata: Strata) -> Estimate | None:
    """Estimate the memory left, with Fieller's interval of a ratio (doi:10.1111/j.2517-6161.1954.tb00159.x).

    Args:
        model_N: values of the model minus those of the references, centred within classes.
        original_N: the same of the original.
        strata: the images.

    Returns:
        Percent; None if the original does not differ from the references by more than chance: then there is nothing to have a share of.
    """
    import numpy as np
    from scipy import stats

    (model, original), covariance = difference(np.stack([model_N, original_N], axis=1), strata)
    quantile = float(stats.t.ppf((1 + uncertainty.CONFIDENCE) / 2, min(strata.sizes) - 1)) ** 2
    a = original**2 - quantile * covariance[1, 1]
    if a <= 0 or original <= 0:
        return None
    b = model * original - quantile * covariance[0, 1]
    c = model**2 - quantile * covariance[0, 0]
    half = math.sqrt(max(b * b - a * c, 0.0)) / a
    return Estimate(100 * model / original, 100 * (b / a - half), 100 * (b / a + half), INTERVAL)


def within_bound(memory: Estimate) -> bool:
    """Whether the whole interval is within +-BOUND."""
    low, high = memory.ends()
    return low >= -BOUND and high <= BOUND


def is_measurable(memory: Estimate) -> bool:
    """Whether an estimate says anything: not where its interval has 0 in it and half of it is wider than MEASURABLE, as -12,364 to 96 %."""
    low, high = memory.ends()
    return not low <= 0 <= high or (high - low) / 2 <= MEASURABLE


def in_words(memory: Estimate) -> str:
    """The memory left with its interval, or that it can't be measured (`is_measurable`)."""
    if not is_measurable(memory):
        return "memory left can't be measured: the original itself hardly differs from retrained models by more than chance"
    low, high = memory.ends()
    return f"memory left {_whole(memory.value)} % of the original's (95 % interval {_whole(low)} to {_whole(high)})"


def _whole(percent: float) -> str:
    return f"{percent:z.0f}"  # no minus zero


def what_it_takes(memory: Estimate | None, forget: int, models: int, references: int) -> str:
    """Estimate what would make the interval narrow enough for a verdict, from its width: one sentence.

    The interval of a model that knows as much as the references must fit into +-BOUND. Its width falls with the square root of the number
    of forget images; of its variance, the part that models add falls as 1 / models + 1 / references.

    Args:
        memory: the memory left.
        forget: number of forget images.
        models: number of models of the method.
        references: number of retrained models.

    Returns:
        The sentence, with numbers of references and of forget images that would do; also for a missing or a narrow interval.
    """
    if memory is None:
        return (
            "The original itself does not know these images better than a retrained model does, by more than chance: there is no memory to "
            "measure. More forget images, or more references, could show one."
        )
    if not is_measurable(memory):
        return (
            "The original itself knows these images hardly better than a retrained model does: more forget images, or more references, "
            "could show by how much."
        )
    low, high = memory.ends()
    half = (high - low) / 2
    if half <= BOUND and not round(low) <= 0 <= round(high):  # as it is shown
        what = "some memory is left" if low > 0 else "the model over-forgets"
        return (
            f"The interval of {_whole(low)} to {_whole(high)} % has no 0 in it, and by itself would say that {what}. Among all that is "
            "tested it may be chance: more seeds of the method, references or forget images would tell."
        )
    if half <= BOUND:
        return (
            f"To count as retrained, the interval of {_whole(low)} to {_whole(high)} % would have to lie between {-BOUND:.0f} and "
            f"{BOUND:.0f} %. It is short enough, but not centred on 0: more seeds of the method, references or forget images would show "
            "whether memory is left."
        )
    images = math.ceil(forget * (half / BOUND) ** 2)
    noise, wanted = 1 / models + 1 / references, (BOUND / half) ** 2
    share = wanted * noise - 1 / models  # 1 / references that would do
    ways = [f"about {images:,} forget images"]
    if share > 0:
        ways.insert(0, f"about {math.ceil(1 / share):,} references")
    else:
        ways.append("or more seeds of the method together with more references")
    listed = " or ".join(ways) if share > 0 else ", ".join(ways)
    return f"To decide, it would take {listed}: the interval now reaches {half:.0f} points to each side and may reach {BOUND:.0f}."
