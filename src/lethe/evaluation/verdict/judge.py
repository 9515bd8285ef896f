"""The verdict: one calibrated decision whether a model can be distinguished from retrained ones, and in which way.

With few models images are the sample: permutation tests over images, which need one reference. With many models are: the models of the
method and the references are relabelled. Either way the probability that a truly retrained model is distinguished from the references is at
most FALSE_ALARMS, all parts together. Validation images take no part: epochs and hyper-parameters may have been selected by them."""

from collections.abc import Mapping, Sequence

import numpy as np

from lethe.evaluation import uncertainty
from lethe.evaluation.logits_table import Floats, LogitsTable, require_same_images
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict import memory, model_test, usefulness, words
from lethe.evaluation.verdict.image_test import Strata, adjusted, difference, permutation_test
from lethe.evaluation.verdict.words import Part, Verdict

FALSE_ALARMS = 1 / 32  # of a verdict, for a truly retrained model: below 5 % with a margin, and reached by 31 references
MARGIN = 10.0  # limit of phi: beyond, a model is certain, and how certain depends on its scale
FEWEST = 2  # forget and test images of a class that both have; a test needs a spread
RELABELLED = 8  # fewest references for a test over models
ROUND = 6  # digits

# The comparisons that take part, and why. All other measures are reported, not counted: they are functions of the same logits or features,
# so they would count the same difference again; their distribution among retrained models takes at least 64 models (klom, epsilon); or they
# do not depend on the method (epsilon.largest_shown, neurips.between_halves)
PARTS: Mapping[str, str] = {
    "memory": "log odds of the true class on forget against test images of the same class: what membership attacks use",
    "memory.features": "a newly fitted linear head, forget against test: memory that only the last layer hides",
    "spread": "how far predictions are from the references', forget against test: some images remembered, others over-forgotten",
    "accuracy.retain": "the model still knows what it should",
    "accuracy.test": "the model is as useful as a retrained one",
    "distance.forget": "Hellinger distance of the predictions on forget; with many models only",
    "distance.test": "Hellinger distance of the predictions on test; with many models only",
}
SIGNED = ("memory", "memory.features")  # whose sign says remembers or over-forgets


def judge(models: Sequence[LogitsTable], references: Sequence[LogitsTable], original: LogitsTable | None = None) -> Verdict:
    """Judge a model, or the models of several seeds of a method.

    Args:
        models: logits tables of the model, or of all seeds.
        references: tables of retrained models, without these.
        original: table of the model before unlearning, for the memory left.

    Returns:
        The verdict.

    Raises:
        UserError: the tables are of different images, labels, classes or splits.
    """
    counts = len(models), len(references)
    if not references:
        return Verdict(words.CANNOT_TELL, "there is no retrained model to compare with", advice=_TRAIN_ONE, models=len(models))
    require_same_images(*models, *references, *([original] if original else []))
    first = models[0]
    strata = Strata.of(first.rows("forget"), first.rows("test"), first.labels)
    testable = min(strata.sizes) >= FEWEST
    left = _memory_left(models, references, original, strata) if testable and original else None
    many = len(references) >= RELABELLED and model_test.smallest_p(len(models), len(references)) <= FALSE_ALARMS
    parts = _over_models(models, references, strata) if many else _over_images(models, references, strata)
    return _decide(parts, left, testable, strata, original is not None, counts)


def _decide(
    parts: tuple[Part, ...], left: Estimate | None, testable: bool, strata: Strata, original: bool, counts: tuple[int, int]
) -> Verdict:
    apart = [part for part in parts if part.differs]
    of_memory = max((part for part in apart if part.id in SIGNED), key=lambda part: abs(part.size), default=None)
    if of_memory:
        word = words.REMEMBERS if of_memory.size > 0 else words.OVER_FORGETS
    elif apart:
        word = words.DIFFERENT
    elif testable and left and memory.within_bound(left):
        word = words.AS_RETRAINED
    else:
        word = words.CANNOT_TELL
    advice = ""
    if word == words.CANNOT_TELL and not testable:
        advice = f"It takes at least {FEWEST} forget images of classes that test holds, too."
    elif word == words.CANNOT_TELL:
        advice = memory.what_it_takes(left, strata.sizes[0], *counts) if original else _NO_ORIGINAL
    return Verdict(word, _because(apart, left), left and _rounded(left), parts, advice, *counts)


_TRAIN_ONE = "A model has to be retrained without the forget images first."
_NO_ORIGINAL = "Without the logits of the original it is not known how much memory there was."


def _because(apart: Sequence[Part], left: Estimate | None) -> str:
    sentence = f"distinguished by {', '.join(f'{part.id} (p {part.p:.2g})' for part in apart)}" if apart else ""
    if left:
        low, high = left.ends()
        share = f"memory left {left.value:.0f} % of the original's (95 % interval {low:.0f} to {high:.0f})"
        return f"{share}; {sentence}" if sentence else share
    return sentence


def _rounded(estimate: Estimate) -> Estimate:
    low, high = estimate.ends()
    return Estimate(round(estimate.value, ROUND), round(low, ROUND), round(high, ROUND), estimate.interval)


# --- the values -------------------------------------------------------------------------------------------------------


def _margin(table: LogitsTable) -> Floats:
    return np.clip(table.phi, -MARGIN, MARGIN)


def _has_probe(tables: Sequence[LogitsTable]) -> bool:
    return all("probe" in table.columns for table in tables)


def _probe(table: LogitsTable) -> Floats:
    return np.asarray(table.columns["probe"], np.float64)


def _mean(tables: Sequence[LogitsTable], value: str, strata: Strata) -> Floats:
    of = _margin if value == "memory" else _probe
    return np.asarray(np.mean([of(table)[strata.rows] for table in tables], axis=0))


def _memory_left(
    models: Sequence[LogitsTable], references: Sequence[LogitsTable], original: LogitsTable, strata: Strata
) -> Estimate | None:
    both = np.stack([_mean(models, "memory", strata), _mean([original], "memory", strata)], axis=1)
    values = adjusted(both, _mean(references, "memory", strata), strata)
    return memory.memory_left(values[:, 0], values[:, 1], strata)


# --- few models: images are the sample --------------------------------------------------------------------------------


def _over_images(models: Sequence[LogitsTable], references: Sequence[LogitsTable], strata: Strata) -> tuple[Part, ...]:
    """Parts with p adjusted by Holm's method: the maximum over the memory parts, and both accuracies."""
    sizes: dict[str, float] = {}
    p_values: dict[str, float] = {}
    if min(strata.sizes) >= FEWEST:
        names = ["memory", *(["memory.features"] if _has_probe([*models, *references]) else [])]
        columns = [adjusted(_mean(models, name, strata)[:, None], _mean(references, name, strata), strata)[:, 0] for name in names]
        columns.append(strata.centred(np.abs(columns[0])[:, None])[:, 0])
        observed, adjusted_p = permutation_test(
            np.stack(columns, axis=1), strata, one_sided=[name not in SIGNED for name in (*names, "spread")]
        )
        sizes |= dict(zip((*names, "spread"), map(float, observed), strict=True))
        p_values |= dict(zip((*names, "spread"), map(float, adjusted_p), strict=True))
    for split in ("retain", "test"):
        rows = models[0].rows(split)
        if len(rows):
            groups = [np.stack([table.correct[rows] for table in group]) for group in (models, references)]
            sizes[f"accuracy.{split}"], p_values[f"accuracy.{split}"] = usefulness.paired(*groups)
    families = {"memory": min((p_values[name] for name in p_values if not name.startswith("accuracy.")), default=1.0)}
    families |= {name: p for name, p in p_values.items() if name.startswith("accuracy.")}
    holm = uncertainty.holm(families)
    factor = holm["memory"] / families["memory"] if families["memory"] < 1 else 1.0
    return tuple(
        _part(name, size, holm[name] if name in holm and name != "memory" else min(1.0, p_values[name] * factor))
        for name, size in sizes.items()
    )


def _part(name: str, size: float, p: float) -> Part:
    return Part(name, round(size, ROUND), round(p, ROUND), p <= FALSE_ALARMS + 1e-12)


# --- many models: they are the sample -----------------------------------------------------------------------------------


def _over_models(models: Sequence[LogitsTable], references: Sequence[LogitsTable], strata: Strata) -> tuple[Part, ...]:
    tables = [*models, *references]
    columns: dict[str, Floats] = {}
    floors: list[float] = []
    if min(strata.sizes) >= FEWEST:
        for name in ("memory", *(["memory.features"] if _has_probe(tables) else [])):
            values = np.stack([_mean([table], name, strata) for table in tables], axis=1)
            apart, _ = difference(adjusted(values, values.mean(axis=1), strata), strata)
            columns[name] = apart
            floors.append(1e-9)
    for split in ("retain", "test"):
        rows = tables[0].rows(split)
        if len(rows):
            columns[f"accuracy.{split}"] = np.array([table.correct[rows].mean() for table in tables])
            share = (columns[f"accuracy.{split}"].mean() * len(rows) + 1) / (len(rows) + 2)
            floors.append(float(np.sqrt(share * (1 - share) / len(rows))) / 2)
    distances = {}
    for split in ("forget", "test"):
        rows = tables[0].rows(split)
        if len(rows):
            distances[f"distance.{split}"] = hellinger(np.stack([table.log_softmax(rows) for table in tables]))
    observed, p = model_test.permutation_test(np.stack([*columns.values()], axis=1), np.array(floors), [*distances.values()], len(models))
    return tuple(_part(name, float(size), float(one)) for name, size, one in zip((*columns, *distances), observed, p, strict=True))


def hellinger(log_p_MNC: Floats) -> Floats:
    """Compute the mean over images of the squared Hellinger distance between predictions, for each pair of models.

    Args:
        log_p_MNC: log probabilities of M models, N images and C classes.

    Returns:
        [M, M], 0 to 1.
    """
    root = np.exp(log_p_MNC / 2).reshape(len(log_p_MNC), -1)
    return np.asarray(np.clip(1 - root @ root.T / log_p_MNC.shape[1], 0.0, 1.0))
