"""The report's findings in words: Markdown list items, derived from the accuracies by fixed rules."""

from collections.abc import Sequence

from lethe.evaluation.verdict import memory
from lethe.evaluation.verdict.accuracies import (
    COMPARED,
    KINDS,
    REFERENCES,
    ByAccuracy,
    ResultSet,
    assess,
    discriminates,
    label,
    reference_noise,
)
from lethe.evaluation.verdict.words import DIFFERENT, WORDS


def findings(results: ResultSet) -> list[str]:
    """Describe what the accuracies of one result set show.

    Returns:
        Text of Markdown list items: how much there is to forget, the methods nearest to retraining, methods by verdict, loss of accuracy.
    """
    if not results.methods:
        return [f"Not run. `{results.command}` produces these results."]
    if any(name not in results.accuracies for name in REFERENCES):
        return ["Accuracies say nothing about forgetting without an original and a retrained model to compare with."]
    if results.unfit:
        return [f"**No verdict**: {results.unfit}."]
    original, retrained = (results.accuracies[name]["forget"] for name in REFERENCES)
    models = results.target("original", "forget").models
    beside = f"Beside {models} retrained models" if models > 1 else f"On {results.sizes['forget']:,} images"
    lines = [
        f"**What there is to forget**: {original - retrained:.1f} points, from forget accuracy {original:.1f} (original) to "
        f"{retrained:.1f} (retrained). {beside}, differences up to {reference_noise(results):.1f} may be chance."
    ]
    if results.verdicts:
        return [*lines, *_verdicts(results), _nearest(results), *_losses(results)]
    if not discriminates(results):
        return [
            *lines,
            "**Cannot discriminate**: forget accuracy does not separate the original from the retrained model, so it can't judge any "
            "method.",
        ]
    lines.append(_nearest(results))
    verdicts = [verdict for verdict in (assess(results, name) for name in results.methods) if verdict]
    for kind, (heading, meaning) in KINDS.items():
        same = [verdict for verdict in verdicts if verdict.kind == kind]
        if same:
            text = f"**{heading}** (forget accuracy, distance from retrained): {', '.join(map(_describe, same))}. {meaning}"
            if kind == "over-forgets" and any(map(_damaged, same)):
                text += " If test accuracy fell as well, the whole model is damaged and the forgotten images do not stand out."
            lines.append(text)
    return lines + _losses(results)


def beyond_chance(alarm: str) -> str:
    """What the limits in an alarm are, to follow it; "" for one that is a verdict's reason and names none."""
    limits = " is below " in alarm or " is above " in alarm
    return ", outside the range in which 95 % of retrained models are by chance" if limits else ""


def _verdicts(results: ResultSet) -> list[str]:
    """One item for each word of a verdict, with the runs that got it."""
    lines = [f"**{WORDS[word][0]}**: {', '.join(runs)}. {WORDS[word][1]}" for word, runs in by_verdict(results).items()]
    unknown = [label(name) for name in results.methods if name not in results.verdicts]
    return lines + ([f"**No verdict**, from scores of an earlier version: {', '.join(unknown)}."] if unknown else [])


def by_verdict(results: ResultSet) -> dict[str, list[str]]:
    """Word of a verdict -> the runs that got it, each with the memory that it has left; in the order of WORDS."""
    named = {word: [name for name in results.methods if getattr(results.verdicts.get(name), "word", "") == word] for word in WORDS}
    return {word: [_memory(results, name) for name in names] for word, names in named.items() if names}


def _memory(results: ResultSet, name: str) -> str:
    """A run with the memory that it has left, or with what distinguishes it from retrained models."""
    verdict = results.verdicts[name]
    differ = ", ".join(part.id for part in verdict.parts if part.differs)
    if verdict.memory_left:
        low, high = verdict.memory_left.ends()
        share = f"memory left {verdict.memory_left.value:z.0f} % of the original's, 95 % interval {low:z.0f} to {high:z.0f}"
        if not memory.is_measurable(verdict.memory_left):
            share = memory.in_words(verdict.memory_left)
        return f"{label(name)} ({share}{f'; told from retrained models by {differ}' if differ and verdict.word == DIFFERENT else ''})"
    return f"{label(name)} ({differ})" if differ else label(name)


def _losses(results: ResultSet) -> list[str]:
    verdicts = [verdict for verdict in (assess(results, name) for name in results.methods) if verdict]
    losses = ", ".join(f"{label(each.name)} {-each.lost:+z.1f}" for each in sorted(verdicts, key=lambda v: -v.lost) if each.lost)
    if losses:
        known = "test" in results.accuracies["retrained"]
        baseline = "the retrained model" if known else "the original (the test accuracy of the retrained model is not known)"
        return [f"**Loss of accuracy**: {losses} points of test accuracy compared with {baseline}."]
    return []


def compare_verdicts(results: ResultSet, published: ResultSet) -> str:
    """Describe which methods get the same verdict from the accuracies measured here as from the published ones.

    Args:
        results: accuracies measured here.
        published: the published accuracies.

    Returns:
        One sentence in Markdown; "" if no verdict can be compared.
    """
    pairs = {name: (assess(results, name), assess(published, name)) for name in published.methods}
    kinds = {name: (ours.kind, theirs.kind) for name, (ours, theirs) in pairs.items() if ours and theirs}
    other = [f"{label(name)} (published: {theirs}, here: {ours})" for name, (ours, theirs) in kinds.items() if ours != theirs]
    if not kinds:
        return ""
    alike = f"{len(kinds) - len(other)} of {len(kinds)} methods are judged alike"
    same = f"**Compared with the published results**, by accuracies alone: {alike}"
    return f"{same}; different: {', '.join(other)}." if other else f"{same}."


def compare_accuracies(results: ResultSet, published: ResultSet) -> str:
    """Describe how far forget accuracies are from the published ones.

    Args:
        results: accuracies measured here, on the same images as the published ones.
        published: the published accuracies.

    Returns:
        One sentence in Markdown, in points; "" if no method is in both.
    """
    apart = {
        name: results.accuracies[name]["forget"] - row["forget"] for name, row in published.accuracies.items() if name in results.methods
    }
    worst = max(apart, key=lambda name: abs(apart[name]), default=None)
    if worst is None:
        return ""
    mean = sum(map(abs, apart.values())) / len(apart)
    return (
        f"**Difference from the published accuracies**: {mean:.1f} points of forget accuracy on average, largest for {label(worst)} "
        f"({apart[worst]:+z.1f})."
    )


def _describe(verdict: ByAccuracy) -> str:
    text = f"{label(verdict.name)} {verdict.forget:.1f} ({verdict.distance:+z.1f}"
    if verdict.kind == "over-forgets":
        if verdict.stands_out:
            text += f"; {verdict.below_test:.1f} below its own test accuracy"
        elif _damaged(verdict):
            text += "; test accuracy fell as well"
    return f"{text})"


def _damaged(verdict: ByAccuracy) -> bool:
    return not verdict.stands_out and verdict.lost > 0


def _nearest(results: ResultSet) -> str:
    far = {name: distance for name in (*results.methods, "original") if (distance := results.mean_distance(name)) is not None}
    nothing = far.pop("original")
    ordered = sorted(far, key=lambda name: far[name])
    splits = [split for split in COMPARED if split in results.distances("original")]
    each = {name: results.mean_distance_of_seeds(name) for name in ordered if name in results.distances_by_seed}
    named = [f"{label(name)} {far[name]:.1f}" + (f" ({each[name]:.1f})" if each.get(name) is not None else "") for name in ordered]
    nearer = sum(far[name] < nothing for name in ordered)
    seeds = "; of several seeds that of their mean, in brackets the mean of each one's" if results.distances_by_seed else ""
    floor = "" if results.floor is None else f"A retrained model next to the others is at {results.floor:.1f}, the floor. "
    return (
        f"**Nearest to retrained** (mean absolute distance over {_enumerate(splits)}, points{seeds}): "
        f"{', '.join(named[: min(3, nearer)]) or 'none'}. {floor}The original, which did nothing, is at {nothing:.1f}"
        + (f"; no nearer than that: {', '.join(named[nearer:])}." if named[nearer:] else ".")
    )


def _enumerate(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
