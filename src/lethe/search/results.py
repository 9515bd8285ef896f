"""What a search found, read from its trials: fronts, winners and their price, as tables, lines and pictures. No model, no database."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lethe._util.files import whole, write_json, write_text
from lethe.config.loader import Config
from lethe.evaluation.uncertainty import over_seeds
from lethe.search.objectives import OBJECTIVES, Measured
from lethe.search.pareto import Point, front, hypervolume, nested, picture
from lethe.search.spaces import values_of

WITHIN = 1.0  # points of validation accuracy, the winner's condition: Found.least


@dataclass(frozen=True)
class Trial:
    """`state`: complete, pruned or fail, the last two for a `reason`. `values`: both objectives of a complete one; `said`: what was
    noted on it."""

    number: int
    state: str
    values: Point | None
    arguments: Mapping[str, Any]
    said: Mapping[str, Any]
    reason: str

    @property
    def point(self) -> Point:
        assert self.values
        return self.values


@dataclass(frozen=True)
class Found:
    """`words`: the arguments searched. `original`, `retrained`: what they measure, the second empty where it is not known. `ended`:
    trials that count, as they ended. `fresh`: by trial and seed, what a winner measured with a seed that the search did not have."""

    config: Config
    words: Sequence[str]
    original: Measured
    retrained: Measured
    ended: Sequence[Trial]
    fresh: Mapping[tuple[int, int], Mapping[str, Any]]

    @cached_property
    def complete(self) -> list[Trial]:
        return sorted((trial for trial in self.ended if trial.state == "complete"), key=lambda trial: trial.number)

    def front(self) -> list[Trial]:
        return [self.complete[n] for n in front([trial.point for trial in self.complete])]

    # ---- who wins, and what that is worth

    def readings(self) -> list[str]:
        return readings(self.config.search.objective, self.retrained)

    def point(self, trial: Trial, reading: str) -> Point | None:
        """None where the trial did not measure what the reading needs."""
        if reading == self.config.search.objective:
            return trial.point
        measured = trial.said["measured"]
        known = all(f"{split}.accuracy" in measured for split in OBJECTIVES[reading].splits)
        return OBJECTIVES[reading].point(measured, self.retrained) if known else None

    def least(self, reading: str) -> float:
        """Validation accuracy that a winner has at least: a point below the original's. With the retrained model known, below the
        lower of the two: a trial that is like it must be able to win."""
        known = [self.original["utility"], *([self.retrained["utility"]] if OBJECTIVES[reading].oracle else [])]
        return min(known) - WITHIN

    def floor(self) -> str:
        """In words, by its own objective."""
        reading = self.config.search.objective
        lower = OBJECTIVES[reading].oracle and self.retrained["utility"] < self.original["utility"]
        return f"a validation accuracy of {self.least(reading):.2f} (a point below the {'retrained model' if lower else 'original'}'s)"

    def winner(self, reading: str | None = None) -> Trial | None:
        """The least `unlearning` among those with at least that validation accuracy."""
        reading = reading or self.config.search.objective
        read = [(self.point(trial, reading), trial) for trial in self.complete]
        good = [(point, trial) for point, trial in read if point and trial.said["measured"]["utility"] >= self.least(reading)]
        best = min(good, key=lambda pair: (pair[0][0], -pair[0][1], pair[1].number), default=None)
        return best and best[1]

    def winners(self) -> dict[str, Trial]:
        """By reading, those that there are."""
        found = {reading: self.winner(reading) for reading in self.readings()}
        return {reading: trial for reading, trial in found.items() if trial}

    def seeds(self) -> list[int]:
        """Those that the search did not have."""
        return [self.config.run.seed + n for n in range(1, self.config.search.fresh_seeds + 1)]

    def chosen(self) -> dict[str, dict[str, Any]]:
        """By reading: its winner, what it scored in the search and with fresh seeds, and how far the first is from the second."""
        found: dict[str, dict[str, Any]] = {}
        for reading, trial in self.winners().items():
            point = self.point(trial, reading)
            assert point
            of = {"trial": trial.number, "unlearning": point[0], "utility": point[1]}
            anew = [self.fresh.get((trial.number, seed), {}).get("measured") for seed in self.seeds()]
            points = [OBJECTIVES[reading].point(measured, self.retrained) for measured in anew if measured]
            if points:
                for n, key in enumerate(("unlearning", "utility")):
                    fresh = over_seeds([each[n] for each in points])
                    low, high = fresh.ends()
                    of |= {f"fresh.{key}": fresh.value, f"fresh.{key}.low": low, f"fresh.{key}.high": high}
                    of |= {f"bias.{key}": point[n] - fresh.value, f"bias.{key}.low": point[n] - high, f"bias.{key}.high": point[n] - low}
                of["fresh.seeds"] = len(points)
            found[reading] = of
        return found

    # ---- numbers and tables

    def worst(self) -> Point:
        objective = OBJECTIVES[self.config.search.objective]
        first = objective.point(self.original, self.retrained)[0] if objective.worst is None else objective.worst
        return first, 0.0

    def counts(self) -> dict[str, float]:
        """How many trials counted, were stopped and failed; the area that the complete ones dominate."""
        stopped, failed = (sum(trial.state == state for trial in self.ended) for state in ("pruned", "fail"))
        area = hypervolume([trial.point for trial in self.complete], self.worst())
        return {"done": len(self.ended), "pruned": stopped, "failed": failed, "hypervolume": area}

    def grown(self) -> list[list[Point]]:
        """The points that were known when 0, 1, 2, ... trials had ended."""
        known: list[list[Point]] = [[]]
        for trial in self.ended:
            known.append([*known[-1], *([trial.point] if trial.state == "complete" else [])])
        return known

    def _measured(self) -> list[str]:
        return [key for key in self.original if key != "utility"]

    def table(self, trials: Iterable[Trial]) -> str:
        """CSV: both objectives, the first by each other reading, what was measured, epochs that ran, arguments."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        others = self.readings()[1:]
        lines.writerow(["trial", "state", "unlearning", "utility", *others, *self._measured(), "ran", *self.words, "reason"])
        for trial in trials:
            measured = trial.said.get("measured", {})
            points = [self.point(trial, reading) if measured else None for reading in others]
            cells = [*(trial.values or ("", "")), *(point[0] if point else "" for point in points)]
            cells += [*(measured.get(key, "") for key in self._measured()), trial.said.get("ran", "")]
            cells += [trial.arguments.get(word, "") for word in self.words]
            lines.writerow([trial.number, trial.state, *map(_cell, cells), "" if trial.state == "complete" else trial.reason])
        return written.getvalue()

    def fresh_table(self) -> str:
        """CSV: every fresh run of the winners, by each reading."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        lines.writerow(["trial", "seed", *self.readings(), "utility", *self._measured(), "reason"])
        for (number, seed), said in self.fresh.items():
            measured = said["measured"]
            points = [OBJECTIVES[each].point(measured, self.retrained)[0] if measured else "" for each in self.readings()]
            cells = [*points, measured.get("utility", ""), *(measured.get(each, "") for each in self._measured())]
            lines.writerow([number, seed, *map(_cell, cells), said.get("reason", "")])
        return written.getvalue()

    def budgets_table(self) -> str:
        lines = [f"{n},{len(front(points))},{hypervolume(points, self.worst()):.6g}" for n, points in enumerate(self.grown()) if n]
        return "\n".join(["trials,front,hypervolume", *lines]) + "\n"

    # ---- pictures and files

    def budgets(self) -> bytes:
        grown, names = self.grown(), OBJECTIVES[self.config.search.objective].names
        title = f"{self.config.method}, {self.config.search.objective}: would more trials help?"
        return nested(title, names, grown, [hypervolume(points, self.worst()) for points in grown])

    def picture(self) -> bytes:
        objective, winner = OBJECTIVES[self.config.search.objective], self.winner()
        named = [("original", objective.point(self.original, self.retrained), "#D55E00", "s")]
        own = [trial for trial in self.complete if trial.arguments == values_of(self.config)]
        named += [("own values", trial.point, "#222222", "D") for trial in own[:1]]
        named += [(f"best: {winner.number}", winner.point, "#009E73", "*")] if winner else []
        least = self.least(self.config.search.objective) if objective.names[1] == "validation accuracy" else None
        title = f"{self.config.method}, {self.config.search.objective}"
        return picture(title, objective.names, [trial.point for trial in self.complete], named, least)

    def write(self, folder: Path) -> None:
        """What the row shows, for those who read files."""
        winner = self.winner()
        best = {"trial": winner.number, "unlearning": winner.point[0], "utility": winner.point[1]} if winner else {}
        for name, draw in (("front.png", self.picture), ("budgets.png", self.budgets)):
            with whole(folder / name) as beside:
                beside.write_bytes(draw())
        write_text(folder / "trials.csv", self.table(self.ended))
        write_text(folder / "front.csv", self.table(self.front()))
        write_text(folder / "budgets.csv", self.budgets_table())
        write_text(folder / "fresh.csv", self.fresh_table())
        write_json(folder / "best.json", self.counts() | best | {"chosen": self.chosen()})


def readings(own: str, retrained: Measured) -> list[str]:
    """The objectives by which trials can be read: their search's own first, oracle where the retrained model is known.

    >>> readings("oracle_free", {}), readings("report", {"utility": 83.4})
    (['oracle_free'], ['report', 'oracle_free', 'oracle'])
    """
    return list(dict.fromkeys([own, "oracle_free", *(["oracle"] if retrained else [])]))


def price(reading: str, of: Mapping[str, Any]) -> str:
    """One line on what a winner's score is worth."""
    said = f"best by {reading}: trial {of['trial']}, {pair((of['unlearning'], of['utility']))} in the search"
    if "fresh.seeds" not in of:
        return said
    biases = (f"{key} {_signed(of, f'bias.{key}')}" for key in ("unlearning", "utility"))
    fresh = pair((of["fresh.unlearning"], of["fresh.utility"]))
    return f"{said}; {fresh} with {of['fresh.seeds']} fresh seeds; selection bias (search minus fresh): {', '.join(biases)}"


def pair(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:.4g}" for value in values or ())


def _signed(of: Mapping[str, Any], key: str) -> str:
    return f"{of[key]:+.3g} [{of[key + '.low']:+.3g}, {of[key + '.high']:+.3g}]"


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
