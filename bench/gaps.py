"""avg_gap.svc of leaderboard rows next to several retrained models, one after another: how far the order of methods depends on which.

    python bench/gaps.py results/leaderboard/cifar10_jpeg

Reads every leaderboard*.csv of the folder, whose rows may have been measured next to different retrained models, and references.csv: name,
and retain, forget, validation, test and mia.svc in percent, of the original and of each retrained model. The gap is the mean absolute
difference of four of them, as in avg_gap.svc (SalUn's average gap), and needs no model. Writes gaps.csv: for each method and share the
number of seeds, means over seeds, the gap next to each retrained model (the mean of the seeds' own), and the mean of these gaps; prints it,
the nearest first. Draws gap.png and forget_against_test.png of it.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from lethe._util.files import write_text
from lethe.plots import leaderboard_figures

PARTS = ["retain", "forget", "test", "mia.svc"]  # what avg_gap.svc is made of


def gap(row: pd.Series, reference: pd.Series) -> float:
    """Mean absolute difference in points."""
    return float((row[PARTS] - reference[PARTS]).abs().mean())


def gaps(rows: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Each run with its gap next to each retrained model, in columns of their names, and the mean of these.

    Args:
        rows: of leaderboard.csv.
        references: of references.csv, by name.
    """
    found = pd.DataFrame({name: rows.apply(gap, axis=1, reference=reference) for name, reference in references.iterrows()})
    return rows.join(found.assign(mean=found.mean(axis=1)))


def floor(references: pd.DataFrame) -> float:
    """Mean gap of two retrained models next to each other."""
    pairs = list(combinations([row for _, row in references.iterrows()], 2))
    return sum(gap(one, other) for one, other in pairs) / len(pairs)


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean of each method and share over seeds, the nearest first."""
    grouped = runs.groupby(["method", "share"])
    means = grouped.mean(numeric_only=True).drop(columns="seed")
    return means.assign(seeds=grouped.size()).reset_index().sort_values("mean")


def figure_rows(runs: pd.DataFrame, least: float) -> list[dict[str, Any]]:
    """Rows as figures take them: their gap is the mean over retrained models."""
    drawn = runs.copy()
    drawn["avg_gap.svc"], drawn["floor"] = runs["mean"], least
    return [{str(name): value for name, value in row.items()} for row in drawn.sort_values(["share", "mean"]).to_dict("records")]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(words).folder
    models = pd.read_csv(folder / "references.csv").set_index("name")
    references = models.drop(index="original")
    tables = sorted(folder.glob("leaderboard*.csv"))
    runs = gaps(pd.concat([pd.read_csv(path) for path in tables], ignore_index=True), references)
    means = over_seeds(runs)
    columns = ["method", "share", "seeds", *PARTS[:2], "validation", *PARTS[2:], *references.index, "mean"]
    write_text(folder / "gaps.csv", means[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    nothing = float(gaps(models.loc[["original"]], references)["mean"].iloc[0])
    mean = {str(split): float(value) for split, value in references.mean(numeric_only=True).items()}
    leaderboard_figures.write(figure_rows(runs, floor(references)), mean, nothing, folder)
    print(means[columns].to_string(index=False, float_format="%.2f"))
    print(f"floor {floor(references):.2f}, doing nothing {nothing:.2f}")


if __name__ == "__main__":
    main()
