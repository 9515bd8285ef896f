"""Result tables for the terminal: accuracies with their distances to the retrained model, and attacks by models on other requests."""

from collections.abc import Mapping, Sequence

from lethe.data.splits import SPLITS
from lethe.evaluation import seed_aggregation
from lethe.evaluation.membership import CHANCE_LEVELS
from lethe.evaluation.replication import Replication
from lethe.evaluation.score import MeasureResult, Score

LOST = "It gets fewer retain images right than a retrained model does. Try a lower lr, larger batches, or more epochs."


def accuracy_table(runs: Sequence[tuple[str, Score]], warning: str = "") -> str:
    """Accuracies side by side, with the distance to the retrained model in brackets; means for several seeds.

    Args:
        runs: name and score of each run, one line each.
        warning: a line to add below: why the retrained model is no reference (`scores.unfit_reference`).

    Returns:
        Several lines, without a final newline; accuracies in percent, distances and the gap in points.
    """
    reference = dict(runs).get("retrained")
    several = {name: [*score.seeds] for name, score in runs if score.seeds}
    width = 26 if several else 18
    lines = [f"{'percent':<22}" + "".join(f"{name:>{width}}" for name in SPLITS) + f"{'gap':>9}"]
    for name, score in runs:
        distance = score.distances(reference) if reference and name != "retrained" else {}
        cells = [_cell(score, split, distance, name in several).rjust(width) for split in SPLITS]
        lines.append(f"{name:<22}" + "".join(cells) + f"{score.gap:9.2f}")
    if reference:
        compared = "in brackets: minus retrained, in points; perfect unlearning is 0 everywhere. gap: retain minus forget"
        lines.append(warning or compared)
    lines += [
        f"{name}: mean over {len(each)} seeds ({seed_aggregation.seed_range(each)}) ± half the 95 % interval (Student's t over seeds); "
        f"{seed_aggregation.ONE_ORIGINAL}"
        for name, each in several.items()
    ]
    for name, score in runs:
        if score.judged and name not in ("original", "retrained"):
            lines.append(f"{name}: {score.judged.head.lower()}{score.judged.because and f'; {score.judged.because}'}")
            lines += [f"  {score.judged.advice}"] if score.judged.advice else []
            lost = any(part.id == "accuracy.retain" and part.differs and part.size < 0 for part in score.judged.parts)
            lines += [f"  {LOST}"] if lost else []
        elif not score.judged and (alarm := score.over_forgetting):
            lines.append(f"{name} over-forgets: {alarm}")
    return "\n".join(lines)


def replication_lines(name: str, found: Replication) -> str:
    """What a method's runs from several originals show: means, intervals and both variances of the accuracies, and the verdict.

    Args:
        name: of the method.
        found: its runs from all originals.

    Returns:
        Several lines, without a final newline. An accuracy without an estimate has no line.
    """
    lines = [f"{name}, {found.size}: mean ± half the 95 % interval (Student's t over originals): both kinds of runs are in it"]
    for split in SPLITS:
        result, spread = found.measures.get(f"accuracy.{split}"), found.spreads.get(f"accuracy.{split}")
        if not result or not result.estimate or not spread:
            continue
        low, high = result.estimate.ends()
        half = max(high - result.estimate.value, result.estimate.value - low)
        unlearn = "not separable" if spread.unlearn is None else f"{spread.unlearn:.3f}"
        width = f" ± {half:.2f}" if result.estimate.interval else ""
        variances = f"variance between originals {spread.train:.3f}, between seeds from one {unlearn}"
        lines.append(f"  {split:<11}{result.estimate.value:7.2f}{width}; {variances}")
    if found.judged:
        lines.append(f"  {found.judged.head.lower()}{found.judged.because and f'; {found.judged.because}'}")
    return "\n".join(lines)


def _cell(score: Score, split: str, distance: Mapping[str, float], several: bool) -> str:
    value = score.accuracy.get(split)
    if value is None:
        return ""
    result = score.measures.get(f"accuracy.{split}")
    half = seed_aggregation.half_width(result.estimate) if result and several else None
    spread = f" ± {half:.2f}" if half is not None else ""
    return f"{value:.2f}{spread}" + (f" ({distance[f'{split}.distance']:+z.2f})" if f"{split}.distance" in distance else "")


def attack_table(runs: Sequence[tuple[str, Score]]) -> str:
    """The results of the two attacks by models unlearned on other requests (U-LiRA and SWAP), or what they need."""
    lines = []
    for name, score in runs:
        cells = []
        for id_ in ("ulira.auc", "swap.advantage"):
            result = score.measures.get(id_) or score.measures.get(id_.partition(".")[0]) or MeasureResult(None, "not computed")
            estimate = result.estimate
            interval = f" ({estimate.low:.3f} to {estimate.high:.3f})" if estimate and estimate.low is not None else ""
            cells.append(f"{id_} {estimate.value:.3f}{interval}" if estimate else f"{id_}: {result.missing}")
        lines.append(f"{name:<22}{'; '.join(cells)}")
    return "\n".join([*lines, f"at chance level: ulira.auc {CHANCE_LEVELS['ulira.auc']:g}, swap.advantage 0; in brackets: 95 % interval"])
