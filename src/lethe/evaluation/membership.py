"""Membership inference measures: can an attacker who sees the model's outputs tell forgotten images from images that the model never saw?

Each function computes one measure from an EvaluationContext; the attacks themselves are in attacks.py."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.data.shadow_splits import replacements
from lethe.evaluation import attacks
from lethe.evaluation.context import Estimates, EvaluationContext
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Floats, Ints, LogitsTable
from lethe.evaluation.registry import CHANCE, HELD_OUT, register_measure
from lethe.evaluation.uncertainty import Estimate

ROC_PARTS = ("auc", *(f"tpr_at_{100 * rate:g}" for rate in attacks.RATES))
# Chance levels of those parts of ulira that have an interval; a part without one can't be compared with chance
CHANCE_LEVELS = {"ulira.balanced_accuracy": 50.0, "ulira.auc": 0.5}


@register_measure(
    id="mia.loss",
    about="accuracy in percent of a logistic regression on the loss that separates forget from an equal-sized sample of test",
    target=50,
    source="NeurIPS 2023 unlearning competition, starting kit",
)
def mia_loss(context: EvaluationContext) -> Estimate:
    held_out, weights = context.matched_held_out("test")
    forget, drawn = attacks.equal_sized(len(context.rows("forget")), weights)
    loss = context.model.loss
    correct, rounds = attacks.by_loss(loss[context.rows("forget")[forget]], loss[held_out[drawn]])

    def statistic(index: Ints) -> Floats:
        times = rounds[index].sum(-1)
        return np.asarray(100 * correct[index].sum(-1) / np.where(times, times, 1))[None]

    return context.bootstrap(statistic, len(correct))[0]


def svc_non_members(context: EvaluationContext, *tables: LogitsTable) -> list[Floats]:
    """For each table [F]: 100 where the SVC attack classifies a forget image as a non-member, else 0.

    Two tables at a time: libsvm releases the interpreter lock while it fits, and takes up to 400 MB for each."""
    rows = [context.rows(split) for split in ("retain", "test", "forget")]

    def attack(table: LogitsTable) -> Floats:
        retain, test, forget = (np.exp(table.log_p[part]) for part in rows)
        return np.asarray(table.cached("svc", lambda: 100.0 * ~attacks.by_svc(retain, test, forget)))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(attack, tables))


@register_measure(
    id="mia.svc",
    about="percent of forget that an RBF SVC on p_y, trained on retain against test, classifies as non-members (MIA-efficacy)",
    source="arXiv:2310.12508",
)
def mia_svc(context: EvaluationContext) -> Estimate:
    return context.mean(svc_non_members(context, context.model, *context.references)[0])  # also caches the references' values, needed next


@register_measure(
    id="mia.over",
    about="AUC of *the loss is higher on forget than on test*; above the reference's interval it shows over-forgetting",
)
def mia_over(context: EvaluationContext) -> Estimate:
    held_out, weights = context.matched_held_out("test")
    loss = context.model.loss
    roc = attacks.Roc(loss[context.rows("forget")], loss[held_out], weights)
    return context.bootstrap(lambda *drawn: roc(*drawn)[:1], *roc.sizes)[0]


def rmia_roc(context: EvaluationContext, gamma: float) -> attacks.Roc:
    """Compute the ROC curve of the offline RMIA attack, forget against test.

    The population z is a random half of validation, always the same one.

    Args:
        context: the model and at least one reference.
        gamma: threshold of the likelihood ratio.

    Returns:
        The curve, with forget images as positives and held-out images, weighted to match forget, as negatives.

    Raises:
        InsufficientData: forget, validation or test is empty.
    """
    validation = context.rows("validation")
    population = np.sort(np.random.default_rng(0).permutation(validation)[: max(1, len(validation) // 2)])
    scores = attacks.rmia(context.model.log_p, np.stack([reference.log_p for reference in context.references]), population, gamma)
    held_out, weights = context.matched_held_out("test")
    return attacks.Roc(scores[context.rows("forget")], scores[held_out], weights)


def rmia(context: EvaluationContext, gamma: float) -> Estimates:
    """Measure the offline RMIA attack, forget against test: Zarifzadeh et al., arXiv:2312.03262.

    Args:
        context: the model and at least one reference.
        gamma: threshold of the likelihood ratio.

    Returns:
        `auc`, `tpr_at_1` and `tpr_at_0.1` (true-positive rates, 0 to 1, at 1 % and 0.1 % FPR), with bootstrap intervals over images.

    Raises:
        InsufficientData: forget, validation or test is empty.
    """
    roc = rmia_roc(context, gamma)
    return dict(zip(ROC_PARTS, context.bootstrap(roc, *roc.sizes), strict=True))


for _gamma in (1, 2):
    register_measure(
        id=f"rmia.gamma_{_gamma}",
        about=f"offline RMIA, a = 0.3, gamma = {_gamma}, population half of validation: AUC, TPR at 1 % and 0.1 % FPR, forget against test",
        target=HELD_OUT,
        min_references=8,
        source="arXiv:2312.03262",
        parts=ROC_PARTS,
    )(partial(rmia, gamma=float(_gamma)))


@register_measure(
    id="iam",
    about="how completely each forget image is unlearned, from 0 (as in the original) to 1 (as in the references): mean, and share "
    "below 0.5",
    target=HELD_OUT,
    min_references=1,
    needs=("original",),
    source="arXiv:2506.06112",
    parts=("mean", "below_half"),
)
def iam(context: EvaluationContext) -> Estimates:
    assert context.original
    references = np.stack([reference.log_p for reference in context.references])
    forget = context.rows("forget")
    completeness = attacks.iam(context.model.log_p[forget], references[:, forget], context.original.log_p[forget])
    return {"mean": context.mean(completeness), "below_half": context.mean((completeness < 0.5).astype(np.float64))}


@register_measure(
    id="ulira",
    about="U-LiRA likelihood-ratio attack: balanced accuracy in percent (chance: 50), AUC (chance: 0.5), TPR at 1 % and 0.1 % FPR",
    target=CHANCE,
    min_references=64,
    needs=("shadows",),
    source="arXiv:2403.01218",
    parts=("balanced_accuracy", *ROC_PARTS),
)
def ulira(context: EvaluationContext) -> Estimates:
    """Intervals are over images, from the contribution of each: its own hits, and its placements among the others' scores (DeLong 1988)."""
    phi_NK, role_NK = (context.model.columns[name] for name in SHADOWS)
    pool = role_NK.any(axis=1)
    phi_KN, role_KN = phi_NK[pool].T.astype(np.float64), role_NK[pool].T
    (forgotten, of_forgotten), (unseen, of_unseen) = attacks.ulira(phi_KN, role_KN == FORGOT, role_KN == NEVER_SAW)
    number = phi_KN.shape[1]

    def per_image(by_forgotten: Floats, by_unseen: Floats) -> Floats:
        """Combine both groups into values [N] per image; their mean is the sum of the two groups' means."""
        parts = ((of_forgotten, by_forgotten), (of_unseen, by_unseen))
        return np.asarray(sum(np.bincount(images, values, number) * number / len(values) for images, values in parts))

    auc, *rates = (float(value) for value in attacks.Roc(forgotten, unseen).point())
    below, above = _placements(forgotten, unseen), 1 - _placements(unseen, forgotten)
    correct = per_image((forgotten > 0).astype(np.float64), (unseen <= 0).astype(np.float64)) / 2
    results = {"balanced_accuracy": context.mean(100 * correct), "auc": context.mean(per_image(below, above) - auc)}
    return results | {part: Estimate(rate) for part, rate in zip(ROC_PARTS[1:], rates, strict=True)}


def _placements(scores: Floats, others: Floats) -> Floats:
    """For each score, the share of `others` below it; ties count half."""
    ordered = np.sort(others)
    return np.asarray((np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2 / len(others))


@register_measure(
    id="swap.advantage",
    about="advantage of the best threshold on loss, entropy or margin at telling which of two requests a model has unlearned",
    target=0,
    needs=("swapped",),
    source="arXiv:2404.11577",
)
def swap(context: EvaluationContext) -> Estimate:
    second = replace(context.model, logits=context.model.columns[SWAPPED], columns={})
    parts = [context.rows("forget"), replacements(context.rows("forget"), context.rows("validation"), context.model.labels)]
    if len(parts[0]) != len(parts[1]) or len(parts[0]) < 4:
        raise InsufficientData(f"needs two requests of equal size, at least 4 images; they have {len(parts[0])} and {len(parts[1])}")
    (first_F, first_G), (second_F, second_G) = ([_signals(table, rows) for rows in parts] for table in (context.model, second))
    forget, other = attacks.swap(first_F, first_G, second_F, second_G)
    return context.bootstrap(lambda f, o: (np.abs(forget[f].mean(-1) - other[o].mean(-1)) / 2)[None], len(forget), len(other))[0]


def _signals(table: LogitsTable, rows: Ints) -> Floats:
    """[3, rows]: loss and entropy in nats, margin (p of the true class minus the largest other)."""
    log_p = table.log_softmax(rows)
    p = np.exp(log_p)
    others = p.copy()
    others[np.arange(len(rows)), table.labels[rows]] = 0.0
    true = np.exp(table.log_p[rows])
    return np.stack([table.loss[rows], -(p * log_p).sum(axis=1), true - others.max(axis=1)])
