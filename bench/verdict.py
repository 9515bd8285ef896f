"""Measure the verdict: how often retrained models are called anything else, and how often models that remember are noticed.

    python src/demo.py --run.workspace verdict --run.seeds 64 --run.evaluate false
    python src/bank.py --run.workspace verdict --retrain.seeds 160 --pretrain.seeds 64
    python bench/verdict.py --workspace verdict [--trials 200] [--write results/verdict]

A trial on digits draws references and further models, all without a common member: retrained models of other seeds, originals, or models of
the method; it asks for the verdict on one model, or on the mean of 8 or 64. The bank holds 160 retrained models, so trials of a cell share
models. Synthetic trials draw everything anew. Default and all columns give the same verdicts, since of the columns it uses the probe alone,
which every table has; `logits` is without it. Intervals are Clopper and Pearson's.
"""

import argparse
import csv
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from lethe.config import loader
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.verdict import words
from lethe.evaluation.verdict.judge import judge
from lethe.testing.tables import of_phi
from lethe.workspace import artifacts, bank, settings
from lethe.workspace.prepare import prepare
from lethe.workspace.run_names import RunId

REFERENCES = (1, 8, 16, 32, 64)
MODELS = (1, 8, 64)
NOTICED = (words.REMEMBERS, words.OVER_FORGETS, words.DIFFERENT)
Trial = Callable[[np.random.Generator, int, int], tuple[Sequence[LogitsTable], Sequence[LogitsTable], LogitsTable]]


@dataclass(frozen=True)
class Cell:
    """One line of the table: what is judged, beside how many references, the mean of how many models."""

    data: str
    columns: str
    kind: str
    references: int
    models: int
    trial: Trial
    at_random: bool = False

    def row(self, trials: int) -> dict[str, object]:
        draw = np.random.default_rng([self.references, self.models, len(self.kind)])
        counts: Counter[str] = Counter()
        left = []
        for _ in range(trials):
            verdict = judge(*self.trial(draw, self.references, self.models), self.at_random)
            counts[verdict.word] += 1
            left += [verdict.memory_left.value] if verdict.memory_left else []
        noticed = sum(counts[word] for word in NOTICED)
        interval = stats.binomtest(noticed, trials).proportion_ci(0.95, "exact")
        row = {"data": self.data, "columns": self.columns, "kind": self.kind, "references": self.references, "models": self.models}
        row |= {"trials": trials, "noticed": round(100 * noticed / trials, 1)}
        row |= {"low": round(100 * interval.low, 1), "high": round(100 * interval.high, 1)}
        row |= {word: counts[word] for word in words.WORDS if word != words.REFERENCE_UNFIT}
        return row | {"memory_left": round(float(np.median(left)), 1) if left else None}


# --- digits ---------------------------------------------------------------------------------------------------------------


def without(table: LogitsTable, *names: str) -> LogitsTable:
    return replace(table, columns={name: column for name, column in table.columns.items() if name not in names})


def digits(workspace: str, method: str, trials: Sequence[int], columns: Sequence[str]) -> Iterator[Cell]:
    config = loader.load(["--run.workspace", workspace, "--method", method], settings=settings.layer)
    prepared = prepare(config)
    seeds = sorted(run.seed for run in prepared.layout.with_logits() if run.method == method and run.seed is not None)
    groups = {
        "retrained": bank.tables(prepared, "retrained"),
        "original": bank.tables(prepared, "original"),
        method: [artifacts.logits(prepared, str(RunId(method, seed))) for seed in seeds],
    }
    print({name: len(group) for name, group in groups.items()}, file=sys.stderr)
    for held in columns:
        tables = {name: [without(each, "probe") if held == "logits" else each for each in group] for name, group in groups.items()}
        for kind in groups:
            yield from (Cell("digits", held, kind, n, m, _drawn(tables, kind), True) for n in REFERENCES for m in MODELS)


def _drawn(tables: dict[str, list[LogitsTable]], kind: str) -> Trial:
    retrained, originals = tables["retrained"], tables["original"]

    def trial(draw: np.random.Generator, references: int, models: int) -> tuple[list[LogitsTable], list[LogitsTable], LogitsTable]:
        order = draw.permutation(len(retrained))
        theirs, others = order[:references], order[references:]
        pool = [retrained[i] for i in others] if kind == "retrained" else tables[kind]
        ours = [pool[i] for i in draw.permutation(len(pool))[:models]]
        start = ours[0] if kind == "original" else originals[draw.integers(len(originals))]
        return ours, [retrained[i] for i in theirs], start

    return trial


# --- synthetic ------------------------------------------------------------------------------------------------------------


def synthetic() -> Iterator[Cell]:
    """phi: a difficulty, what was learned, and noise of each model. `hard`: forget images are harder than test images, as for a request
    that is no random draw; `certain`: the method's logits are 1.5 times as large; `half`: half of the memory is left; `class`: all of them
    are of one class; `few`: 10 forget images."""
    for kind, of in {
        "retrained": {},
        "retrained, at random": {},
        "retrained, hard": {"harder": -2.0},
        "retrained, class": {"one_class": True},
        "retrained, few": {"forget": 10},
        "half": {"leak": 1.0},
        "half, hard": {"leak": 1.0, "harder": -2.0},
        "half, class": {"leak": 1.0, "one_class": True},
        "certain": {"scale": 1.5},
        "certain, hard": {"scale": 1.5, "harder": -2.0},
        "half, at random": {"leak": 1.0},
        "original": {"leak": 2.0},
    }.items():
        yield from (Cell("synthetic", "logits", kind, n, 1, _made(**of), kind.endswith("at random")) for n in (1, 8, 64))  # type: ignore[arg-type]


def _made(leak: float = 0.0, harder: float = 0.0, scale: float = 1.0, one_class: bool = False, forget: int = 200) -> Trial:
    sizes = (400, forget, 0, 1000)

    def trial(draw: np.random.Generator, references: int, models: int) -> tuple[list[LogitsTable], list[LogitsTable], LogitsTable]:
        labels = draw.integers(0, 10, sum(sizes))
        if one_class:
            labels[sizes[0] : sizes[0] + sizes[1]] = 3
        hard = draw.normal(1.5, 2.0, sum(sizes)) + np.repeat([0.0, harder, 0.0, 0.0], sizes)
        easily = draw.exponential(1.0, sum(sizes))  # how much is learned of an image

        def table(kept: float, factor: float = 1.0) -> LogitsTable:
            learned = np.repeat([3.0, kept, 0.0, 0.0], sizes) * easily
            made = of_phi(hard + learned + draw.normal(0, 1.0, sum(sizes)), "made", sizes, labels, 10)
            return replace(made, logits=np.float32(factor) * made.logits)

        return [table(leak, scale) for _ in range(models)], [table(0.0) for _ in range(references)], table(2.0)

    return trial


def chosen(cells: Iterable[Cell], options: argparse.Namespace) -> list[Cell]:
    """The cells that the options ask for; an option that was not given takes all."""
    asked = {name: getattr(options, name) for name in ("data", "kind", "references", "models")}
    return [cell for cell in cells if all(wanted is None or getattr(cell, name) in wanted for name, wanted in asked.items())]


def write(row: dict[str, object], path: Path) -> None:
    """Write the line of a cell in place of the one that was there before; all others stay."""
    key = ("data", "columns", "kind", "references", "models")
    before = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
    rows = {tuple(str(one[name]) for name in key): one for one in [*before, row]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", help="with a bank and a method of many seeds; without: synthetic tables alone")
    parser.add_argument("--method", default="hybrid_4")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--columns", nargs="+", default=["default", "logits"], choices=["default", "logits"])
    parser.add_argument("--data", nargs="+", choices=["digits", "synthetic"], help="which cells; default: all")
    parser.add_argument("--kind", nargs="+", help="of the models: retrained, original, the method, or a kind of synthetic ones")
    parser.add_argument("--references", nargs="+", type=int, choices=REFERENCES)
    parser.add_argument("--models", nargs="+", type=int, choices=MODELS)
    parser.add_argument("--write", type=Path, help="a folder, for verdict.csv: lines of cells that are not measured now stay")
    options = parser.parse_args()
    cells = [*(digits(options.workspace, options.method, REFERENCES, options.columns) if options.workspace else ()), *synthetic()]
    started = time.process_time()
    for cell in chosen(cells, options):
        row = cell.row(options.trials)
        print("  ".join(f"{value!s:>9}" for value in row.values()), flush=True)
        if options.write:
            write(row, options.write / "verdict.csv")
    print(f"{time.process_time() - started:.0f} s of processor time", file=sys.stderr)


if __name__ == "__main__":
    main()
