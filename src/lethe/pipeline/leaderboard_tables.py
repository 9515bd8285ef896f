"""The tables of the leaderboard: one row a run (leaderboard.csv), one row a method and share (summary.csv), and the figures."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json, short, write_text
from lethe._util.log import log
from lethe._util.names import as_cell
from lethe.config.loader import Config, load
from lethe.data import splits
from lethe.evaluation.score import MeasureResult, Score
from lethe.models import checkpoint
from lethe.pipeline.cost import planned_share, retraining_work
from lethe.plots import leaderboard_figures
from lethe.workspace import scores, settings, timing
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

_said: set[str] = set()  # lines about rows that are left out: the tables are written after every row


def folder(workspace: Path) -> Path:
    """Where the leaderboard of a workspace is stored."""
    return workspace / "results" / "leaderboard"


def rows_of(workspace: Path) -> dict[RunId, tuple[RunId, ...]]:
    """Find what has rows in a workspace.

    Args:
        workspace: its folder.

    Returns:
        A method at a share -> the runs that its score is of: itself, or one for each seed.
    """
    board = _Board(Layout(workspace), quiet=True)
    return {run: tuple(each) for run, score in board.measured.items() if (each := board.runs(run, score))}


def write(workspace: Path, *, quiet: bool = False) -> list[Row]:
    """Write the tables and the figures of all rows of a workspace.

    Args:
        workspace: its folder.
        quiet: do not say which runs are left out.

    Returns:
        The rows, by share and then by gap.
    """
    board = _Board(Layout(workspace), quiet)
    by_method = dict[RunId, list[Row]]()
    for run, score in board.measured.items():
        if each := board.runs(run, score):
            by_method[run] = [_row(board, of, own, seed) for of, (own, seed) in each.items()]
    rows = _sorted(row for each in by_method.values() for row in each)
    write_text(folder(workspace) / "leaderboard.csv", _csv(COLUMNS, rows))
    means = _sorted(_summary(board, run, board.measured[run], own) for run, own in by_method.items())
    write_text(folder(workspace) / "summary.csv", _csv(SUMMARY, means))
    if rows:
        nothing = scores.read(path).value("avg_gap.svc") if (path := board.layout.scores(ORIGINAL)).exists() else None
        leaderboard_figures.write(rows, board.retrained.accuracy if board.retrained else {}, nothing, folder(workspace))
    return rows


@dataclass(frozen=True)
class _Board:
    """What all rows of a workspace share, each read or computed once.

    Attributes:
        layout: the workspace.
        quiet: do not say which runs are left out.
    """

    layout: Layout
    quiet: bool = False

    @cached_property
    def config(self) -> Config | None:
        """The workspace's settings; None where this version can't read them."""
        with suppress(UserError):
            return load(["--run.workspace", str(self.layout.root)], settings=settings.layer)
        return None

    @cached_property
    def retrained(self) -> Score | None:
        """Score of models/retrained."""
        path = self.layout.scores("retrained")
        return scores.read(path) if path.exists() else None

    @cached_property
    def retraining(self) -> float | None:
        """The operations of retraining; None where this version can't read the settings, or the code of the network is gone."""
        with suppress(UserError):
            return retraining_work(self.config) if self.config else None
        return None

    @cached_property
    def measured(self) -> dict[RunId, Score]:
        """The scores of a method at a share: of its one run, or the mean of its seeds."""
        runs = (run for run in self.layout.with_scores() if run.seed is None and not run.chain)
        return {
            run: scores.read(self.layout.scores(run)) for run in runs if ROW.fullmatch(run.method) or run.method in self._without_epochs
        }

    @cached_property
    def _without_epochs(self) -> set[str]:
        """Methods that have no number of epochs to fit into a share: their runs are rows as they are."""
        if self.config is None:
            return set()
        without = [name for name, section in self.config.methods.items() if not {*DIALS} & {*type(section).model_fields}]
        return {name for name in without if not replace(self.config, method=name).chain}

    def runs(self, run: RunId, score: Score) -> dict[RunId, tuple[Score, int]]:
        """The runs that a score is of, with their own scores and seeds: those of other settings may be next to them. {}, with a line that
        says so, where they can't be told any more."""
        if why := self._made_otherwise(run, score):
            self._left_out(run, why, len(score.seeds))
            return {}
        if not score.seeds:
            seed = self._seed(run)
            if seed is None:
                self._left_out(run, f"{self.layout.weights(run)}, which has its seed, does not exist")
            return {} if seed is None else {run: (score, seed)}
        of = score.tables.get("seeds", {})  # which earlier versions did not write
        each, other = dict[RunId, tuple[Score, int]](), list[str]()
        for seed in score.seeds:
            one, path = run.with_seed(seed), self.layout.scores(run.with_seed(seed))
            own = scores.read(path) if path.exists() else None
            if own is None or (str(seed) in of and of[str(seed)].get("model") != own.tables.get("model")):
                other.append(str(one))
            else:
                each[one] = own, seed
        if other:
            why = f"its score is the mean of {len(score.seeds)} runs, and no longer of {' and '.join(other)}"
            self._left_out(run, why, len(score.seeds))
        return {} if other else each

    @cached_property
    def _present(self) -> dict[str, tuple[str, str]]:
        """What all rows have in common: key of a run's metadata -> short hash, and in words what a run of another one was made from."""
        layout, present = self.layout, dict[str, tuple[str, str]]()
        if (about := layout.about("train")).exists():
            present["data"] = short(read_json(about)["hash"]), f"from other images than {layout.data} holds"
        if splits.are_there(layout.splits):
            present["split"] = short(splits.stored_split_hash(layout.splits)), f"for other splits than {layout.splits} holds"
        if (original := layout.weights(ORIGINAL)).exists():
            present["original"] = short(checkpoint.model_hash(original)), f"from another original than {original}"
        return present

    def _made_otherwise(self, run: RunId, score: Score) -> str:
        """Why the numbers of a run are not comparable with those of the others; "" where they are, and where its files do not say."""
        path = next((path for path in (self.layout.weights(run), self.layout.logits(run)) if path.exists()), None)
        made = {"original": score.tables.get("original")} | (checkpoint.metadata(path) if path else {})
        differs = (words for key, (now, words) in self._present.items() if (was := made.get(key)) and short(was) != now)
        return next((f"it was made {words}" for words in differs), "")

    def _seed(self, run: RunId) -> int | None:
        """Seed of a run by itself; None where neither its weights nor its logits table says it."""
        weights, logits = self.layout.weights(run), self.layout.logits(run)
        if weights.exists():
            return int(checkpoint.metadata(weights).get("seed", "0"))
        found = checkpoint.metadata(logits).get("seed") if logits.exists() else None
        return None if found is None else int(found)

    def _left_out(self, run: RunId, why: str, seeds: int = 1) -> None:
        more = {"run.seeds": str(seeds)} if seeds > 1 else {}
        again = f"; {settings.repair_command('unlearn', self.config, method=run.method, **more)} makes it again" if self.config else ""
        line = f"{run}: no row: {why}{again}"
        if not self.quiet and line not in _said:
            _said.add(line)
            log(line)

    def share(self, method: str, flops: float | None) -> float | None:
        """The operations that a run took, relative to those of retraining. Where the run's were not counted, the share that its settings
        give; None where the workspace has no settings of it."""
        if flops and self.retraining:
            return flops / self.retraining
        with suppress(UserError):
            return planned_share(replace(self.config, method=method)) if self.config and method in self.config.methods else None
        return None

    def floor(self, score: Score) -> float | None:
        """avg_gap.svc of a retrained model: the mean over the reference bank, each held out of it; else that of models/retrained next to
        the bank. None where neither is known."""
        own = score.measures.get("avg_gap.svc")
        return own.reference.value if own and own.reference else self.retrained.value("avg_gap.svc") if self.retrained else None


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


def _row(board: _Board, run: RunId, score: Score, seed: int) -> Row:
    clock = timing.recorded(board.layout, run, score.tables.get("model", ""))
    share = board.share(run.method, clock.get("flops"))
    taken = {"seconds": clock.get("seconds"), "share_of_retrain": share}
    about = _named(run, share) | {"seed": seed, "floor": board.floor(score)}
    return about | _accuracies(score) | {id_: _value(score, id_) for id_ in MEASURES} | taken | _memory(score)


def _summary(board: _Board, run: RunId, score: Score, own: Sequence[Row]) -> Row:
    """The row of a method at a share, of whose runs `own` are the rows: the score of all seeds where there are several, else that of its
    one run."""
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
        row["avg_gap.svc.floor"] = board.floor(score)
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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, in percent and points, with a line that says what the columns are.

    Args:
        rows: as `write` returns them.
    """
    wide = max([14, *(len(row["method"]) + 2 for row in rows)])
    titles = f"{'retain':>8}{'forget':>8}{'test':>8}{'mia.svc':>9}{'avg_gap':>9}{'memory':>8}{'work':>7}{'seconds':>9}"
    lines = [f"{'method':<{wide}}{'share':>6}{'seed':>5}{titles}  verdict"]
    forms = {"retain": (8, ".2f"), "forget": (8, ".2f"), "test": (8, ".2f"), "mia.svc": (9, ".2f"), "avg_gap.svc": (9, ".2f")}
    forms |= {"memory_left": (8, "z.0f"), "share_of_retrain": (7, ".2f"), "seconds": (9, ".0f")}
    for row in rows:
        numbers = "".join(f"{'' if row[name] is None else format(row[name], form):>{width}}" for name, (width, form) in forms.items())
        lines.append(f"{row['method']:<{wide}}{row['share']:>6.2f}{row['seed']:>5}{numbers}  {row['verdict'] or ''}".rstrip())
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    lines += [f"floor: {max(floors):.2f} points, the avg_gap of a retrained model next to the others"] if floors else []
    return "\n".join([*lines, ABOUT] if rows else lines)
