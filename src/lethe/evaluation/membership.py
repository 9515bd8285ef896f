"""Membership inference measures: can an attacker who sees the model's outputs tell forgotten images from images that the model never saw?

Each function computes one measure from an EvaluationContext; the attacks themselves are in attacks.py."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.data.shadow_splits import replacements
from lethe.evaluation import attacks, row_blocks, uncertainty
from lethe.evaluation.context import Estimates, EvaluationContext
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Floats, Ints, LogitsTable
from lethe.evaluation.registry import CHANCE, HELD_OUT, register_measure
from lethe.evaluation.roc import PARTS as ROC_PARTS
from lethe.evaluation.roc import RATES, PopulationRoc, Roc, WeightedRoc
from lethe.evaluation.uncertainty import FRACTION, PERCENT, Estimate

REFITS, LARGEST_REFIT = 20, 250  # of the SVC attack, and images of each kind that each is trained on at most
# What the parts of ulira are at chance level
CHANCE_LEVELS = {"ulira.balanced_accuracy": 50.0, "ulira.auc": 0.5} | {f"ulira.tpr_at_{100 * rate:g}": rate for rate in RATES}


@register_measure(
    id="mia.loss",
    about="accuracy in percent of a logistic regression on the loss that separates forget from an equal-sized sample of test",
    target=50,
    source="NeurIPS 2023 unlearning competition, starting kit",
    bounds=PERCENT,
)
def mia_loss(context: EvaluationContext) -> Estimate:
    """100 x images classified correctly / images tested, both summed over the test parts of 10 random splits (`attacks.by_loss`)."""
    held_out, weights = context.matched_held_out("test")
    forget, drawn = attacks.equal_sized(len(context.rows("forget")), weights)
    loss = context.model.loss
    correct, rounds = attacks.by_loss(loss[context.rows("forget")[forget]], loss[held_out[drawn]])
    asked = rounds > 0
    images = int(asked.sum())
    correct, rounds = np.append(correct[asked], [0.0, 1.0]), np.append(rounds[asked], [1.0, 1.0])

    def statistic(index: Ints) -> Floats:
        return np.asarray(100 * correct[index].sum(-1) / rounds[index].sum(-1))[None]

    return context.bootstrap(statistic, images, bounds=PERCENT, edges=True)[0]


def svc_non_members(context: EvaluationContext, *tables: LogitsTable) -> list[Floats]:
    """For each table [F]: 100 where the SVC attack classifies a forget image as a non-member, else 0.

    Two tables at a time: libsvm releases the interpreter lock while it fits.

    Args:
        context: gives the splits.
        *tables: logits tables of the same images.

    Returns:
        An array [F] for each table, in their order; cached in the table.
    """
    rows = [context.rows(split) for split in ("retain", "test", "forget")]

    def attack(table: LogitsTable) -> Floats:
        retain, test, forget = (np.exp(table.log_p[part]) for part in rows)
        return np.asarray(table.cached("svc", lambda: 100.0 * ~attacks.by_svc(retain, test, forget)))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(attack, tables))


def svc_refits(context: EvaluationContext, *tables: LogitsTable) -> Floats | None:
    """How far `mia.svc` varies with the images that the attack is trained on, in points: deviations [tables, REFITS].

    The attack is trained anew on random parts of its training images, the same for every table; a part of b of n images varies
    (n - b) / b times as much as the whole (the delete-d jackknife, Shao and Wu 1989). Small parts suffice, so this takes less time
    than the attack itself. None if there are fewer than 8 images to train on.

    Args:
        context: gives the splits.
        *tables: logits tables of the same images.

    Returns:
        float64 [tables, REFITS], or None.
    """
    rows = [context.rows(split) for split in ("retain", "test", "forget")]
    size = min(len(rows[0]), len(rows[1]))
    part = min(size // 2, LARGEST_REFIT)
    if part < 4:
        return None
    generator = np.random.default_rng(0)
    drawn = [[np.sort(generator.choice(each, part, replace=False)) for each in rows[:2]] for _ in range(REFITS)]
    asked = np.sort(generator.choice(rows[2], min(len(rows[2]), 2 * LARGEST_REFIT), replace=False))

    def deviations(table: LogitsTable) -> Floats:
        p = np.exp(table.log_p)
        shares = np.array([100.0 * np.mean(~attacks.by_svc(p[retain], p[test], p[asked])) for retain, test in drawn])
        return np.asarray((shares - shares.mean()) * np.sqrt(part / (size - part)))

    return np.stack([table.cached("svc refits", partial(deviations, table)) for table in tables])


@register_measure(
    id="mia.svc",
    about="percent of forget that an RBF SVC on p_y, trained on retain against test, classifies as non-members (MIA-efficacy); "
    "it depends on the number of images that it trains on, so values of data sets of other sizes can't be compared",
    source="arXiv:2310.12508",
    interval=uncertainty.REFITTED,
    bounds=PERCENT,
)
def mia_svc(context: EvaluationContext) -> Estimate:
    """The interval is over forget images and over the images that the attack is trained on (`svc_refits`)."""
    own, *_ = svc_non_members(context, context.model, *context.references)  # also caches the references' values, needed next
    share = context.mean(own, PERCENT)
    refits = svc_refits(context, context.model) if context.resample else None
    if refits is None:
        return share
    from scipy import stats

    reach = stats.t.ppf((1 + uncertainty.CONFIDENCE) / 2, REFITS - 1) * refits[0].std(ddof=1)
    return share.widened(float(reach), uncertainty.REFITTED)


@register_measure(
    id="mia.over",
    about="AUC of *the loss is higher on forget than on test*; above the reference's interval it shows over-forgetting",
    bounds=FRACTION,
)
def mia_over(context: EvaluationContext) -> Estimate:
    """P(loss on forget > loss on test), ties counted half; test images are weighted to the classes of forget."""
    held_out, weights = context.matched_held_out("test")
    loss = context.model.loss
    return Roc(loss[context.rows("forget")], loss[held_out], weights).estimates(context.bootstrap)["auc"]


def rmia_roc(context: EvaluationContext, gamma: float) -> PopulationRoc:
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
    ratios = attacks.ahead(context.model.log_p, np.stack([reference.log_p for reference in context.references]))
    held_out, weights = context.matched_held_out("test")
    return PopulationRoc(ratios[context.rows("forget")], ratios[held_out], ratios[population] + np.log(gamma), weights)


def rmia_auc_of_references(context: EvaluationContext, gamma: float) -> list[float]:
    """Compute the AUC of the attack on each reference, next to the others.

    Args:
        context: at least two references.
        gamma: threshold of the likelihood ratio.

    Returns:
        0 to 1, in the order of the references.

    Raises:
        InsufficientData: forget, validation or test is empty.
    """
    key = f"rmia {gamma} {[table.hash for table in context.references]}"
    auc: list[float] = context.references[0].cached(key, lambda: [rmia_roc(one, gamma).point()[0] for one in context.leave_one_out()])
    return auc


def rmia(context: EvaluationContext, gamma: float) -> Estimates:
    """Measure the offline RMIA attack, forget against test: Zarifzadeh et al., arXiv:2312.03262.

    Args:
        context: the model and at least one reference.
        gamma: threshold of the likelihood ratio.

    Returns:
        `auc`, `tpr_at_1` and `tpr_at_0.1` (true-positive rates, 0 to 1, at 1 % and 0.1 % FPR), with intervals over images and over the
        choice of the population.

    Raises:
        InsufficientData: forget, validation or test is empty.
    """
    roc = rmia_roc(context, gamma)
    forget, held_out = (np.arange(size) for size in roc.sizes[:2])

    def by_population(drawn_Z: Ints) -> Floats:
        every_F, every_T = (np.broadcast_to(images, (*drawn_Z.shape[:-1], len(images))) for images in (forget, held_out))
        return roc(every_F, every_T, drawn_Z)[1:]

    chosen = context.bootstrap(by_population, roc.sizes[2])
    rates = zip(ROC_PARTS[1:], chosen, strict=True)
    estimates = roc.estimates(context.bootstrap)
    # A resampled population has fewer distinct images, so more ties: the resamples of the AUC lie on one side of it, and so do their
    # percentiles. Mirrored at the value, they hold where the AUC of another population is
    low, high = estimates["auc"].ends()
    value = estimates["auc"].value
    if estimates["auc"].low is not None:
        estimates["auc"] = estimates["auc"].containing(2 * value - high, 2 * value - low).within(FRACTION)
    return estimates | {part: estimates[part].containing(*other.ends()) for part, other in rates if estimates[part].low is not None}


for _gamma in (1, 2):
    register_measure(
        id=f"rmia.gamma_{_gamma}",
        about=f"offline RMIA, a = 0.3, gamma = {_gamma}, population half of validation: AUC, TPR at 1 % and 0.1 % FPR, forget against test",
        target=HELD_OUT,
        min_references=8,
        source="arXiv:2312.03262",
        parts=ROC_PARTS,
        bounds=FRACTION,
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
    bounds=FRACTION,
)
def iam(context: EvaluationContext) -> Estimates:
    """Interpolated approximate measurement (arXiv:2506.06112); an image is scored by its place between original and references."""
    assert context.original
    references = np.stack([reference.log_p for reference in context.references])
    forget = context.rows("forget")

    def of(rows: Ints) -> Floats:
        assert context.original
        return attacks.iam(context.model.log_p[rows], references[:, rows], context.original.log_p[rows])

    completeness = of(forget)
    below = (completeness < 0.5).astype(np.float64)
    mean, share = context.mean(completeness, FRACTION, edges=True), context.mean(below, FRACTION)
    if context.resample and len(forget) > 1:  # an image also moves the others, as the spread of the signal is taken over all images
        mean = mean.containing(*uncertainty.jackknife_ends(lambda kept: float(of(forget[kept]).mean()), len(forget)))
    return {"mean": mean, "below_half": share}


@register_measure(
    id="ulira",
    about="U-LiRA likelihood-ratio attack: balanced accuracy in percent (chance: 50), AUC (chance: 0.5), TPR at 1 % and 0.1 % FPR",
    target=CHANCE,
    min_references=64,
    needs=("shadows",),
    source="arXiv:2403.01218",
    interval=uncertainty.MODELS,
    parts=("balanced_accuracy", *ROC_PARTS),
    bounds={"balanced_accuracy": PERCENT} | dict.fromkeys(ROC_PARTS, FRACTION),
)
def ulira(context: EvaluationContext) -> Estimates:
    """Intervals are over images and over shadow models: both are resampled, and a pair of them counts as often as its model was drawn times
    as often as its image was (Owen 2007, the pigeonhole bootstrap, which is never too narrow for two crossed samples)."""
    phi_NK, role_NK = (context.model.columns[name] for name in SHADOWS)
    pool = role_NK.any(axis=1)
    phi_KN, role_KN = phi_NK[pool].T.astype(np.float64), role_NK[pool].T
    forgotten, unseen = attacks.ulira(phi_KN, role_KN == FORGOT, role_KN == NEVER_SAW)
    models, images = phi_KN.shape
    roc = WeightedRoc(forgotten.ratios, unseen.ratios)

    def statistic(drawn_models: Ints, drawn_images: Ints) -> Floats:
        by_model, by_image = np.bincount(drawn_models, minlength=models), np.bincount(drawn_images, minlength=images)
        weights = [(by_model[pairs.models] * by_image[pairs.images]).astype(np.float64) for pairs in (forgotten, unseen)]
        right = [forgotten.ratios > 0, unseen.ratios <= 0]
        hits = [float((hit * weight).sum() / weight.sum()) for hit, weight in zip(right, weights, strict=True)]
        return np.array([50 * sum(hits), *roc(*weights)])

    def several(*drawn: Ints) -> Floats:
        if drawn[0].ndim == 1:
            return statistic(*drawn)
        return np.stack([statistic(*one) for one in zip(*drawn, strict=True)], axis=-1)

    estimates = context.bootstrap(several, models, images)
    return {
        part: estimate if estimate.low is None else replace(estimate, interval=uncertainty.MODELS)
        for part, estimate in zip(("balanced_accuracy", *ROC_PARTS), estimates, strict=True)
    }


@register_measure(
    id="swap.advantage",
    about="advantage of the best threshold on loss, entropy or margin at telling which of two requests a model has unlearned",
    target=0,
    needs=("swapped",),
    source="arXiv:2404.11577",
    bounds=FRACTION,
)
def swap(context: EvaluationContext) -> Estimate:
    """|mean over forget - mean over the other request of (A(model) - A(second model))| / 2; A is 1 at or above the threshold, else 0."""
    second = replace(context.model, logits=context.model.columns[SWAPPED], columns={})
    parts = [context.rows("forget"), replacements(context.rows("forget"), context.rows("validation"), context.model.labels)]
    if len(parts[0]) != len(parts[1]) or len(parts[0]) < 4:
        raise InsufficientData(f"needs two requests of equal size, at least 4 images; they have {len(parts[0])} and {len(parts[1])}")
    (first_F, first_G), (second_F, second_G) = ([_signals(table, rows) for rows in parts] for table in (context.model, second))
    forget, other = attacks.swap(first_F, first_G, second_F, second_G)
    images = len(forget), len(other)
    forget, other = (np.append(each, (-1.0, 1.0)) for each in (forget, other))

    def gap(index_F: Ints, index_G: Ints) -> Floats:
        return np.asarray(forget[index_F].mean(-1) - other[index_G].mean(-1))[None]

    return context.of_gaps(gap, lambda each: each[0] / 2, 0.5, *images, bounds=FRACTION)


def _signals(table: LogitsTable, rows: Ints) -> Floats:
    """[3, rows]: loss and entropy in nats, margin (p of the true class minus the largest other)."""

    def of_each(rows: Ints) -> Floats:
        log_p = table.log_softmax(rows)
        p = np.exp(log_p)
        others = p.copy()
        others[np.arange(len(rows)), table.labels[rows]] = 0.0
        true = np.exp(table.log_p[rows])
        return np.stack([table.loss[rows], -(p * log_p).sum(axis=1), true - others.max(axis=1)])

    return row_blocks.over(rows, table.logits, of_each)
