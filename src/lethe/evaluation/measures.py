"""From a case to its numbers: the function of each measure. Pure arithmetic on logits tables; what each is stands in `measures`."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.data.shadow_splits import replacements
from lethe.data.splits import SPLITS
from lethe.evaluation import attacks
from lethe.evaluation import model_distributions as distributions
from lethe.evaluation import representations as features
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.context import Case, Clock, Estimates
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Floats, Ints, LogitsTable
from lethe.evaluation.uncertainty import Estimate

TAUS = (0.01, 0.03, 0.06)  # radii of `residual`, by the square root of the number of pixel values


# --- accuracies -------------------------------------------------------------------------------------------------------


def _known(table: LogitsTable, what: str, make: Callable[[], Any]) -> Any:
    """Made once a table: a reference is asked by every measure, and for every method."""
    if what not in table.known:
        table.known[what] = make()
    return table.known[what]


def _percent_correct(table: LogitsTable) -> Floats:
    return np.asarray(_known(table, "percent correct", lambda: 100.0 * table.correct))


def _apart(case: Case) -> Floats:
    """[N], points: whether the model is right, minus the share of references that are."""
    there = np.mean([_percent_correct(reference) for reference in case.references], axis=0)
    return np.asarray(_percent_correct(case.model) - there)


def _by_split(case: Case, values_N: Floats) -> Estimates:
    return {split: case.mean(values_N[rows]) for split in SPLITS if len(rows := case.model.rows(split))}


def accuracy(case: Case) -> Estimates:
    return _by_split(case, _percent_correct(case.model))


def accuracy_by_class(case: Case) -> Estimates:
    labels = case.model.labels
    kept = np.isin(labels, labels[case.rows("retain")])
    right, found = _percent_correct(case.model), {}
    if kept.all():
        return {}
    for split in ("validation", "test"):
        rows = case.model.rows(split)
        for name, part in (("retained_classes", rows[kept[rows]]), ("forgotten_classes", rows[~kept[rows]])):
            if len(part):
                found[f"{name}.{split}"] = case.mean(right[part])
    return found


def distance(case: Case) -> Estimates:
    return _by_split(case, _apart(case))


def tow(case: Case) -> Estimate:
    apart = [_apart(case)[case.rows(split)] for split in ("retain", "forget", "test")]

    def statistic(*drawn: Ints) -> Floats:
        kept = [1 - np.abs(part[index].mean(-1)) / 100 for part, index in zip(apart, drawn, strict=True)]
        return np.asarray(np.prod(kept, axis=0))[None]

    return case.bootstrap(statistic, *map(len, apart))[0]


# --- membership -------------------------------------------------------------------------------------------------------


def mia_loss(case: Case) -> Estimate:
    held_out, weights = case.beside_forget("test")
    forget, drawn = attacks.equal_sized(len(case.rows("forget")), weights)
    loss = case.model.loss
    right, asked = attacks.by_loss(loss[case.rows("forget")[forget]], loss[held_out[drawn]])

    def statistic(index: Ints) -> Floats:
        times = asked[index].sum(-1)
        return np.asarray(100 * right[index].sum(-1) / np.where(times, times, 1))[None]

    return case.bootstrap(statistic, len(right))[0]


def _non_members(case: Case, *tables: LogitsTable) -> list[Floats]:
    """[F] for each table, 100 where the SVC calls a forget image a non-member. Two at once: libsvm holds no lock while it fits, and
    takes up to 400 MB for each."""

    rows = [case.rows(split) for split in ("retain", "test", "forget")]

    def one(table: LogitsTable) -> Floats:
        retain, test, forget = (np.exp(table.log_p[part]) for part in rows)
        return np.asarray(_known(table, "svc", lambda: 100.0 * ~attacks.by_svc(retain, test, forget)))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, tables))


def mia_svc(case: Case) -> Estimate:
    return case.mean(_non_members(case, case.model, *case.references)[0])  # the references' are asked for next


def mia_over(case: Case) -> Estimate:
    held_out, weights = case.beside_forget("test")
    loss = case.model.loss
    roc = attacks.Roc(loss[case.rows("forget")], loss[held_out], weights)
    return case.bootstrap(lambda *drawn: roc(*drawn)[:1], *roc.sizes)[0]


def _rmia(case: Case, gamma: float) -> attacks.Roc:
    validation = case.rows("validation")
    population = np.sort(np.random.default_rng(0).permutation(validation)[: max(1, len(validation) // 2)])
    scores = attacks.rmia(case.model.log_p, np.stack([reference.log_p for reference in case.references]), population, gamma)
    held_out, weights = case.beside_forget("test")
    return attacks.Roc(scores[case.rows("forget")], scores[held_out], weights)


ROC_PARTS = ("auc", *(f"tpr_at_{100 * rate:g}" for rate in attacks.RATES))


def rmia(case: Case, gamma: float) -> Estimates:
    roc = _rmia(case, gamma)
    return dict(zip(ROC_PARTS, case.bootstrap(roc, *roc.sizes), strict=True))


def iam(case: Case) -> Estimates:
    assert case.original
    references = np.stack([reference.log_p for reference in case.references])
    forget = case.rows("forget")
    found = attacks.iam(case.model.log_p[forget], references[:, forget], case.original.log_p[forget])
    return {"mean": case.mean(found), "below_half": case.mean((found < 0.5).astype(np.float64))}


def swap(case: Case) -> Estimate:
    second = replace(case.model, logits=case.model.columns[SWAPPED], columns={})
    parts = [case.rows("forget"), replacements(case.rows("forget"), case.rows("validation"), case.model.labels)]
    if len(parts[0]) != len(parts[1]) or len(parts[0]) < 4:
        raise InsufficientData(f"takes two requests of equal size, at least 4; they are of {len(parts[0])} and {len(parts[1])}")
    (first_F, first_G), (second_F, second_G) = ([_signals(table, rows) for rows in parts] for table in (case.model, second))
    forget, other = attacks.swap(first_F, first_G, second_F, second_G)
    return case.bootstrap(lambda f, o: (np.abs(forget[f].mean(-1) - other[o].mean(-1)) / 2)[None], len(forget), len(other))[0]


def _signals(table: LogitsTable, rows: Ints) -> Floats:
    """[3, rows]: loss and entropy in nats, margin (p of the true class minus the largest other)."""
    log_p = table.log_softmax(rows)
    p = np.exp(log_p)
    others = p.copy()
    others[np.arange(len(rows)), table.labels[rows]] = 0.0
    true = np.exp(table.log_p[rows])
    return np.stack([table.loss[rows], -(p * log_p).sum(axis=1), true - others.max(axis=1)])


# --- averages of gaps -------------------------------------------------------------------------------------------------


def _mean_gap(case: Case, *sizes: int, fourth: Callable[..., Floats]) -> Estimate:
    """Of the absolute distances in forget, retain and test accuracy and a fourth, in points; it is handed the draws of forget and of
    samples of `sizes`."""
    apart = [_apart(case)[case.rows(split)] for split in ("forget", "retain", "test")]

    def statistic(*drawn: Ints) -> Floats:
        gaps = [part[index].mean(-1) for part, index in zip(apart, drawn, strict=False)]
        return np.asarray(np.mean(np.abs([*gaps, fourth(drawn[0], *drawn[3:])]), axis=0))[None]

    return case.bootstrap(statistic, *map(len, apart), *sizes)[0]


def avg_gap_svc(case: Case) -> Estimate:
    ours, *theirs = _non_members(case, case.model, *case.references)
    apart = ours - np.mean(theirs, axis=0)
    return _mean_gap(case, fourth=lambda forget: apart[forget].mean(-1))


def avg_gap_rmia(case: Case) -> Estimate:
    """The bank's own AUC, each model held out in turn, is taken as it is; only this model's is drawn anew."""
    bank = np.mean([rmia(one, 1.0)["auc"].value for one in replace(case, resample=False).held_out()])
    roc = _rmia(case, 1.0)
    return _mean_gap(case, roc.sizes[1], fourth=lambda forget, held_out: 100 * (roc(forget, held_out)[0] - bank))


# --- beside the references' predictions ---------------------------------------------------------------------------------


def divergence(case: Case, of: Callable[[Floats, Floats], Floats]) -> Estimates:
    """Mean over forget and over test of `of`, which is handed log p [n, C] of the references' mean prediction and of the model."""
    from scipy.special import logsumexp

    found = {}
    for split in ("forget", "test"):
        rows = case.rows(split)
        each = np.stack([reference.log_softmax(rows) for reference in case.references])
        found[split] = case.mean(of(logsumexp(each, axis=0) - np.log(len(each)), case.model.log_softmax(rows)))
    return found


def kl(reference_NC: Floats, model_NC: Floats) -> Floats:
    return np.asarray((np.exp(reference_NC) * (reference_NC - model_NC)).sum(axis=1))


def js(reference_NC: Floats, model_NC: Floats) -> Floats:
    middle = np.logaddexp(reference_NC, model_NC) - np.log(2)
    return (kl(reference_NC, middle) + kl(model_NC, middle)) / 2  # = H(middle) - (H(p) + H(q)) / 2


# --- what only the model could tell, from the table's columns -----------------------------------------------------------


def probe_excess(case: Case) -> Estimate:
    held_out, weights = case.beside_forget("test")
    right = 100.0 * case.model.columns["probe"]
    ours, theirs = right[case.rows("forget")], right[held_out]

    def statistic(forget: Ints, test: Ints) -> Floats:
        unseen = (theirs * weights)[test].sum(-1) / weights[test].sum(-1)
        return np.asarray(ours[forget].mean(-1) - unseen)[None]

    return case.bootstrap(statistic, len(ours), len(theirs))[0]


def residual(case: Case) -> Estimates:
    forget = case.rows("forget")
    ours = case.model.columns["residual"][forget].astype(np.float64)
    theirs = np.mean([reference.columns["residual"][forget] for reference in case.references], axis=0)
    if not theirs.sum(axis=0).all():
        raise InsufficientData("takes retrained models that classify some of the perturbed forget images; these classify none")

    def statistic(index: Ints) -> Floats:
        below = theirs[index].mean(-2)
        return np.moveaxis(ours[index].mean(-2) / np.maximum(below, 1e-9), -1, 0)

    return dict(zip((f"{tau:g}" for tau in TAUS), case.bootstrap(statistic, len(forget)), strict=True))


def cka(case: Case) -> Estimates:
    def alike(rows: Ints) -> Estimate:
        ours, *theirs = (table.columns["features"][rows] for table in (case.model, *case.references))
        return intervals.over_seeds([features.cka(ours, one) for one in theirs])

    return {split: alike(case.rows(split)) for split in ("forget", "test")}


# --- the cost -----------------------------------------------------------------------------------------------------------


def relearn_steps(forget_accuracies: Sequence[float] | Floats, original: float) -> int:
    """Optimizer steps of a fine-tuning on forget until its accuracy (percent, one value a step, the first before any) is within a
    point of the original's, or above. Raises InsufficientData when it never is."""
    step = next((step for step, accuracy in enumerate(forget_accuracies) if accuracy >= original - 1.0), None)
    if step is None:
        raise InsufficientData(f"takes more than {len(forget_accuracies) - 1} optimizer steps of relearning")
    return step


def relearn(case: Case) -> Estimate:
    assert case.original
    forget = case.rows("forget")
    accuracies = 100 * case.model.columns["relearn"][forget].mean(axis=0)
    return Estimate(float(relearn_steps(accuracies, float(_percent_correct(case.original)[forget].mean()))))


def clock(value: Callable[[Clock], float | None]) -> Callable[[Case], Estimate]:
    return lambda case: Estimate(float((case.clock and value(case.clock)) or 0.0))


# --- N unlearned models against N retrained ones ------------------------------------------------------------------------


def _groups(case: Case, rows: Ints) -> tuple[Floats, Floats]:
    unlearned, retrained = (np.stack([table.phi[rows] for table in group]) for group in (case.unlearned or [case.model], case.references))
    return unlearned, retrained


def klom(case: Case) -> Estimates:
    found: Estimates = {}
    for split in ("forget", "retain", "validation"):
        groups = _groups(case, case.rows(split))
        for direction, pair in (("", groups), ("reversed.", groups[::-1])):
            each = distributions.klom(*pair)
            found |= {f"{direction}{split}": case.mean(each), f"{direction}{split}.p95": Estimate(float(np.quantile(each, 0.95)))}
    return found


def epsilon(case: Case) -> Estimates:
    unlearned, retrained = _groups(case, case.rows("forget"))
    shown = distributions.largest_shown(len(unlearned), len(retrained))
    return {"mean": case.mean(distributions.epsilons(unlearned, retrained)), "largest_shown": Estimate(shown)}


def neurips(case: Case) -> Estimates:
    """The score, and the same between two halves of the retrained models: what perfect unlearning would get from so few."""
    unlearned, retrained = _groups(case, case.rows("forget"))
    right = [
        [np.mean([_percent_correct(table)[case.rows(split)] for table in group]) for split in ("retain", "test")]
        for group in (case.unlearned or [case.model], case.references)
    ]
    useful = float(np.prod(np.divide(right[0], right[1])))
    half = len(retrained) // 2
    quality = distributions.forgetting_quality(distributions.epsilons(unlearned, retrained), min(len(unlearned), len(retrained)))
    floor = distributions.forgetting_quality(distributions.epsilons(retrained[:half], retrained[half : 2 * half]), half)
    return {"": case.mean(quality * useful), "between_halves": case.mean(floor)}


def ulira(case: Case) -> Estimates:
    """Intervals are over images, of what each contributes: its own hits, and its placements among the others' scores (DeLong 1988)."""
    phi_NK, role_NK = (case.model.columns[name] for name in SHADOWS)
    pool = role_NK.any(axis=1)
    phi_KN, role_KN = phi_NK[pool].T.astype(np.float64), role_NK[pool].T
    (forgotten, of_forgotten), (unseen, of_unseen) = attacks.ulira(phi_KN, role_KN == FORGOT, role_KN == NEVER_SAW)
    number = phi_KN.shape[1]

    def contributed(by_forgotten: Floats, by_unseen: Floats) -> Floats:
        """[N], whose mean is the sum of the two means."""
        parts = ((of_forgotten, by_forgotten), (of_unseen, by_unseen))
        return np.asarray(sum(np.bincount(images, values, number) * number / len(values) for images, values in parts))

    roc = attacks.Roc(forgotten, unseen)
    auc, *powers = (float(value) for value in roc(*map(np.arange, roc.sizes)))
    below, above = _placements(forgotten, unseen), 1 - _placements(unseen, forgotten)
    told = contributed((forgotten > 0).astype(np.float64), (unseen <= 0).astype(np.float64)) / 2
    found = {"balanced_accuracy": case.mean(100 * told), "auc": case.mean(contributed(below, above) - auc)}
    return found | {part: Estimate(power) for part, power in zip(ROC_PARTS[1:], powers, strict=True)}


def _placements(scores: Floats, others: Floats) -> Floats:
    """For each score the share of the others below it, ties half."""
    ordered = np.sort(others)
    return np.asarray((np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2 / len(others))
