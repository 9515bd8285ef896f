"""Is it forgotten? Every measure, in one list: MEASURES, below. To add one is to add a line there.

A measure whose tier is not met gives no number but a sentence that says what is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lethe._util.errors import InsufficientData
from lethe.data.splits import SPLITS
from lethe.evaluation import measures as measuring
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.context import Case, Estimates
from lethe.evaluation.logits_table import SHADOWS, SWAPPED
from lethe.evaluation.uncertainty import Estimate

TIERS = {0: 0, 1: 1, 2: 8, 3: 64}  # tier -> the fewest retrained models, and unlearned ones where a measure is about several
LARGEST_SHARE = 0.2  # of the retraining time: the NeurIPS 2023 competition's limit

# aims that are another's value
REFERENCE, HELD_OUT, BETWEEN = "the reference's", "the held-out retrained model's", "that between two retrained models"
HALVES = "that between two halves of the bank"
CHANCE = "what chance gives"
BY_CHANCE = {"ulira.balanced_accuracy": 50.0, "ulira.auc": 0.5}  # of parts with an interval: a rate without one can't be told from chance


@dataclass(frozen=True)
class Measure:
    """One line of the list. `of` gives the number, or numbers by part; the id of a part is `<id>.<part>`.

    `aim`: a number, or whose value; `tier`: how many retrained models it takes (TIERS), and unlearned ones where `unlearned` is among
    `needs`; of `shadows` so many, and no retrained ones; `needs`: what else a case must have (NEEDS); `parts`: all that there may be;
    `interval`: what its interval is over, if any."""

    id: str
    about: str
    aim: float | str
    of: Callable[[Case], Estimate | Estimates]
    tier: int = 0
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    interval: str = intervals.EXAMPLES
    source: str = ""

    def missing(self, case: Case) -> str:
        """What this measure takes and the case has not; "" when it has all."""
        fewest = TIERS[self.tier]
        there, many = len(case.references), "models" if fewest > 1 else "model"
        if "unlearned" in self.needs:
            number = len(case.unlearned) or 1
            if min(there, number) < fewest:
                return f"takes at least {fewest} retrained and {fewest} unlearned {many}; there are {there} and {number}"
        elif "shadows" in self.needs:
            number = case.model.columns[SHADOWS[0]].shape[1] if NEEDS["shadows"][1](case) else 0
            if number < fewest:
                return f"takes at least {fewest} models unlearned on other requests (evaluate.shadows); there are {number}"
        elif there < fewest:
            return f"takes at least {fewest} retrained {many}; there {'is' if there == 1 else 'are'} {there}"
        wanted = [NEEDS[need][0] for need in self.needs if need in NEEDS and not NEEDS[need][1](case)]
        return f"takes {' and '.join(wanted)}; there is none" if wanted else ""

    def __call__(self, case: Case) -> Estimates | str:
        return self.missing(case) or self.numbers(case)

    def numbers(self, case: Case) -> Estimates | str:
        """By part, of a case that has all that it takes; a sentence where that is too few images."""
        try:
            found = self.of(case)
        except InsufficientData as error:
            return str(error)
        return found if isinstance(found, dict) else {"": found}


def _column(name: str) -> Callable[[Case], bool]:
    return lambda case: all(name in table.columns for table in (case.model, *case.references))


def _own_column(name: str) -> Callable[[Case], bool]:
    return lambda case: name in case.model.columns


# need -> what it is in words, whether a case has it
NEEDS: dict[str, tuple[str, Callable[[Case], bool]]] = {
    "original": ("the original's logits table", lambda case: case.original is not None),
    "swapped": ("a second original and the model that forgot other images from it (evaluate.swap)", _own_column(SWAPPED)),
    "shadows": ("models unlearned on other requests (evaluate.shadows)", _own_column(SHADOWS[0])),
    "clock": ("the wall clock of the unlearning", lambda case: case.clock is not None),
    "retrain_clock": ("the wall clock of retraining", lambda case: case.clock is not None and case.clock.share_of_retrain is not None),
    "memory": ("a device that says its peak memory", lambda case: case.clock is not None and case.clock.peak_bytes is not None),
    "probe": ("tables with the column probe, of models that end in a linear layer", _column("probe")),
    "residual": ("tables with the column residual", _column("residual")),
    "features": ("tables with the column features (evaluate.features)", _column("features")),
    "relearn": ("tables with the column relearn (evaluate.relearn)", _column("relearn")),
}


def of_machine(measure: Measure) -> bool:
    """Whether it depends on the machine, and so stands on the run's row alone and in no score file: equal runs are equal bytes."""
    return bool({"clock", "retrain_clock", "memory"} & {*measure.needs})


def tier(references: int, unlearned: int | None = None) -> int:
    """The highest that so many retrained models meet; and so many unlearned ones, where measures are about several (T3)."""
    met = max(tier for tier, fewest in TIERS.items() if references >= fewest)
    return min(met, 2) if met == 3 and unlearned is not None and unlearned < TIERS[3] else met


def of_several() -> list[Measure]:
    """Measures of N models of a method, not of one."""
    return [each for each in MEASURES if {"unlearned", "shadows"} & {*each.needs}]


def measure(case: Case, only: Iterable[Measure] | None = None) -> dict[str, Estimate | str]:
    """Every measure of a model: id -> its estimate, or what it lacks."""
    found: dict[str, Estimate | str] = {}
    for each in MEASURES if only is None else only:
        got = each(case)
        found |= {each.id: got} if isinstance(got, str) else {_id(each, part): value for part, value in got.items()}
    return found


def _id(measure: Measure, part: str) -> str:
    return f"{measure.id}.{part}" if part else measure.id


def of_references(case: Case) -> dict[str, Estimate]:
    """What retrained models themselves score where the aim is theirs: of one its bootstrap interval, of several Student's t over them,
    each held out of the bank in turn. Measures that take a reference have no such value where there is but one. What is about several
    models is asked of two halves of the bank: they are half as many, so what chance alone gives is more than for all."""
    if not case.references:
        return {}
    beside = (*case.references, *([case.original] if case.original else []))
    known, which = case.references[0].known, f"{[table.hash for table in beside]} {sorted(case.model.columns)} {case.resample}"
    if which not in known:  # asked again for every method and seed
        known[which] = _of_references(case) | _of_halves(case)
    found: dict[str, Estimate] = known[which]
    return found


def _of_halves(case: Case) -> dict[str, Estimate]:
    half = len(case.references) // 2
    if len(case.references) < TIERS[3]:
        return {}
    halves = Case(case.references[0], case.references[half:], case.original, case.references[:half])
    found: dict[str, Estimate] = {}
    for each in MEASURES:
        got = each.numbers(halves) if each.aim == HALVES else ""
        found |= {} if isinstance(got, str) else {_id(each, part): value for part, value in got.items()}
    return found


def _of_references(case: Case) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    alone = case.held_out()
    for each in MEASURES:
        if not isinstance(each.aim, str) or each.missing(case) or (each.tier and len(alone) == 1):
            continue
        if any(need not in NEEDS or not NEEDS[need][1](one) for one in alone for need in each.needs):  # what the model alone has
            continue
        parts = [got for got in map(each.numbers, alone) if not isinstance(got, str)]
        if len(parts) < len(alone):  # of those alone that have a number (relearn: the quick ones) a mean would lie
            continue
        for part, value in parts[0].items() if parts else ():
            values = [got[part].value for got in parts]
            found[_id(each, part)] = value if len(values) == 1 else intervals.over_seeds(values)
    return found


def over_seeds(models: Sequence[Mapping[str, Estimate | str]]) -> dict[str, Estimate | str]:
    """Measures of several models of one method, one a seed, as means with Student's t intervals; what one lacks, all lack."""
    found: dict[str, Estimate | str] = {}
    for id_, first in models[0].items():
        values = [each[id_] for each in models]
        numbers = [value.value for value in values if isinstance(value, Estimate)]
        found[id_] = (
            intervals.over_seeds(numbers) if len(numbers) == len(values) else next((v for v in values if isinstance(v, str)), first)
        )
    return found


MEASURES: tuple[Measure, ...] = (
    Measure("accuracy", "percent correct, by split", REFERENCE, measuring.accuracy, parts=SPLITS),
    Measure(
        "accuracy_of",
        "whole-class requests: validation and test accuracy in percent, of the classes that retain still holds and of the others",
        REFERENCE,
        measuring.accuracy_by_class,
        parts=tuple(f"{classes}.{split}" for classes in ("retained_classes", "forgotten_classes") for split in ("validation", "test")),
    ),
    Measure("distance", "accuracy minus the references' mean, in points, signed", 0, measuring.distance, tier=1, parts=SPLITS),
    Measure(
        "mia.loss",
        "percent told rightly by logistic regression on the loss: forget against an equal-sized draw from test",
        50,
        measuring.mia_loss,
        source="NeurIPS 2023 unlearning competition, starting kit",
    ),
    Measure(
        "mia.svc",
        "percent of forget that an RBF SVC on p_y, trained on retain against test, calls non-members (MIA-efficacy)",
        REFERENCE,
        measuring.mia_svc,
        source="arXiv:2310.12508",
    ),
    Measure(
        "mia.over",
        "AUC of *the loss is higher on forget than on test*; above the reference's interval: over-forgetting",
        REFERENCE,
        measuring.mia_over,
    ),
    Measure(
        "avg_gap.svc",
        "mean of the absolute distances in forget, retain and test accuracy and in `mia.svc`, in points (SalUn's average gap)",
        0,
        measuring.avg_gap_svc,
        tier=1,
        source="arXiv:2310.12508",
    ),
    Measure(
        "avg_gap.rmia",
        "the same with the AUC of `rmia.gamma_1` in percent in place of `mia.svc` (AMUN's average gap)",
        0,
        measuring.avg_gap_rmia,
        tier=2,
        source="arXiv:2503.00917",
    ),
    Measure("tow", "product over retain, forget and test of 1 - |distance| / 100", 1, measuring.tow, tier=1, source="arXiv:2406.01257"),
    Measure(
        "kl_to_reference",
        "mean KL divergence of the model's prediction from the references' mean prediction, on forget and on test, in nats",
        BETWEEN,
        partial(measuring.divergence, of=measuring.kl),
        tier=1,
        parts=("forget", "test"),
    ),
    Measure(
        "js_to_reference",
        "the same with the Jensen-Shannon divergence, H((p + q) / 2) - (H(p) + H(q)) / 2",
        BETWEEN,
        partial(measuring.divergence, of=measuring.js),
        tier=1,
        parts=("forget", "test"),
    ),
    *(
        Measure(
            f"rmia.gamma_{gamma}",
            f"offline RMIA, a = 0.3, gamma = {gamma}, population half of validation: AUC, TPR at 1 % and 0.1 % FPR, forget against test",
            HELD_OUT,
            partial(measuring.rmia, gamma=float(gamma)),
            tier=2,
            source="arXiv:2312.03262",
            parts=measuring.ROC_PARTS,
        )
        for gamma in (1, 2)
    ),
    Measure(
        "probe.excess",
        "percent correct of a fresh linear head on the last layer's input, on forget minus on test, in points",
        REFERENCE,
        measuring.probe_excess,
        needs=("probe",),
        source="arXiv:2604.08271",
    ),
    Measure(
        "residual",
        "share of perturbed forget images (radius tau x sqrt(pixels) in L2) given their label, divided by the references'; by tau",
        1,
        measuring.residual,
        tier=1,
        needs=("residual",),
        source="arXiv:2601.22359",
        parts=tuple(f"{tau:g}" for tau in measuring.TAUS),
    ),
    Measure(
        "cka",
        "mean debiased linear CKA of the features on forget and on test to each reference's",
        BETWEEN,
        measuring.cka,
        tier=2,
        needs=("features",),
        interval=intervals.SEEDS,
        source="arXiv:2010.15327",
        parts=("forget", "test"),
    ),
    Measure(
        "iam",
        "how completely each forget image is unlearned, 0 to 1, between the original's signal and the references': mean, share below 0.5",
        HELD_OUT,
        measuring.iam,
        tier=1,
        needs=("original",),
        source="arXiv:2506.06112",
        parts=("mean", "below_half"),
    ),
    Measure(
        "relearn",
        "optimizer steps of fine-tuning on forget until its accuracy is within a point of the original's",
        REFERENCE,
        measuring.relearn,
        needs=("relearn", "original"),
        interval="",
    ),
    Measure(
        "seconds",
        "wall clock of the unlearning alone",
        "small",
        measuring.clock(lambda clock: clock.seconds),
        needs=("clock",),
        interval="",
    ),
    Measure(
        "share_of_retrain",
        f"the same divided by the retraining's, same machine, same precision; over {LARGEST_SHARE} is flagged",
        "small",
        measuring.clock(lambda clock: clock.share_of_retrain),
        needs=("retrain_clock",),
        interval="",
        source="arXiv:2406.09073",
    ),
    Measure(
        "peak_memory",
        "most bytes that tensors took on the device while unlearning",
        "small",
        measuring.clock(lambda clock: clock.peak_bytes),
        needs=("memory",),
        interval="",
    ),
    Measure(
        "klom",
        "KL(unlearned || retrained) between histograms of phi, by image: mean and 95th percentile; `reversed`: the other direction",
        HALVES,
        measuring.klom,
        tier=3,
        needs=("unlearned",),
        source="arXiv:2410.23232",
        parts=tuple(
            f"{way}{split}{of}" for way in ("", "reversed.") for split in ("forget", "retain", "validation") for of in ("", ".p95")
        ),
    ),
    Measure(
        "epsilon",
        "the largest epsilon that thresholds on phi show, mean over forget (at most 50); and the largest that so many models can show",
        HALVES,
        measuring.epsilon,
        tier=3,
        needs=("unlearned",),
        source="arXiv:2406.09073",
        parts=("mean", "largest_shown"),
    ),
    Measure(
        "neurips",
        "mean forgetting quality x the shares of retain and test accuracy that are left; beside it between two halves of the bank",
        HALVES,
        measuring.neurips,
        tier=3,
        needs=("unlearned",),
        source="arXiv:2406.09073",
        parts=("", "between_halves"),
    ),
    Measure(
        "ulira",
        "U-LiRA: percent told rightly by likelihood ratio (balanced accuracy; by chance 50), AUC (0.5), TPR at 1 % and 0.1 % FPR",
        CHANCE,
        measuring.ulira,
        tier=3,
        needs=("shadows",),
        source="arXiv:2403.01218",
        parts=("balanced_accuracy", *measuring.ROC_PARTS),
    ),
    Measure(
        "swap.advantage",
        "advantage of the best threshold on loss, entropy or margin at telling which of two requests a model forgot",
        0,
        measuring.swap,
        needs=("swapped",),
        source="arXiv:2404.11577",
    ),
)
