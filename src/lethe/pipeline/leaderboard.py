"""The leaderboard: methods at stated shares of the cost of retraining, one row for each method, share and seed.

Every row is a run of a variant, `<method>_at_<percent>`, in the workspace; its files are those of any other run. A finished row is kept, so
the command can be stopped and repeated, and rows can be added one by one. The table is computed from the score files of all rows."""

import csv
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json, write_text
from lethe._util.log import log
from lethe.config.loader import Config, load
from lethe.config.method_schema import method_section
from lethe.evaluation.score import Score
from lethe.models import checkpoint
from lethe.pipeline.cost import planned_share
from lethe.pipeline.runner import metadata
from lethe.pipeline.unlearn import unlearn
from lethe.plots import leaderboard_figures
from lethe.recipes.registry import registered_names
from lethe.workspace import scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.plan import ORIGINAL, plan
from lethe.workspace.prepare import prepare
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId

SHARES = (0.03, 0.05, 0.1, 0.2, 0.3)
DIALS = ("retain_epochs", "epochs", "final_epochs")  # the argument by which a method costs more or less
ROW = re.compile(r"(\w+)_at_(\d+)")
MEASURES = ("mia.svc", "avg_gap.svc", "mia.over", "probe.excess", "kl_to_reference.forget")
COLUMNS = ("method", "share", "seed", "retain", "forget", "validation", "test", *MEASURES, "floor", "seconds", "share_of_retrain")


@dataclass(frozen=True)
class Entry:
    """A method at a share of the cost of retraining."""

    method: str
    share: float

    @property
    def name(self) -> str:
        """Name of its runs."""
        return f"{self.method}_at_{round(100 * self.share)}"


def leaderboard(words: list[str], names: list[str], shares: list[str]) -> None:
    """Run the rows that are missing, then write leaderboard.csv and its figures; print the table.

    Args:
        words: the keys of the command line.
        names: methods; empty or all: every single-run method.
        shares: shares of the cost of retraining, as typed; empty: SHARES.

    Raises:
        UserError: a share or a method is not what is accepted, or a key is wrong.
        RunFailed: a run diverged, or another process is running it.
    """
    wanted = [_share(text) for text in shares] or list(SHARES)
    known = registered_names(chains=False)
    for name in names:
        if name != "all" and name not in known:
            raise UserError(f"method is {name}; leaderboard takes {', '.join(known)}, several of these, or all")
    for entry in (Entry(name, share) for name in (known if not names or "all" in names else names) for share in wanted):
        config = at_share(words, entry)
        if config is None:
            log(f"{entry.name}: one epoch costs more; no row")
        elif not is_finished(config):
            log(f"{entry.name}: {planned_share(config):.3f} of retraining")
            unlearn(config, show=False)
            write(config)
    config = load(words, settings=settings.layer)
    rows = write(config)
    print(table(rows))
    log(f"written: {folder(config) / 'leaderboard.csv'}")


def at_share(words: Sequence[str], entry: Entry) -> Config | None:
    """The configuration of an entry: as many epochs of the method as fit into the share.

    Args:
        words: the keys of the command line; of the method those of `methods.<method>` count.
        entry: the method and the share.

    Returns:
        None if the method's shortest run costs more than the share.
    """
    dial = next(word for word in DIALS if word in method_section(entry.method).model_fields)

    def config(value: float) -> Config:
        own = [part for word, text in _typed(words, entry.method) for part in (f"--methods.{entry.name}.{word}", text)]
        like = [f"--methods.{entry.name}.like", entry.method, "--method", entry.name]
        return load([*words, *like, *own, f"--methods.{entry.name}.{dial}", f"{value:g}"], settings=settings.layer)

    if dial == "retain_epochs":
        return config(round(10 * entry.share / planned_share(config(10)), 3))
    one, two = planned_share(config(1)), planned_share(config(2))
    if one > 1.05 * entry.share:
        return None
    return config(1 + int((1.05 * entry.share - one) / (two - one)) if two > one else 1)


def _typed(words: Sequence[str], method: str) -> list[tuple[str, str]]:
    """Arguments of a method on a command line."""
    start = f"--methods.{method}."
    pairs = itertools.pairwise(words)
    return [(word.removeprefix(start), text) for word, text in pairs if word.startswith(start) and "=" not in word]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1 or round(100 * share) < 1:
        raise UserError(f"share is {text}; it takes shares of the cost of retraining, from 0.01 to 1, as 0.1,0.2")
    return share


def is_finished(config: Config) -> bool:
    """Whether all runs of the configuration exist with their scores, and were made by these settings."""
    layout = Layout(config.workspace)
    runs = plan(config)
    paths = [layout.weights(planned.run) for planned in runs]
    if not all(path.exists() and layout.scores(planned.run.all_seeds).exists() for path, planned in zip(paths, runs, strict=True)):
        return False
    prepared, start = prepare(config), checkpoint.model_hash(layout.weights(ORIGINAL))
    return all(matches(metadata(prepared, planned, start), checkpoint.metadata(path)) for path, planned in zip(paths, runs, strict=True))


def folder(config: Config) -> Path:
    """Where the leaderboard of a workspace is stored."""
    return config.workspace / "results" / "leaderboard"


def write(config: Config) -> list[dict[str, Any]]:
    """Write the table and the figures of all rows of a workspace.

    Args:
        config: the configuration, for its workspace.

    Returns:
        The rows, by share and then by gap.
    """
    layout = Layout(config.workspace)
    rows = [row for run in layout.with_scores() if (row := _row(layout, run))]
    rows.sort(key=lambda row: (row["share"], row["avg_gap.svc"] if row["avg_gap.svc"] is not None else 1e9, row["method"], row["seed"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    write_text(folder(config) / "leaderboard.csv", text.getvalue())
    if rows:
        leaderboard_figures.write(rows, folder(config))
    return rows


def _row(layout: Layout, run: RunId) -> dict[str, Any] | None:
    """The row of a run; None if it is not one of the leaderboard, or the mean of several seeds."""
    found = ROW.fullmatch(run.method)
    if not found or run.chain or (run.seed is None and layout.scores(run.with_seed(int(_seed(layout, run)))).exists()):
        return None
    score = scores.read(layout.scores(run))
    measured: dict[str, Any] = {split: score.accuracy[split] for split in ("retain", "forget", "validation", "test")}
    for id_ in MEASURES:
        result = score.measures.get(id_)
        measured[id_] = result.estimate.value if result and result.estimate else None
    clock, retraining = (read_json(path) if (path := layout.clock(name)).exists() else {} for name in (run, "retrained"))
    about: dict[str, Any] = {"method": found[1], "share": int(found[2]) / 100, "seed": int(_seed(layout, run))}
    about |= {"floor": _floor(layout, score), "seconds": clock.get("seconds")}
    counted = clock["flops"] / retraining["flops"] if clock.get("flops") and retraining.get("flops") else None
    return {**about, **measured, "share_of_retrain": counted or _planned_share(layout, run)}


def _floor(layout: Layout, score: Score) -> float | None:
    """avg_gap.svc of a retrained model: the mean over the reference bank, each held out of it; else that of models/retrained next to the
    bank. None where neither is known."""
    retrained = scores.read(layout.scores("retrained")) if layout.scores("retrained").exists() else None
    own = score.measures.get("avg_gap.svc")
    return own.reference.value if own and own.reference else retrained.value("avg_gap.svc") if retrained else None


def _seed(layout: Layout, run: RunId) -> str:
    return str(run.seed) if run.seed is not None else checkpoint.metadata(layout.weights(run)).get("seed", "0")


def _planned_share(layout: Layout, run: RunId) -> float | None:
    """The share that the run's own settings give; None where the workspace has no settings of it."""
    name = run.method
    try:
        config = load(["--run.workspace", str(layout.root), "--method", name], settings=settings.layer)
    except UserError:
        return None
    return planned_share(replace(config, method=name))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, in percent and points.

    Args:
        rows: as `write` returns them.
    """
    lines = [f"{'method':<14}{'share':>6}{'seed':>5}{'retain':>8}{'forget':>8}{'test':>8}{'mia.svc':>9}{'gap':>7}{'seconds':>9}"]
    for row in rows:
        numbers = "".join(f"{row[name]:>8.2f}" for name in ("retain", "forget", "test"))
        gap = "" if row["avg_gap.svc"] is None else f"{row['avg_gap.svc']:.2f}"
        attack = "" if row["mia.svc"] is None else f"{row['mia.svc']:.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(f"{row['method']:<14}{row['share']:>6.2f}{row['seed']:>5}{numbers}{attack:>9}{gap:>7}{seconds:>9}")
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    lines += [f"floor: {max(floors):.2f} points, the gap of a retrained model next to the others"] if floors else []
    return "\n".join(lines)
