"""Measures of one model: accuracy and gaps to the references, divergences, representation columns, cost.

Each function computes one measure from an EvaluationContext and is declared by `register_measure`. N images, C classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.data.splits import SPLITS
from lethe.evaluation import membership, representations, row_blocks, uncertainty
from lethe.evaluation.context import Cost, Estimates, EvaluationContext
from lethe.evaluation.logits_table import COPIES, DRAWS, RESIDUAL, Floats, Ints
from lethe.evaluation.registry import BETWEEN, SMALL, register_measure
from lethe.evaluation.roc import with_edges
from lethe.evaluation.uncertainty import FRACTION, PERCENT, POINTS, POSITIVE, Estimate, Range

TAUS = (0.01, 0.03, 0.06)  # radii of `residual`, in units of the square root of the number of pixel values
LARGEST_SHARE = 0.2  # of retraining: the limit of the NeurIPS 2023 unlearning competition, which measured it in time
COMPARED = ("forget", "test")  # splits on which predictions and features are compared


def _distance(context: EvaluationContext) -> Floats:
    """[N], in points: 100 where the model is correct, minus the percentage of references that are."""
    return np.asarray(context.model.percent_correct - np.mean([table.percent_correct for table in context.references], axis=0))


def _by_split(context: EvaluationContext, values_N: Floats, bounds: Range) -> Estimates:
    return {split: context.mean(values_N[rows], bounds, edges=True) for split in SPLITS if len(rows := context.model.rows(split))}


@register_measure(id="accuracy", about="accuracy in percent, by split", interval=uncertainty.SHARE, parts=SPLITS, bounds=PERCENT)
def accuracy(context: EvaluationContext) -> Estimates:
    """Mean of 100 where the prediction is the label, else 0."""
    return _by_split(context, context.model.percent_correct, PERCENT)


@register_measure(
    id="accuracy_of",
    about="for requests that remove whole classes: validation and test accuracy in percent, on the classes that retain still contains "
    "and on the others",
    parts=tuple(f"{classes}.{split}" for classes in ("retained_classes", "forgotten_classes") for split in ("validation", "test")),
    interval=uncertainty.SHARE,
    bounds=PERCENT,
)
def accuracy_by_class(context: EvaluationContext) -> Estimates:
    """Empty if retain contains every class: the request removes none."""
    labels = context.model.labels
    retained = np.isin(labels, labels[context.rows("retain")])
    results: Estimates = {}
    if retained.all():
        return results
    for split in ("validation", "test"):
        rows = context.model.rows(split)
        for name, part in (("retained_classes", rows[retained[rows]]), ("forgotten_classes", rows[~retained[rows]])):
            if len(part):
                results[f"{name}.{split}"] = context.mean(context.model.percent_correct[part], PERCENT)
    return results


@register_measure(
    id="distance",
    about="accuracy minus the mean accuracy of the references, in points, signed",
    target=0,
    min_references=1,
    parts=SPLITS,
    bounds=POINTS,
)
def distance(context: EvaluationContext) -> Estimates:
    """Mean over the images of a split of 100 x (model correct - share of references that are)."""
    return _by_split(context, _distance(context), POINTS)


_GAPS = ("forget", "retain", "test")  # whose accuracies take part; the fourth is an attack


def _mean_gap(context: EvaluationContext, *sizes: int, fourth: Callable[..., Floats]) -> Estimate:
    """Mean of four absolute gaps in points: forget, retain and test accuracy, and `fourth`.

    `fourth` takes the resampled indices of forget, and of further samples of the given `sizes`."""
    gaps, images = _gaps(context, *_GAPS)

    def four(*drawn: Ints) -> Floats:
        return np.stack([*gaps(*drawn[:3]), fourth(drawn[0], *drawn[3:])])

    return context.of_gaps(four, lambda each: each.mean(axis=0), 0.25, *images, *sizes, bounds=PERCENT)


def _gaps(context: EvaluationContext, *splits: str) -> tuple[Callable[..., list[Floats]], list[int]]:
    """The gaps in accuracy on resampled images of each split, in points, with edges (`uncertainty.bootstrap`); and the splits' sizes."""
    each = [np.append(_distance(context)[context.rows(split)], POINTS) for split in splits]
    return lambda *drawn: [part[index].mean(-1) for part, index in zip(each, drawn, strict=True)], [len(part) - 2 for part in each]


@register_measure(
    id="avg_gap.svc",
    about="mean absolute gap to the references in forget, retain and test accuracy and in `mia.svc`, in points (SalUn's "
    "average gap); for several seeds the mean of their gaps, see `avg_gap.of_means`. The retrained models' own is the floor: what each "
    "scores next to the others",
    target=0,
    min_references=1,
    source="arXiv:2310.12508",
    bounds=PERCENT,
)
def avg_gap_svc(context: EvaluationContext) -> Estimate:
    """(|d_retain| + |d_forget| + |d_test| + |d_mia.svc|) / 4, where d is the model's value minus the references' mean."""
    model, *references = membership.svc_non_members(context, context.model, *context.references)
    gap = np.append(model - np.mean(references, axis=0), POINTS)
    # how the gap varies with the images that the attacks are trained on, by a few of the references
    refits = membership.svc_refits(context, context.model, *context.references[:4]) if context.resample else None
    if refits is None:
        return _mean_gap(context, fourth=lambda forget: gap[forget].mean(-1))
    number = refits.shape[1]
    apart = np.append(refits[0] - refits[1:].mean(axis=0), (0.0, 0.0)) * math.sqrt(number)  # a mean of as many has the deviation of one
    return _mean_gap(context, number, fourth=lambda forget, refit: gap[forget].mean(-1) + apart[refit].mean(-1))


@register_measure(
    id="avg_gap.of_means",
    about="the same four gaps between the mean over the method's seeds and the mean over the references: deviations of single seeds "
    "cancel, so this is the smaller of the two forms in circulation. The floor is what as many retrained models score next to the others",
    target=0,
    min_references=1,
    needs=("unlearned",),
    source="arXiv:2310.12508",
    interval=uncertainty.MODELS,
    bounds=PERCENT,
)
def avg_gap_of_means(context: EvaluationContext) -> Estimate:
    """The interval is over images and over seeds; not over the images that the attack of `mia.svc` is trained on."""
    models = context.unlearned
    if len(models) < 2:
        raise InsufficientData("needs several models of the method (run.seeds)")
    attacked = membership.svc_non_members(context, *models, *context.references)
    correct = [[table.percent_correct[context.rows(split)] for table in (*models, *context.references)] for split in _GAPS]
    apart = [np.stack(each[: len(models)]) - np.mean(each[len(models) :], axis=0) for each in (*correct, attacked)]  # [models, images]
    of_images = [np.append(each.mean(axis=0), POINTS) for each in apart]
    of_models = np.stack([each.mean(axis=1) - each.mean() for each in apart])  # [4, models]
    of_models = np.concatenate([of_models, of_models.min(1, keepdims=True), of_models.max(1, keepdims=True)], axis=1)

    def four(forget: Ints, retain: Ints, test: Ints, seeds: Ints) -> Floats:
        drawn = zip(of_images, (forget, retain, test, forget), of_models, strict=True)
        return np.stack([values[images].mean(-1) + deviation[seeds].mean(-1) for values, images, deviation in drawn])

    sizes = [len(context.rows(split)) for split in _GAPS]
    estimate = context.of_gaps(four, lambda each: each.mean(axis=0), 0.25, *sizes, len(models), bounds=PERCENT)
    return replace(estimate, interval=uncertainty.MODELS if estimate.interval else "")


@register_measure(
    id="avg_gap.rmia",
    about="`avg_gap.svc` with the AUC of `rmia.gamma_1` in percent instead of `mia.svc`: AMUN's formula with this offline attack instead "
    "of AMUN's, so no number of that paper. The floor is approximate: a model that is held out is still a reference of the attacks on the "
    "others",
    target=0,
    min_references=8,
    source="arXiv:2503.00917",
    bounds=PERCENT,
)
def avg_gap_rmia(context: EvaluationContext) -> Estimate:
    """The interval covers this model's AUC only: the bank's mean AUC, each model held out in turn, is taken as exact."""
    bank = np.mean(membership.rmia_auc_of_references(context, 1.0))
    roc = membership.rmia_roc(context, 1.0)
    return _mean_gap(context, *roc.sizes[1:], fourth=lambda *drawn: 100 * (roc(*drawn)[0] - bank))


@register_measure(
    id="tow",
    about="tug of war: product over retain, forget and test of 1 - |distance| / 100",
    target=1,
    min_references=1,
    source="arXiv:2406.01257",
    bounds=FRACTION,
)
def tow(context: EvaluationContext) -> Estimate:
    """prod(1 - |d_s| / 100) over the splits s of retain, forget and test (arXiv:2406.01257), with d as in `distance`."""
    gaps, images = _gaps(context, "retain", "forget", "test")
    return context.of_gaps(gaps, lambda each: np.prod(1 - each / 100, axis=0), -0.01, *images, bounds=FRACTION)


def kl(reference_NC: Floats, model_NC: Floats) -> Floats:
    """Compute the Kullback-Leibler divergence KL(reference || model) of each image.

    Args:
        reference_NC: log probabilities of the reference, float64 [N, C], in nats.
        model_NC: log probabilities of the model, float64 [N, C], in nats.

    Returns:
        float64 [N], in nats.
    """
    return np.asarray((np.exp(reference_NC) * (reference_NC - model_NC)).sum(axis=1))


def js(reference_NC: Floats, model_NC: Floats) -> Floats:
    """Compute the Jensen-Shannon divergence of each image, H((p + q) / 2) - (H(p) + H(q)) / 2; symmetric, at most log 2.

    Args:
        reference_NC: log probabilities of the reference, float64 [N, C], in nats.
        model_NC: log probabilities of the model, float64 [N, C], in nats.

    Returns:
        float64 [N], in nats.
    """
    middle = np.logaddexp(reference_NC, model_NC) - np.log(2)
    return (kl(reference_NC, middle) + kl(model_NC, middle)) / 2


@register_measure(
    id="kl_to_reference",
    about="KL(mean prediction of the references || prediction of the model), mean over forget and over test, in nats",
    target=BETWEEN,
    min_references=1,
    parts=COMPARED,
    bounds=POSITIVE,
)
def kl_to_reference(context: EvaluationContext) -> Estimates:
    """Mean over images of sum_c p_c log(p_c / q_c): p the mean prediction of the references, q the model's."""
    return _divergence(context, kl)


@register_measure(
    id="js_to_reference",
    about="the same with the Jensen-Shannon divergence, H((p + q) / 2) - (H(p) + H(q)) / 2",
    target=BETWEEN,
    min_references=1,
    parts=COMPARED,
    bounds=(0.0, math.log(2)),
)
def js_to_reference(context: EvaluationContext) -> Estimates:
    """Mean over images of H((p + q) / 2) - (H(p) + H(q)) / 2 with p and q as in `kl_to_reference`; at most log 2."""
    return _divergence(context, js)


def _divergence(context: EvaluationContext, divergence: Callable[[Floats, Floats], Floats]) -> Estimates:
    from scipy.special import logsumexp

    def of_each(rows: Ints) -> Floats:
        each = np.stack([reference.log_softmax(rows) for reference in context.references])
        return divergence(logsumexp(each, axis=0) - np.log(len(each)), context.model.log_softmax(rows))

    results = {}
    for split in COMPARED:
        rows = context.rows(split)
        results[split] = context.mean(row_blocks.over(rows, context.model.logits, of_each, 1 + len(context.references)))
    return results


@register_measure(
    id="probe.excess",
    about="accuracy of a newly fitted linear head on the last layer's input, forget minus test, in points",
    needs=("probe",),
    source="arXiv:2604.08271",
    bounds=POINTS,
)
def probe_excess(context: EvaluationContext) -> Estimate:
    """The head is fitted on retain (`representations.probe`); test images are weighted to the classes of forget."""
    held_out, weights = context.matched_held_out("test")
    correct = 100.0 * context.model.columns["probe"]
    images = len(context.rows("forget")), len(held_out)
    on_forget, on_test = np.append(correct[context.rows("forget")], PERCENT), np.append(correct[held_out], PERCENT)
    weights = with_edges(weights)

    def statistic(forget: Ints, test: Ints) -> Floats:
        unseen = (on_test * weights)[test].sum(-1) / weights[test].sum(-1)
        return np.asarray(on_forget[forget].mean(-1) - unseen)[None]

    return context.bootstrap(statistic, *images, bounds=POINTS, edges=True)[0]


@register_measure(
    id="residual",
    about="share of perturbed copies of forget images (L2 radius tau x sqrt(pixel values); evaluate.perturbed of them) still classified "
    "correctly, divided by the share of the references; by tau",
    target=1,
    min_references=1,
    needs=("residual",),
    source="arXiv:2601.22359",
    parts=tuple(f"{tau:g}" for tau in TAUS),
    bounds=POSITIVE,
)
def residual(context: EvaluationContext) -> Estimates:
    """Mean share over images of the model / that of the references, by tau; an image that a table has no copies of is left out."""
    tables, forget = (context.model, *context.references), context.rows("forget")
    draws = np.stack([table.columns.get(DRAWS, np.full(len(table.ids), COPIES))[forget] for table in tables])
    sampled = (draws > 0).all(axis=0)  # a table may hold more of the request than another
    counts = np.stack([table.columns[RESIDUAL][forget] for table in tables])[:, sampled] * (COPIES / draws[:, sampled, None])
    model, references = counts[0], counts[1:].mean(axis=0)
    if not references.sum(axis=0).all():
        raise InsufficientData("needs retrained models that classify some of the perturbed forget images correctly; these classify none")

    # the edges: an image that only the model classifies correctly however it is perturbed, and one that only the references do
    every, none = np.full((1, len(TAUS)), float(max(model.max(), references.max()))), np.zeros((1, len(TAUS)))
    model, references = np.concatenate([model, every, none]), np.concatenate([references, none, every])

    def statistic(index: Ints) -> Floats:
        baseline = references[index].mean(-2)
        return np.moveaxis(model[index].mean(-2) / np.maximum(baseline, 1e-9), -1, 0)

    estimates = context.bootstrap(statistic, int(sampled.sum()), bounds=POSITIVE, edges=True)
    return dict(zip((f"{tau:g}" for tau in TAUS), estimates, strict=True))


@register_measure(
    id="cka",
    about="debiased linear CKA between the features of the model and of each reference, mean over references, on forget and on test",
    target=BETWEEN,
    min_references=8,
    needs=("features",),
    interval=uncertainty.SEEDS,
    source="arXiv:2010.15327",
    parts=COMPARED,
    bounds=(-math.inf, 1.0),
)
def cka(context: EvaluationContext) -> Estimates:
    """The interval is Student's t over references: each gives one similarity."""

    def similarity(rows: Ints) -> Estimate:
        model, *references = (table.columns["features"][rows] for table in (context.model, *context.references))
        return uncertainty.over_seeds([representations.cka(model, one) for one in references])

    return {split: similarity(context.rows(split)) for split in COMPARED}


def relearn_steps(forget_accuracies: Sequence[float] | Floats, original: float) -> int:
    """Count the optimizer steps of fine-tuning on forget until its accuracy is within one point of the original's, or above.

    Args:
        forget_accuracies: percent, one value per step; the first is before any step.
        original: forget accuracy of the original model, in percent.

    Returns:
        0 where the accuracy is within a point of the original's before any step.

    Raises:
        InsufficientData: the accuracy is not reached within these steps.
    """
    step = next((step for step, accuracy in enumerate(forget_accuracies) if original - accuracy <= 1 + 1e-9), None)  # and rounding
    if step is None:
        raise InsufficientData(f"needs more than {len(forget_accuracies) - 1} optimizer steps of relearning")
    return step


@register_measure(
    id="relearn",
    about="optimizer steps of fine-tuning on forget until forget accuracy is within one point of the original's",
    needs=("relearn", "original"),
    interval=uncertainty.CURVE,
    bounds=POSITIVE,
)
def relearn(context: EvaluationContext) -> Estimate:
    """The interval is over images: from the first step at which the accuracy may be within a point of the original's, to the first at
    which it must be, by the interval of that difference (see `paired_ends`); at most the number of steps that were taken. The order of
    the batches is that of one run, so a second run may differ by more."""
    assert context.original
    forget = context.rows("forget")
    right_FS, original_F = context.model.columns["relearn"][forget] > 0, context.original.correct[forget]
    steps = relearn_steps(100 * right_FS.mean(axis=0), 100 * float(original_F.mean()))
    if not context.resample:
        return Estimate(float(steps))
    low, high = uncertainty.paired_ends(
        (right_FS & ~original_F[:, None]).sum(axis=0), (~right_FS & original_F[:, None]).sum(axis=0), len(forget)
    )
    first, last = (int((end >= -0.01).argmax()) if (end >= -0.01).any() else right_FS.shape[1] - 1 for end in (high, low))
    return Estimate(float(steps), float(first), float(last), uncertainty.CURVE)


def _cost(context: EvaluationContext, value: Callable[[Cost], float | None]) -> Estimate:
    return Estimate(float((context.cost and value(context.cost)) or 0.0))


register_measure(id="seconds", about="wall-clock time of unlearning alone, in seconds", target=SMALL, needs=("cost",), interval="")(
    partial(_cost, value=lambda cost: cost.seconds)
)
register_measure(
    id="flops",
    about="work of unlearning alone: floating-point operations of the forward and backward passes of its optimizer steps and edits, in "
    "convolutions and linear layers",
    target=SMALL,
    needs=("work",),
    interval="",
)(partial(_cost, value=lambda cost: cost.flops))
register_measure(
    id="share_of_retrain",
    about="the same divided by that of retraining, which is that of its recipe where it was not counted, as where a retrained model is "
    f"given; above {LARGEST_SHARE} is flagged",
    target=SMALL,
    needs=("retrain_cost",),
    interval="",
    source="arXiv:2406.09073",
)(partial(_cost, value=lambda cost: cost.share_of_retrain))
register_measure(
    id="peak_memory",
    about="peak memory allocated by tensors on the device during unlearning, in bytes",
    target=SMALL,
    needs=("memory",),
    interval="",
)(partial(_cost, value=lambda cost: cost.peak_bytes))
