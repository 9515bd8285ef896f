"""The verdict: one calibrated decision whether a model can be distinguished from retrained ones, and in which way.

With few models images are the sample: permutation tests over images, which need one reference. With many models are: the models of the
method and the references are relabelled. Either way the probability that a truly retrained model is distinguished from the references is at
most FALSE_ALARMS, all parts together. Validation images take no part: epochs and hyper-parameters may have been selected by them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lethe.evaluation import row_blocks
from lethe.evaluation.logits_table import Floats, Ints, LogitsTable, require_same_images
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict import memory, model_test, usefulness, words
from lethe.evaluation.verdict.image_test import Strata, adjusted, difference, permutation_test, separates
from lethe.evaluation.verdict.words import Part, Verdict

# False alarms of a verdict, for a truly retrained model: 5 % with a margin. Smaller over models, whose tests find everything: all verdicts
# of a workspace share one bank
FALSE_ALARMS, FALSE_ALARMS_OVER_MODELS = 0.03, 0.02
# Shares of it with few models. Memory is what a request is about; a method that costs accuracy costs much more than chance does
SHARES = {"memory": 0.8, "accuracy.retain": 0.1, "accuracy.test": 0.1}
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
    "accuracy.retain": "the model still knows what it should",
    "accuracy.test": "the model is as useful as a retrained one",
    "distance.forget": "Hellinger distance of the predictions on forget; with many models only",
    "distance.test": "Hellinger distance of the predictions on test; with many models only",
}
SIGNED = ("memory", "memory.features")  # whose sign says remembers or over-forgets


def judge(
    models: Sequence[LogitsTable],
    references: Sequence[LogitsTable],
    original: LogitsTable | Sequence[LogitsTable] | None = None,
    at_random: bool = False,
) -> Verdict:
    """Judge a model, or the models of several seeds of a method.

    Args:
        models: logits tables of the model, or of all seeds.
        references: tables of retrained models, without these.
        original: table of the model before unlearning, for the memory left; of models from several originals all of theirs.
        at_random: whether the forget images were drawn at random from those of their classes, so that they are as hard as test images.
            With one reference more models that remember are then noticed.

    Returns:
        The verdict.

    Raises:
        UserError: the tables are of different images, labels, classes or splits.
    """
    counts = len(models), len(references)
    originals = [original] if isinstance(original, LogitsTable) else [*(original or ())]
    if not references:
        return Verdict(words.CANNOT_TELL, "there is no retrained model to compare with", advice=_TRAIN_ONE, models=len(models))
    require_same_images(*models, *references, *originals)
    first = models[0]
    same = next((one.name for one in references if any(row_blocks.equal(one.logits, model.logits) for model in models)), None)
    if same is not None:
        return Verdict(words.CANNOT_TELL, f"its predictions are those of {same}: no model is its own reference", None, (), _OTHER, *counts)
    strata = Strata.of(first.rows("forget"), first.rows("test"), first.labels)
    testable = min(strata.sizes) >= FEWEST
    left = _memory_left(models, references, originals, strata) if testable and originals else None
    many = len(references) >= RELABELLED and model_test.smallest_p(len(models), len(references)) <= FALSE_ALARMS_OVER_MODELS
    parts = _over_models(models, references, strata) if many else _over_images(models, references, strata, at_random)
    verdict = _decide(parts, left, testable, strata, bool(originals), counts)
    return verdict if many else replace(verdict, at_random=at_random)


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


_OTHER = "Compare with a model that was retrained with another seed."
_TRAIN_ONE = "A model has to be retrained without the forget images first."
_NO_ORIGINAL = "Without the logits of the original it is not known how much memory there was."


def _p(p: float) -> str:
    """A p-value in words; the smallest ones depend on the tails of an approximation."""
    return f"p {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def _because(apart: Sequence[Part], left: Estimate | None) -> str:
    sentence = f"told from retrained models by {', '.join(f'{part.id} ({_p(part.p)})' for part in apart)}" if apart else ""
    if left:
        share = memory.in_words(left)
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


def _standardized(table: LogitsTable, strata: Strata) -> Floats:
    """The margin in units of its deviation over test images of a class: how certain a model is in general does not count."""
    margin = _margin(table)[strata.rows]
    unseen = strata.centred(margin[:, None])[~strata.forget, 0]
    return np.asarray(margin / max(float(np.sqrt(np.mean(unseen**2))), 1e-6))


def _mean(tables: Sequence[LogitsTable], value: str, strata: Strata) -> Floats:
    of = _margin if value == "memory" else _probe
    return np.asarray(np.mean([of(table)[strata.rows] for table in tables], axis=0))


def _memory_left(
    models: Sequence[LogitsTable], references: Sequence[LogitsTable], originals: Sequence[LogitsTable], strata: Strata
) -> Estimate | None:
    apart = separates(_mean([*models, *references], "memory", strata), strata)  # then a deviation over test says nothing of forget
    ours, theirs, began = (
        np.mean([_margin(table)[strata.rows] if apart else _standardized(table, strata) for table in tables], axis=0)
        for tables in (models, references, originals)
    )
    values = strata.centred(np.stack([ours - theirs, began - theirs], axis=1))
    return memory.memory_left(values[:, 0], values[:, 1], strata)


# --- few models: images are the sample --------------------------------------------------------------------------------


def _over_images(models: Sequence[LogitsTable], references: Sequence[LogitsTable], strata: Strata, at_random: bool) -> tuple[Part, ...]:
    """Memory by a permutation test, both accuracies by a paired one; each p divided by its share of the false alarms (Bonferroni)."""
    parts: list[Part] = []
    if min(strata.sizes) >= FEWEST:
        names = ["memory", *(["memory.features"] if _has_probe([*models, *references]) else [])]
        columns = [_difference(models, references, name, strata, at_random) for name in names]
        sizes, p_values = permutation_test(np.stack(columns, axis=1), strata)
        parts += [_part(name, size, p / SHARES["memory"]) for name, size, p in zip(names, sizes, p_values, strict=True)]
    for split in ("retain", "test"):
        rows, name = models[0].rows(split), f"accuracy.{split}"
        if len(rows):
            size, p = usefulness.paired(*(np.stack([table.correct[rows] for table in group]) for group in (models, references)))
            parts.append(_part(name, size, p / SHARES[name]))
    return tuple(parts)


def _difference(models: Sequence[LogitsTable], references: Sequence[LogitsTable], name: str, strata: Strata, at_random: bool) -> Floats:
    """Mean over the models minus mean over the references [N], less what the mean over all of them predicts of it.

    If all models are retrained ones, nothing can be predicted: whichever images they find hard, they are interchangeable. So forget
    images that are harder than test images are no false alarm. The references alone predict more, but what they leave depends on how hard
    an image is (regression to the mean): they are taken where images were drawn at random. A model that is merely more or less certain
    than the references is not interchangeable with them, and what is left would depend on difficulty again: so margins are divided by
    their deviation within classes first, over forget and test images together, which no permutation changes. Next to the references
    alone this would change nothing: what they leave scales with the model."""
    if at_random:
        ours, theirs = _mean(models, name, strata), _mean(references, name, strata)
        return adjusted((ours - theirs)[:, None], theirs, strata)[:, 0]
    values = np.stack([_mean([table], name, strata) for table in (*models, *references)])
    if name == "memory" and not separates(values.mean(axis=0), strata):
        values = values / np.maximum(strata.centred(values.T).std(axis=0), 1e-6)[:, None]
    apart = values[: len(models)].mean(axis=0) - values[len(models) :].mean(axis=0)
    return adjusted(apart[:, None], values.mean(axis=0), strata)[:, 0]


def _part(name: str, size: float, p: float, limit: float = FALSE_ALARMS) -> Part:
    return Part(name, round(float(size), ROUND), round(min(float(p), 1.0), ROUND), bool(p <= limit + 1e-12))


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
            distances[f"distance.{split}"] = _hellinger(tables, rows)
    values = np.stack([*columns.values()], axis=1) if columns else np.zeros((len(tables), 0))
    observed, p = model_test.permutation_test(values, np.array(floors), [*distances.values()], len(models))
    return tuple(
        _part(name, size, one, FALSE_ALARMS_OVER_MODELS) for name, size, one in zip((*columns, *distances), observed, p, strict=True)
    )


def _hellinger(tables: Sequence[LogitsTable], rows: Ints) -> Floats:
    """`hellinger` of the predictions on some images, of many with many classes for some at a time: then the mean of the parts' means."""
    parts = [*row_blocks.parts(rows, tables[0].logits, len(tables))]
    means = [hellinger(np.stack([table.log_softmax(part) for table in tables])) for part in parts]
    return means[0] if len(means) == 1 else np.asarray(np.average(means, axis=0, weights=[len(part) for part in parts]))


def hellinger(log_p_MNC: Floats) -> Floats:
    """Compute the mean over images of the squared Hellinger distance between predictions, for each pair of models.

    Args:
        log_p_MNC: log probabilities of M models, N images and C classes.

    Returns:
        [M, M], 0 to 1.
    """
    root = np.exp(log_p_MNC / 2).reshape(len(log_p_MNC), -1)
    return np.asarray(np.clip(1 - root @ root.T / log_p_MNC.shape[1], 0.0, 1.0))
