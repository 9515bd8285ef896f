"""Measures of several models: N models unlearned by a method (one per seed) against N retrained ones.

Each function computes one measure from an EvaluationContext; the arithmetic is in model_distributions.py."""

import math

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.evaluation import model_distributions
from lethe.evaluation.context import Estimates, EvaluationContext
from lethe.evaluation.logits_table import Floats, Ints
from lethe.evaluation.registry import HALVES, register_measure
from lethe.evaluation.uncertainty import FRACTION, POSITIVE, Estimate

_KLOM_SPLITS = ("forget", "retain", "validation")
LARGEST_KLOM = (0.0, -math.log(model_distributions.SMALLEST_SHARE))  # the range of an image's KLOM: all of one group where the other is not


def _phi(context: EvaluationContext, rows: Ints) -> tuple[Floats, Floats]:
    """phi [K, rows] of the unlearned models, and [M, rows] of the retrained ones."""
    unlearned, retrained = (
        np.stack([table.phi[rows] for table in group]) for group in (context.unlearned or [context.model], context.references)
    )
    return unlearned, retrained


@register_measure(
    id="klom",
    about="KL(unlearned || retrained) between histograms of phi per image, in nats: mean and 95th percentile; `reversed`: the other "
    "direction",
    target=HALVES,
    min_references=64,
    needs=("unlearned",),
    source="arXiv:2410.23232",
    parts=tuple(f"{direction}{split}{of}" for direction in ("", "reversed.") for split in _KLOM_SPLITS for of in ("", ".p95")),
    bounds=LARGEST_KLOM,
)
def klom(context: EvaluationContext) -> Estimates:
    """KL divergence between histograms of phi, image by image (arXiv:2410.23232), in both directions: mean and 95th percentile by split."""
    results: Estimates = {}
    for split in _KLOM_SPLITS:
        groups = _phi(context, context.rows(split))
        for direction, pair in (("", groups), ("reversed.", groups[::-1])):
            each = model_distributions.klom(*pair)
            results |= {f"{direction}{split}": context.mean(each), f"{direction}{split}.p95": context.quantile(each, 0.95, LARGEST_KLOM)}
    return results


@register_measure(
    id="epsilon",
    about="largest epsilon that thresholds and intervals of phi demonstrate, mean over forget (at most 50), and the largest that this many "
    "models can demonstrate; the attacks are the NeurIPS 2023 competition's, whose intervals are as wide as the narrower group's range +-2",
    target=HALVES,
    min_references=64,
    needs=("unlearned",),
    source="arXiv:2406.09073",
    parts=("mean", "largest_shown"),
    bounds=(0.0, model_distributions.LARGEST),
)
def epsilon(context: EvaluationContext) -> Estimates:
    """Mean over forget of the largest epsilon that an attack on phi demonstrates, and the most that this number of models can show."""
    unlearned, retrained = _phi(context, context.rows("forget"))
    shown = model_distributions.largest_shown(len(unlearned), len(retrained))
    return {"mean": context.mean(model_distributions.epsilons(unlearned, retrained)), "largest_shown": Estimate(shown)}


@register_measure(
    id="neurips",
    about="score of the NeurIPS 2023 competition: mean forgetting quality x retain and test accuracy relative to the references; and "
    "the quality between two halves of the bank",
    target=HALVES,
    min_references=64,
    needs=("unlearned",),
    source="arXiv:2406.09073",
    parts=("", "between_halves"),
    bounds={"": POSITIVE, "between_halves": FRACTION},
)
def neurips(context: EvaluationContext) -> Estimates:
    """`between_halves` is the forgetting quality between two halves of the bank: what perfect unlearning gets from so few models."""
    unlearned, retrained = _phi(context, context.rows("forget"))
    groups = (context.unlearned or [context.model], context.references)
    correct = [
        [np.mean([table.percent_correct[context.rows(split)] for table in group], axis=0) for group in groups]
        for split in ("retain", "test")
    ]
    half, models = len(retrained) // 2, min(len(unlearned), len(retrained))
    quality = model_distributions.forgetting_quality(model_distributions.epsilons(unlearned, retrained), models)
    baseline = model_distributions.forgetting_quality(model_distributions.epsilons(retrained[:half], retrained[half : 2 * half]), half)
    if not all(theirs.any() for _, theirs in correct):
        raise InsufficientData("needs retrained models that classify some retain and some test images correctly; these classify none")

    def score(forget: Ints, *drawn: Ints) -> Floats:
        means = [(ours[index].mean(-1), theirs[index].mean(-1)) for (ours, theirs), index in zip(correct, drawn, strict=True)]
        utilities = [ours / np.maximum(theirs, 1e-9) for ours, theirs in means]
        return np.asarray(quality[forget].mean(-1) * np.prod(utilities, axis=0))[None]

    (whole,) = context.bootstrap(score, len(quality), *(len(ours) for ours, _ in correct), bounds=POSITIVE)
    return {"": whole, "between_halves": context.mean(baseline, FRACTION)}
