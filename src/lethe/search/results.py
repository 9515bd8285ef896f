"""Results of a search: front, winners, selection bias, as tables and files. Needs neither model nor database."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lethe._util.files import atomic_write, write_json, write_text
from lethe._util.names import as_cell
from lethe.config.loader import Config
from lethe.evaluation.uncertainty import over_seeds
from lethe.search import figures
from lethe.search.objectives import OBJECTIVES, Measurements, Sizes, expected_gap, is_ruined
from lethe.search.pareto import Point, front, hypervolume
from lethe.search.spaces import argument_values

SHARE = "share"  # what is recorded on a trial: its planned cost, relative to retraining


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: Its place in the search, from 0; a trial that was killed and tried again keeps it.
        state: "complete", "pruned" or "fail".
        values: Both objectives of a complete trial.
        arguments: The method's arguments it ran with.
        attributes: What was recorded on it: `measured`, `curve`, `ran`, ...
        reason: Why it was pruned or failed.
    """

    number: int
    state: str
    values: Point | None
    arguments: Mapping[str, Any]
    attributes: Mapping[str, Any]
    reason: str

    @property
    def point(self) -> Point:
        """Both objectives of a complete trial."""
        assert self.values
        return self.values


@dataclass(frozen=True)
class SearchResults:
    """What can be computed from the finished trials of a search.

    Attributes:
        config: The search's configuration.
        searched: Names of the arguments that were searched.
        original: Measurements of the original model.
        retrained: Measurements of the retrained model; empty if there is none.
        finished: The trials that count, in the order in which they ended.
        fresh: Records of winners run again with other seeds, by (trial, seed).
        images: Number of images by split, as far as trials see them.
    """

    config: Config
    searched: Sequence[str]
    original: Measurements
    retrained: Measurements
    finished: Sequence[Trial]
    fresh: Mapping[tuple[int, int], Mapping[str, Any]]
    images: Sizes

    @cached_property
    def complete(self) -> list[Trial]:
        """The complete trials, by number."""
        return sorted((trial for trial in self.finished if trial.state == "complete"), key=lambda trial: trial.number)

    def front(self) -> list[Trial]:
        """The complete trials that no other dominates, lowest `unlearning` first."""
        return [self.complete[n] for n in front([trial.point for trial in self.complete])]

    # ---- winners and selection bias

    def objectives(self) -> list[str]:
        """Names of the objectives that trials can be scored by."""
        return scorable_objectives(self.config.search.objective, self.retrained)

    def point(self, trial: Trial, objective: str) -> Point | None:
        """Score a complete trial by an objective.

        Args:
            trial: The trial.
            objective: A key of OBJECTIVES.

        Returns:
            (unlearning, utility); None if the trial did not measure what the objective needs.
        """
        if objective == self.config.search.objective:
            return trial.point
        measured = trial.attributes["measured"]
        available = all(f"{split}.accuracy" in measured for split in OBJECTIVES[objective].splits)
        return OBJECTIVES[objective].point(measured, self.retrained) if available else None

    def unseen(self, trial: Trial, objective: str) -> bool:
        """Test whether the model of a complete trial can't be told from one that never saw the forget images (`Objective.unseen`) and is
        not ruined (`is_ruined`).

        Args:
            trial: A complete trial.
            objective: A name in `OBJECTIVES`.

        Returns:
            True if what the objective's `within` says is true of the model, and it keeps what retraining can keep of validation.
        """
        measured = trial.attributes["measured"]
        passed = OBJECTIVES[objective].unseen(measured, self.retrained, self.images)
        return passed and not is_ruined(measured, self.original, self.images)

    def keeps_retain(self, trial: Trial, objective: str) -> bool:
        """Test whether a complete trial's model knows retain as well as a retrained model may be expected to.

        Args:
            trial: A complete trial.
            objective: The objective to test by.

        Returns:
            True if it does, or can be told from unseen, where `Objective.rank` does not ask.
        """
        measured = trial.attributes["measured"]
        rank = OBJECTIVES[objective].rank(measured, self.retrained, self.images, self.original)
        return not (self.unseen(trial, objective) and rank[2])

    def winner(self, objective: str | None = None) -> Trial | None:
        """Find the best trial among those that can't be told from a model which never saw the forget images.

        The order is that of `Objective.rank`. So the numbers of a retrained model can win; those of the original can't where its memory
        can be measured (`undecidable`), and those of a model that knows nothing any more can't either.

        Args:
            objective: The objective to score by; None: the search's own.

        Returns:
            The winner; None without a complete trial.
        """
        objective = objective or self.config.search.objective
        scored = [(trial, point) for trial in self.complete if (point := self.point(trial, objective))]

        def rank(pair: tuple[Trial, Point]) -> tuple[float, ...]:
            trial, _ = pair
            return (*OBJECTIVES[objective].rank(trial.attributes["measured"], self.retrained, self.images, self.original), trial.number)

        return min(scored, key=rank)[0] if scored else None

    def undecidable(self, objective: str) -> str:
        """Explain that an objective can't tell forgetting on these images, where not even the original fails it; else ""."""
        measured = self.original
        if not OBJECTIVES[objective].unseen(measured, self.retrained, self.images):
            return ""
        return (
            f"by {objective}, the original itself can't be told from a model that never saw the forget images "
            f"({OBJECTIVES[objective].within}): its winner is the trial with {OBJECTIVES[objective].best}, and may have forgotten nothing; "
            "more forget images would tell"
        )

    def winners(self) -> dict[str, Trial]:
        """The winner by each objective that has one."""
        by_objective = {objective: self.winner(objective) for objective in self.objectives()}
        return {objective: trial for objective, trial in by_objective.items() if trial}

    def fresh_seeds(self) -> list[int]:
        """The seeds with which winners are run again; the search used none of them."""
        return [self.config.run.seed + n for n in range(1, self.config.search.fresh_seeds + 1)]

    def chosen(self) -> dict[str, dict[str, Any]]:
        """By objective: the winner, its score in the search and with fresh seeds, and the difference with its interval."""
        table: dict[str, dict[str, Any]] = {}
        for objective, trial in self.winners().items():
            point = self.point(trial, objective)
            assert point
            row = {"trial": trial.number, "unlearning": point[0], "utility": point[1], "unseen": self.unseen(trial, objective)}
            row["keeps_retain"] = self.keeps_retain(trial, objective)
            reruns = [self.fresh.get((trial.number, seed), {}).get("measured") for seed in self.fresh_seeds()]
            points = [OBJECTIVES[objective].point(measured, self.retrained) for measured in reruns if measured]
            if points:
                for n, key in enumerate(("unlearning", "utility")):
                    fresh = over_seeds([each[n] for each in points])
                    low, high = fresh.ends()
                    row |= {f"fresh.{key}": fresh.value, f"fresh.{key}.low": low, f"fresh.{key}.high": high}
                    row |= {f"bias.{key}": point[n] - fresh.value, f"bias.{key}.low": point[n] - high, f"bias.{key}.high": point[n] - low}
                row["fresh.seeds"] = len(points)
            table[objective] = row
        return table

    # ---- numbers and tables

    def reference_point(self) -> Point:
        """The hypervolume's reference point."""
        objective = OBJECTIVES[self.config.search.objective]
        unlearning = objective.point(self.original, self.retrained)[0] if objective.worst is None else objective.worst
        return unlearning, 0.0

    def counts(self) -> dict[str, float]:
        """Numbers of finished, pruned and failed trials, and the hypervolume of the complete ones."""
        pruned, failed = (sum(trial.state == state for trial in self.finished) for state in ("pruned", "fail"))
        volume = hypervolume([trial.point for trial in self.complete], self.reference_point())
        return {"done": len(self.finished), "pruned": pruned, "failed": failed, "hypervolume": volume}

    def points_by_budget(self) -> list[list[Point]]:
        """The complete trials' points after 0, 1, 2, ... finished trials."""
        so_far: list[list[Point]] = [[]]
        for trial in self.finished:
            so_far.append([*so_far[-1], *([trial.point] if trial.state == "complete" else [])])
        return so_far

    def _measured(self) -> list[str]:
        return [key for key in self.original if key != "utility"]

    def table(self, trials: Iterable[Trial]) -> str:
        """Format trials as CSV: both objectives, the first by every other objective, measurements, the gap that is expected, epochs, cost,
        arguments.

        `unseen`: whether the model can't be told from one that never saw the forget images; `winner`: the objectives by which it won."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        others = self.objectives()[1:]
        lines.writerow(
            [
                *("trial", "state", "unlearning", "utility", *others, *self._measured(), "expected_gap", "ran", SHARE, *self.searched),
                *("reason", "unseen", "winner"),
            ]
        )
        winners = self.winners()
        for trial in trials:
            measured = trial.attributes.get("measured", {})
            points = [self.point(trial, objective) if measured else None for objective in others]
            cells = [*(trial.values or ("", "")), *(point[0] if point else "" for point in points)]
            complete = trial.state == "complete"
            cells += [measured.get(key, "") for key in self._measured()]
            cells += [expected_gap(measured, self.original) if complete else ""]
            cells += [*(trial.attributes.get(key, "") for key in ("ran", SHARE))]
            cells += [trial.arguments.get(name, "") for name in self.searched]
            won = " ".join(objective for objective, winner in winners.items() if winner.number == trial.number)
            last = ["", self.unseen(trial, self.config.search.objective), won] if complete else [trial.reason, "", ""]
            lines.writerow([trial.number, trial.state, *map(_cell, (*cells, *last))])
        return written.getvalue()

    def fresh_table(self) -> str:
        """Format the winners' runs with fresh seeds as CSV, scored by every objective."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        lines.writerow(["trial", "seed", *self.objectives(), "utility", *self._measured(), "reason"])
        for (number, seed), record in self.fresh.items():
            measured = record["measured"]
            points = [OBJECTIVES[each].point(measured, self.retrained)[0] if measured else "" for each in self.objectives()]
            cells = [*points, measured.get("utility", ""), *(measured.get(each, "") for each in self._measured())]
            lines.writerow([number, seed, *map(_cell, (*cells, record.get("reason", "")))])
        return written.getvalue()

    def budgets_table(self) -> str:
        """Format the size of the front and the hypervolume after each trial as CSV."""
        reference = self.reference_point()
        budgets = list(enumerate(self.points_by_budget()))[1:]
        lines = [f"{n},{len(front(points))},{hypervolume(points, reference):.6g}" for n, points in budgets]
        return "\n".join(["trials,front,hypervolume", *lines]) + "\n"

    # ---- figures and files

    def budgets_figure(self) -> bytes:
        """PNG: the front and the hypervolume by number of trials."""
        names, reference = OBJECTIVES[self.config.search.objective].names, self.reference_point()
        title = f"{self.config.method}, {self.config.search.objective}: would more trials help?"
        history = self.points_by_budget()
        return figures.budgets(title, names, history, [hypervolume(points, reference) for points in history])

    def front_figure(self) -> bytes:
        """PNG: the trials, their front, the original model, the configuration's own values and the winner."""
        objective, winner = OBJECTIVES[self.config.search.objective], self.winner()
        marks = [figures.Mark("original", objective.point(self.original, self.retrained), "#D55E00", "s")]
        own = [trial for trial in self.complete if trial.arguments == argument_values(self.config)]
        marks += [figures.Mark("own values", trial.point, "#222222", "D") for trial in own[:1]]
        marks += [figures.Mark(self._mark(winner), winner.point, "#009E73", "*")] if winner else []
        title = f"{self.config.method}, {self.config.search.objective}"
        passed = [self.unseen(trial, self.config.search.objective) for trial in self.complete]
        return figures.front(title, objective.names, [trial.point for trial in self.complete], passed, marks)

    def _mark(self, winner: Trial) -> str:
        numbers = OBJECTIVES[self.config.search.objective].describe(winner.point).replace(", ", "\n")
        return f"winner: trial {winner.number}\n{numbers}"

    def write(self, folder: Path) -> None:
        """Write all tables and figures into a folder; the search's MLflow run has the same."""
        winner = self.winner()
        best = {"trial": winner.number, "unlearning": winner.point[0], "utility": winner.point[1]} if winner else {}
        for name, draw in (("front.png", self.front_figure), ("budgets.png", self.budgets_figure)):
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(draw())
        write_text(folder / "trials.csv", self.table(self.finished))
        write_text(folder / "front.csv", self.table(self.front()))
        write_text(folder / "budgets.csv", self.budgets_table())
        write_text(folder / "fresh.csv", self.fresh_table())
        write_json(folder / "best.json", self.counts() | best | {"chosen": self.chosen()})


def scorable_objectives(own: str, retrained: Measurements) -> list[str]:
    """List the objectives that trials can be scored by: the search's own first, `oracle` if the retrained model is known.

    Args:
        own: The search's objective.
        retrained: Measurements of the retrained model; empty if there is none.

    Returns:
        Names in `OBJECTIVES`, each once.

    >>> scorable_objectives("oracle_free", {}), scorable_objectives("report", {"utility": 83.4})
    (['oracle_free'], ['report', 'oracle_free', 'oracle'])
    """
    return list(dict.fromkeys([own, "oracle_free", *(["oracle"] if retrained else [])]))


def describe_winner(objective: str, row: Mapping[str, Any]) -> str:
    """Format a winner's score and its selection bias as one line.

    Args:
        objective: The objective it won by.
        row: Its row of `SearchResults.chosen`.

    Returns:
        The line; the selection bias is in it once fresh seeds were run.
    """
    scored = OBJECTIVES[objective]
    line = f"best by {objective}: trial {row['trial']}, {scored.describe((row['unlearning'], row['utility']))} in the search"
    if row["unseen"]:
        line += f"; {scored.within}, "
        if row.get("keeps_retain", True):
            line += f"and of the trials of which that is true those that keep retain come first, and of these the one with {scored.best}"
        else:
            line += f"but no trial of which that is true keeps retain as a retrained model does: it is the one of them with {scored.best}"
    else:
        line += f"; it is the nearest, for of no trial is it true that {scored.within}"
    if "fresh.seeds" not in row:
        return line
    biases = (f"{label} {_signed(row, f'bias.{key}')}" for label, key in zip(scored.labels, ("unlearning", "utility"), strict=True))
    fresh = scored.describe((row["fresh.unlearning"], row["fresh.utility"]))
    return f"{line}; {fresh} with {row['fresh.seeds']} fresh seeds; selection bias (search minus fresh): {', '.join(biases)}"


def _signed(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:+.3g} [{row[key + '.low']:+.3g}, {row[key + '.high']:+.3g}]"


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else as_cell(value)
