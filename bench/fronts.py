"""Searches' fronts and the rows of Tables 7 and 8 in one picture: mean absolute distance to the retrained model, and accuracy.

    python bench/fronts.py --trials <label>=<trials.csv> ... --tables <report folder> [--found <label>=<scores.json> ...] --write <name>

Distance: over retain, forget and validation; of published rows over retain and forget, since the published retrained model has no
validation accuracy. Left by validation accuracy, right by test accuracy, which no trial was asked for: rows and found settings alone.
Writes <name>.png, and the points as <name>.csv.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lethe.search.pareto import front

SPLITS = ("retain", "forget", "validation")
COLOURS = ("#0072B2", "#009E73", "#CC79A7")
MARKS = {  # marker, colour, legend, where its labels stand
    "independent": ("s", "#222222", "ours, the report's defaults", (6, -11)),
    "published": ("^", "#999999", "published (over retain and forget alone)", (6, 4)),
    "found": ("*", "#D55E00", "found, run in full", (-8, -20)),
}
WHOSE = {"independent": "ours", "published": "published", "found": "found"}
WIDEST = 14.0  # points: what lies beyond is named below
COLUMNS = ("kind", "name", "distance", "validation", "test", "over")


def apart(row: pd.Series, reference: pd.Series) -> tuple[float, str]:
    """Mean absolute distance, and over which splits."""
    known = [split for split in SPLITS if pd.notna(row[split]) and pd.notna(reference[split])]
    return sum(abs(row[split] - reference[split]) for split in known) / len(known), "+".join(known)


def rows_of(folder: Path) -> pd.DataFrame:
    """Of both tables, ours and published."""
    both = pd.concat([pd.read_csv(folder / f"table_{n}.csv") for n in (7, 8)]).drop_duplicates(["method", "reading"])
    found = []
    for reading in ("independent", "published"):
        of = both[(both.reading == reading) & (both.status == "run")].set_index("method")
        for name, row in of.drop("retrained").iterrows():
            distance, over = apart(row, of.loc["retrained"])
            found.append((reading, name, distance, row["validation"], row["test"], over))
    return pd.DataFrame(found, columns=COLUMNS)


def found_in_full(label: str, scores: Path, folder: Path) -> tuple[object, ...]:
    reference = pd.read_csv(folder / "table_7.csv").set_index(["method", "reading"]).loc[("retrained", "independent")]
    accuracy = pd.Series(json.loads(scores.read_text())["accuracy"])
    distance, over = apart(accuracy, reference)
    return "found", label, distance, accuracy["validation"], accuracy["test"], over


def trials_of(label: str, file: Path) -> pd.DataFrame:
    trials = pd.read_csv(file).query("state == 'complete'")
    column = "oracle" if "oracle" in trials else "unlearning"  # the latter where the search itself was by oracle
    found = {"kind": f"trial, {label}", "name": trials["trial"], "distance": trials[column], "validation": trials["validation.accuracy"]}
    return pd.DataFrame(found | {"test": float("nan"), "over": "+".join(SPLITS)})


def short(name: str) -> str:
    return name.replace("model_", "M").replace("hybrid_", "H")


def together(points: pd.DataFrame, by: str) -> list[tuple[str, float, float]]:
    """Labels: points that lie on one another share one."""
    groups: list[list[tuple[str, float, float]]] = []
    for _, row in points.sort_values("distance").iterrows():
        near = next((g for g in groups if abs(g[0][1] - row.distance) < 0.7 and abs(g[0][2] - row[by]) < 0.8), None)
        one = (short(row["name"]), row.distance, row[by])
        groups.append([one]) if near is None else near.append(one)
    return [(", ".join(sorted(name for name, _, _ in group)), group[-1][1], group[-1][2]) for group in groups]


def draw(points: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for colour, kind in zip(COLOURS, [kind for kind in points.kind.unique() if kind.startswith("trial")], strict=False):
        of = points[points.kind == kind]
        left.plot(
            of.distance,
            of.validation,
            "o",
            color=colour,
            markersize=4,
            alpha=0.35,
            label=f"{len(of)} trials, {kind.removeprefix('trial, ')}",
        )
        pairs = list(zip(of.distance, of.validation, strict=True))
        best = [pairs[n] for n in front(pairs)]
        left.plot(*zip(*best, strict=True), "-", color=colour, drawstyle="steps-post", label="their front")
    for kind, (mark, colour, label, shift) in MARKS.items():
        for axes, by in ((left, "validation"), (right, "test")):
            of = points[(points.kind == kind) & points[by].notna()]
            axes.plot(of.distance, of[by], mark, color=colour, markersize=13 if kind == "found" else 6, linestyle="none", label=label)
            for name, x, y in together(of, by):
                if x <= WIDEST:
                    axes.annotate(name, (x, y), xytext=shift, textcoords="offset points", fontsize=8, color=colour)
    far = points[points.kind.isin(MARKS) & (points.distance > WIDEST)]
    for axes, by in ((left, "validation"), (right, "test")):
        beyond = "; ".join(f"{short(row['name'])} ({WHOSE[row.kind]}) {row.distance:.0f}, {row[by]:.0f}" for _, row in far.iterrows())
        axes.text(0.02, 0.02, f"outside: {beyond}", transform=axes.transAxes, fontsize=7, color="#666666")
        axes.set_xlabel("mean |distance to the retrained model| over retain, forget, validation, in points (less is better)", fontsize=8)
        axes.set_ylabel(f"{by} accuracy, percent (more is better)")
        axes.set_xlim(0, WIDEST)
        axes.set_ylim(70, 90)
        axes.grid(alpha=0.3)
    left.legend(loc="lower left", bbox_to_anchor=(0, 0.04), frameon=False, fontsize=8)
    left.set_title("on validation: trials of the cheap version, rows of Tables 7 and 8", loc="left", fontsize="medium")
    right.set_title("on test, read once: rows, and what was found run in full", loc="left", fontsize="medium")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs="+", required=True)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--found", nargs="*", default=[])
    parser.add_argument("--write", type=Path, required=True)
    said = parser.parse_args()
    pairs = [word.rpartition("=") for word in said.trials]
    points = [trials_of(label, Path(file)) for label, _, file in pairs] + [rows_of(said.tables)]
    full = [found_in_full(label, Path(file), said.tables) for label, _, file in (word.rpartition("=") for word in said.found)]
    if full:
        points.append(pd.DataFrame(full, columns=COLUMNS))
    everything = pd.concat(points, ignore_index=True)
    everything.to_csv(said.write.with_suffix(".csv"), index=False, float_format="%.6g")
    draw(everything).savefig(said.write.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
