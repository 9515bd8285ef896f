"""The tables of the leaderboard: one row a run (leaderboard.csv), one row a method and share (summary.csv), and the figures."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json, write_text
from lethe._util.names import as_cell
from lethe.config.loader import load
from lethe.evaluation.score import MeasureResult, Score
from lethe.models import checkpoint
from lethe.pipeline.cost import planned_share, retraining_operations
from lethe.plots import leaderboard_figures
from lethe.workspace import scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.plan import ORIGINAL
from lethe.workspace.run_names import RunId

ROW = re.compile(r"(.+)_at_(\d+)")
DIALS = ("retain_epochs", "epochs", "final_epochs")  # the argument by which a method costs more or less
ACCURACIES = ("retain", "forget", "validation", "test")
MEASURES = ("mia.svc", "avg_gap.svc", "mia.over", "probe.excess", "residual", "kl_to_reference.forget", "swap.advantage")
MEMORY = ("memory_left", "memory_left.low", "memory_left.high", "verdict")
COLUMNS = ("method", "share", "seed", *ACCURACIES, *MEASURES, "floor", "seconds", "share_of_retrain", *MEMORY)
GAPS = tuple(f"{id_}{end}" for id_ in ("avg_gap.svc", "avg_gap.of_means") for end in ("", ".low", ".high", ".floor"))
SUMMARY = ("method", "share", "seeds", *ACCURACIES, "mia.svc", *GAPS, "mia.over", "probe.excess", "residual", "swap.advantage", *MEMORY)
SUMMARY = (*SUMMARY, "seconds", "share_of_retrain")
ABOUT = """avg_gap: mean distance to a retrained model in retain, forget, test and mia.svc, in points
memory: percent left of the original's; work: floating-point operations next to those of retraining"""
Row = dict[str, Any]


def folder(workspace: Path) -> Path:
    """Where the leaderboard of a workspace is stored."""
    return workspace / "results" / "leaderboard"


def write(workspace: Path) -> list[Row]:
    """Write the tables and the figures of all rows of a workspace.

    Args:
        workspace: its folder.

    Returns:
        The rows, by share and then by gap.
    """
    layout = Layout(workspace)
    as_they_are = _without_epochs(layout)
    runs = [run for run in layout.with_scores() if (ROW.fullmatch(run.method) or run.method in as_they_are) and not run.chain]
    by_run = {run: _row(layout, run) for run in runs if not _is_mean(layout, run)}
    rows = _sorted(by_run.values())
    write_text(folder(workspace) / "leaderboard.csv", _csv(COLUMNS, rows))
    by_method = {run: [row for of, row in by_run.items() if of.method == run.method] for run in runs if run.seed is None}
    means = _sorted(_summary(layout, run, own) for run, own in by_method.items())
    write_text(folder(workspace) / "summary.csv", _csv(SUMMARY, means))
    if rows:
        nothing = scores.read(path).value("avg_gap.svc") if (path := layout.scores(ORIGINAL)).exists() else None
        leaderboard_figures.write(rows, _retrained(layout), nothing, folder(workspace))
    return rows


def _is_mean(layout: Layout, run: RunId) -> bool:
    """Whether a run's score is the mean of several seeds, which have rows of their own."""
    return run.seed is None and layout.scores(run.with_seed(int(_seed(layout, run)))).exists()


def _without_epochs(layout: Layout) -> set[str]:
    """Methods that have no number of epochs to fit into a share: their runs are rows as they are."""
    try:
        config = load(["--run.workspace", str(layout.root)], settings=settings.layer)
    except UserError:
        return set()
    without = (name for name, section in config.methods.items() if not {*DIALS} & {*type(section).model_fields})
    return {name for name in without if not replace(config, method=name).chain}


def _sorted(rows: Iterable[Row]) -> list[Row]:
    def key(row: Row) -> tuple[Any, ...]:
        return row["share"], 1e9 if row["avg_gap.svc"] is None else row["avg_gap.svc"], row["method"], row.get("seed", 0)

    return sorted(rows, key=key)


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else as_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _row(layout: Layout, run: RunId) -> Row:
    score = scores.read(layout.scores(run))
    clock, retraining = (read_json(path) if (path := layout.clock(name)).exists() else {} for name in (run, "retrained"))
    share = _share_of_retrain(layout, run, clock.get("flops"), retraining.get("flops"))
    taken = {"seconds": clock.get("seconds"), "share_of_retrain": share}
    about = _named(run, share) | {"seed": int(_seed(layout, run)), "floor": _floor(layout, score)}
    return about | _accuracies(score) | {id_: _value(score, id_) for id_ in MEASURES} | taken | _memory(score)


def _summary(layout: Layout, run: RunId, own: Sequence[Row]) -> Row:
    """The row of a method at a share, of whose runs `own` are the rows: the score of all seeds where there are several, else that of its
    one run."""
    score = scores.read(layout.scores(run))
    known = [each["share_of_retrain"] for each in own if each["share_of_retrain"] is not None]
    row = _named(run, sum(known) / len(known) if known else None) | {"seeds": len(own)} | _accuracies(score) | _memory(score)
    row |= {id_: _value(score, id_) for id_ in ("mia.svc", "mia.over", "probe.excess", "residual", "swap.advantage")}
    for id_ in ("avg_gap.svc", "avg_gap.of_means"):
        result = score.measures.get(id_) or MeasureResult(None)
        each, floor = result.estimate, result.reference
        row |= {
            id_: each and each.value,
            f"{id_}.low": each and each.low,
            f"{id_}.high": each and each.high,
            f"{id_}.floor": floor and floor.value,
        }
    if row["avg_gap.svc.floor"] is None:
        row["avg_gap.svc.floor"] = _floor(layout, score)
    for name in ("seconds", "share_of_retrain"):
        known = [each[name] for each in own if each[name] is not None]
        row[name] = sum(known) / len(known) if known else None
    return row


def _named(run: RunId, taken: float | None) -> Row:
    """Method and share of a row; the share of a method that has no number of epochs is what it took."""
    found = ROW.fullmatch(run.method)
    return {"method": found[1], "share": int(found[2]) / 100} if found else {"method": run.method, "share": round(taken or 0.0, 2)}


def _accuracies(score: Score) -> Row:
    return {split: score.accuracy[split] for split in ACCURACIES}


def _value(score: Score, id_: str) -> float | None:
    """Value of a measure; of `residual` that of the largest radius."""
    if id_ == "residual":
        id_ = max((each for each in score.measures if each.startswith("residual.")), default="residual")
    return score.value(id_)


def _memory(score: Score) -> Row:
    verdict = score.verdict
    left = verdict.memory_left if verdict else None
    ends = {"memory_left": left and left.value, "memory_left.low": left and left.low, "memory_left.high": left and left.high}
    return ends | {"verdict": verdict.word if verdict else None}


def _floor(layout: Layout, score: Score) -> float | None:
    """avg_gap.svc of a retrained model: the mean over the reference bank, each held out of it; else that of models/retrained next to the
    bank. None where neither is known."""
    retrained = scores.read(layout.scores("retrained")) if layout.scores("retrained").exists() else None
    own = score.measures.get("avg_gap.svc")
    return own.reference.value if own and own.reference else retrained.value("avg_gap.svc") if retrained else None


def _retrained(layout: Layout) -> Mapping[str, float]:
    path = layout.scores("retrained")
    return scores.read(path).accuracy if path.exists() else {}


def _seed(layout: Layout, run: RunId) -> str:
    return str(run.seed) if run.seed is not None else checkpoint.metadata(layout.weights(run)).get("seed", "0")


def _share_of_retrain(layout: Layout, run: RunId, flops: float | None, retraining: float | None) -> float | None:
    """The operations that a run took, relative to those of retraining: counted, or those of its recipe where a retrained model was given.
    Where the run's were not counted, the share that its settings give; None where the workspace has no settings of it."""
    if flops and retraining:
        return flops / retraining
    try:
        config = load(["--run.workspace", str(layout.root), "--method", run.method], settings=settings.layer)
    except UserError:
        return None
    own = replace(config, method=run.method)
    return flops / retraining_operations(own) if flops else planned_share(own)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, in percent and points, with a line that says what the columns are.

    Args:
        rows: as `write` returns them.
    """
    wide = max([14, *(len(row["method"]) + 2 for row in rows)])
    titles = f"{'retain':>8}{'forget':>8}{'test':>8}{'mia.svc':>9}{'avg_gap':>9}{'memory':>8}{'work':>7}{'seconds':>9}"
    lines = [f"{'method':<{wide}}{'share':>6}{'seed':>5}{titles}  verdict"]
    forms = {"retain": (8, ".2f"), "forget": (8, ".2f"), "test": (8, ".2f"), "mia.svc": (9, ".2f"), "avg_gap.svc": (9, ".2f")}
    forms |= {"memory_left": (8, ".0f"), "share_of_retrain": (7, ".2f"), "seconds": (9, ".0f")}
    for row in rows:
        numbers = "".join(f"{'' if row[name] is None else format(row[name], form):>{width}}" for name, (width, form) in forms.items())
        lines.append(f"{row['method']:<{wide}}{row['share']:>6.2f}{row['seed']:>5}{numbers}  {row['verdict'] or ''}".rstrip())
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    lines += [f"floor: {max(floors):.2f} points, the avg_gap of a retrained model next to the others"] if floors else []
    return "\n".join([*lines, ABOUT] if rows else lines)
