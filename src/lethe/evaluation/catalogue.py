"""The catalogue of measures, and how all of them are computed for one model.

Built-in measures register themselves when their module is imported: measures, membership, across_models. A measure whose
requirements are not met gives a sentence that says what is missing instead of a number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lethe._util.errors import InsufficientData
from lethe.evaluation import across_models, measures, membership, registry, uncertainty
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.registry import HALVES, NEEDS, Measure
from lethe.evaluation.uncertainty import Estimate

BUILT_IN = (measures, membership, across_models)

# Order in score files, the report, the card and docs/measures.md; measures that are not listed follow
ORDER = (
    *(
        "accuracy",
        "accuracy_of",
        "distance",
        "mia.loss",
        "mia.svc",
        "mia.over",
        "avg_gap.svc",
        "avg_gap.of_means",
        "avg_gap.rmia",
        "tow",
    ),
    *("kl_to_reference", "js_to_reference", "rmia.gamma_1", "rmia.gamma_2", "probe.excess", "residual", "cka", "iam", "relearn"),
    *("seconds", "flops", "share_of_retrain", "peak_memory", "klom", "epsilon", "neurips", "ulira", "swap.advantage"),
)


# Measures with a fixed target that retrained models themselves miss: what they score is the floor. Of a mean over models it is what the
# means of as many retrained models score
FLOORED, FLOORED_MEANS = ("avg_gap.svc", "avg_gap.rmia", "tow"), ("avg_gap.of_means",)


# Measures that a model can miss on both sides of their fixed target, which a retrained model meets
TWO_SIDED = ("distance", "residual")


def target_of(id_: str, retrained: Estimate | None) -> Estimate | None:
    """What a measure is held against, in the report and on the card.

    Args:
        id_: of the measure and its part.
        retrained: what retrained models score.

    Returns:
        What they score; where that is not known, a target that is known without one; None for all other measures.
    """
    if retrained or id_ in membership.CHANCE_LEVELS:
        return retrained or Estimate(membership.CHANCE_LEVELS[id_])
    fixed = [each.target for each in registry.registered() if each.id in TWO_SIDED and id_.split(".")[0] == each.id]
    return Estimate(float(fixed[0])) if fixed and isinstance(fixed[0], int | float) else None


def all_measures() -> tuple[Measure, ...]:
    """Every registered measure, those of other packages last."""
    rank = {id_: number for number, id_ in enumerate(ORDER)}
    return tuple(sorted(registry.registered(), key=lambda each: rank.get(each.id, len(rank))))


def measure_model(context: EvaluationContext, only: Iterable[Measure] | None = None) -> dict[str, Estimate | str]:
    """Compute the measures of one model.

    Args:
        context: the model and what it is compared with.
        only: the measures to compute; all by default.

    Returns:
        Id (`<measure>` or `<measure>.<part>`) -> estimate, or a sentence that says what is missing.
    """
    results: dict[str, Estimate | str] = {}
    for each in all_measures() if only is None else only:
        result = each(context)
        results |= {each.id: result} if isinstance(result, str) else {each.part_id(part): value for part, value in result.items()}
    return results


def measure_references(context: EvaluationContext) -> dict[str, Estimate]:
    """Compute what retrained models themselves score, for measures whose target is not a fixed number.

    With one reference: its value with its interval over images, for measures that need no reference. With several: the mean over
    references, each held out of the bank in turn, with Student's t interval. Measures of several models are computed between two
    halves of the bank; a half has half as many models, so this overstates what chance alone gives for all of them.

    Returns:
        Id -> estimate; empty without references. The result is cached on the first reference, as it is the same for every method.
    """
    if not context.references:
        return {}
    compared = (*context.references, *([context.original] if context.original else []))
    known = [each.id for each in all_measures()]
    key = f"{[table.hash for table in compared]} {sorted(context.model.columns)} {context.resample} {known}"
    results: dict[str, Estimate] = context.references[0].cached(key, lambda: _leave_one_out(context) | _between_halves(context))
    models = len(context.unlearned)
    floors: dict[str, Estimate] = context.references[0].cached(f"{key} {models}", lambda: _floors_of_means(context, models))
    return results | floors


def _floors_of_means(context: EvaluationContext, models: int) -> dict[str, Estimate]:
    """What the mean of `models` references scores next to the others: the mean over disjoint groups of them, at least two."""
    tables = context.references
    groups = [tables[start : start + models] for start in range(0, len(tables) - models + 1, models)] if models > 1 else []
    if len(groups) < 2:
        return {}
    results: dict[str, Estimate] = {}
    for each in (one for one in all_measures() if one.id in FLOORED_MEANS):
        found = [
            each.compute(EvaluationContext(group[0], [one for one in tables if one not in group], context.original, group, resample=False))
            for group in groups
        ]
        values = [one[""].value for one in found if not isinstance(one, str)]
        if len(values) == len(groups):
            results[each.id] = uncertainty.over_seeds(values, each.bounds_of(""))
    return results


def _leave_one_out(context: EvaluationContext) -> dict[str, Estimate]:
    results: dict[str, Estimate] = {}
    held_out = context.leave_one_out()
    for each in all_measures():
        floored = each.id in FLOORED and len(held_out) > 2
        if not (isinstance(each.target, str) or floored) or each.missing(context) or (each.min_references and len(held_out) == 1):
            continue
        if any(need not in NEEDS or not NEEDS[need][1](one) for one in held_out for need in each.needs):  # only the model has it
            continue
        computed = _rmia_gaps(context, held_out) if each.id == "avg_gap.rmia" else map(each.compute, held_out)
        values = [result for result in computed if not isinstance(result, str)]
        if len(values) < len(held_out):  # a mean over those that have a value would be biased (relearn: over the quick ones)
            continue
        for part, first in values[0].items() if values else ():
            mean = uncertainty.over_seeds([result[part].value for result in values], each.bounds_of(part))
            if len(values) > 1 and mean.low is None:  # all equal: nothing is known of their spread, so that of the images it is
                one = each.compute(replace(held_out[0], resample=True))
                mean = mean if isinstance(one, str) else replace(one[part], models=len(values))
            results[each.part_id(part)] = first if len(values) == 1 else mean
    return results


def _rmia_gaps(context: EvaluationContext, held_out: Sequence[EvaluationContext]) -> list[Mapping[str, Estimate]]:
    """`avg_gap.rmia` of each reference next to the others. An attack on one of the others is next to all references, the one held out
    included: without it, a bank of N models would take N (N - 1) attacks in place of N. Empty where images are missing."""
    try:
        auc = np.array(membership.rmia_auc_of_references(context, 1.0))
    except InsufficientData:
        return []
    fourth = 100 * np.abs(auc - (auc.sum() - auc) / (len(auc) - 1))
    gaps = [{split: abs(each.value) for split, each in measures.distance(one).items()} for one in held_out]
    return [
        {"": Estimate((gap["forget"] + gap.get("retain", 0.0) + gap["test"] + float(last)) / 4)}
        for gap, last in zip(gaps, fourth, strict=True)
    ]


def _between_halves(context: EvaluationContext) -> dict[str, Estimate]:
    half = len(context.references) // 2
    asked = [each for each in all_measures() if each.target == HALVES and len(context.references) >= each.min_references]
    if not asked:
        return {}
    halves = EvaluationContext(context.references[0], context.references[half:], context.original, context.references[:half])
    results: dict[str, Estimate] = {}
    for each in asked:
        result = each.compute(halves)
        results |= {} if isinstance(result, str) else {each.part_id(part): value for part, value in result.items()}
    return results


def over_seeds(models: Sequence[Mapping[str, Estimate | str]]) -> dict[str, Estimate | str]:
    """Aggregate the measures of several models of one method, one per seed: mean with Student's t interval.

    A measure that one of them lacks is missing from the aggregate, with the first such reason. Where all seeds have the same value, their
    spread is unknown, and the interval is that of one of them over images."""
    bounds = {each.part_id(part): each.bounds_of(part) for each in all_measures() for part in each.parts or ("",)}
    results: dict[str, Estimate | str] = {}
    for id_, first in models[0].items():
        values = [each[id_] for each in models]
        estimates = [value for value in values if isinstance(value, Estimate)]
        if len(estimates) < len(values):
            results[id_] = next((v for v in values if isinstance(v, str)), first)
            continue
        mean = uncertainty.over_seeds([each.value for each in estimates], bounds.get(id_, uncertainty.UNBOUNDED))
        results[id_] = replace(estimates[0], models=mean.models) if mean.low is None else mean
    return results
