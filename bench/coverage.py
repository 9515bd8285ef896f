"""Measure how often the 95 % interval of every measure holds the true value, on synthetic populations whose true value is known.

    python bench/coverage.py [--quick] [--write results/coverage/after.csv]
    python bench/coverage.py --table results/coverage        (of before.csv and after.csv)

An image of a population is a difficulty, and by it the answers of a model, of eight retrained models and of the original; a case draws 50,
100, 500 or 5,000 of them for each split, again and again, and asks for the interval. True is what the same measure gives on 150,000 images
(of several models on 25,000).
Where a measure depends on the number of images by itself (attacks that are trained on them, U-LiRA's fits), true is its mean over all
draws. Three populations: a model that has forgotten, one that remembers, and one that like its references is right on 99.9 % of all images.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lethe.evaluation import catalogue, representations
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, Array, LogitsTable
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import ResultSet, compare_neighbours
from lethe.testing.tables import of_phi

SIZES = (50, 100, 500, 5000)
DRAWS = {50: 80, 100: 80, 500: 40, 5000: 6}  # for each population
LARGE, REPEATED = 25_000, 6  # ids of up to 100,000 images sort by number
STEPS = 60  # of relearning: enough for every draw to reach the line
MODELS = 16
Ends = dict[str, tuple[float, float, float]]  # id -> value, low, high
Case = Callable[[int, np.random.Generator], Ends]


@dataclass(frozen=True)
class Population:
    """Log odds of an image: its difficulty, N(mean, 2), plus what a model has learned of its split, plus N(0, 1) for each model."""

    mean: float
    learned: float  # by every model of retain, and by the original of forget
    leak: float  # what the model has kept of forget

    def context(self, n: int, draw: np.random.Generator, references: int, unlearned: int = 0) -> EvaluationContext:
        """n images in each split, as an evaluation sees them."""
        hard = draw.normal(self.mean, 2.0, 4 * n)
        labels = draw.integers(0, 4, 4 * n)

        def table(name: str, leak: float) -> LogitsTable:
            return of_phi(hard + np.repeat([self.learned, leak, 0.0, 0.0], n) + draw.normal(0, 1, 4 * n), name, (n,) * 4, labels)

        model = table("model", self.leak)
        model = replace(model, columns=self._columns(hard, self.leak, draw) | {"swapped": self._swapped(hard, labels, n, draw)})
        others = [table(f"retrained {k}", 0.0) for k in range(references)]
        others = [replace(one, columns=self._columns(hard, 0.0, draw)) for one in others]
        more = [table(f"unlearned {k}", self.leak) for k in range(unlearned - 1)]
        return EvaluationContext(model, others, table("original", self.learned), [model, *more] if unlearned else ())

    def _columns(self, hard: Array, leak: float, draw: np.random.Generator) -> dict[str, Array]:
        """The probe is right where the model would be; the share of perturbed copies that are, and the step of relearning, follow it."""
        n = len(hard) // 4
        phi = hard + np.repeat([self.learned, leak, 0.0, 0.0], n) + draw.normal(0, 1, 4 * n)
        right = 1 / (1 + np.exp(-phi[:, None] + np.array([0.0, 1.0, 2.0])))
        known_at = np.ceil(np.maximum(0.0, 3.0 - phi) * 4)
        columns = {"probe": phi > 0, "residual": draw.binomial(16, right), "relearn": np.arange(STEPS + 1) >= known_at[:, None]}
        return {name: column.astype(np.uint8) for name, column in columns.items()}

    def _swapped(self, hard: Array, labels: Array, n: int, draw: np.random.Generator) -> Array:
        phi = hard + np.repeat([self.learned, 0.0, self.leak, 0.0], n) + draw.normal(0, 1, 4 * n)
        return of_phi(phi, "swapped", (n,) * 4, labels).logits


POPULATIONS = {
    "forgotten": Population(1.0, 4.0, 0.0),
    "remembered": Population(1.0, 4.0, 3.0),
    "certain": Population(7.0, 0.0, 0.0),
}
# whose value depends on the number of images (attacks trained on them, populations of them): true is the mean over the draws
TRAINED = ("mia.loss", "mia.svc", "avg_gap", "rmia", "ulira")
OF_IMAGES = (
    *("accuracy", "distance", "mia.loss", "mia.over", "avg_gap.rmia", "tow", "kl_to_reference", "js_to_reference", "rmia.gamma_1"),
    "rmia.gamma_2",
)
OF_COLUMNS = ("probe.excess", "residual", "iam", "relearn", "swap.advantage")


ASKED: set[str] = set()  # by --measures


def ends(context: EvaluationContext, *ids: str) -> Ends:
    """The intervals of some measures; a value without one is a point."""
    wanted = {*ids} & ASKED if ASKED else ids
    asked = [replace(each, min_references=0) for each in catalogue.all_measures() if each.id in wanted]
    found = catalogue.measure_model(context, asked)
    return {id_: (one.value, *one.ends()) for id_, one in found.items() if isinstance(one, Estimate)}


def of_images(population: Population) -> Case:
    return lambda n, draw: ends(population.context(n, draw, 8), *OF_IMAGES)


def of_columns(population: Population) -> Case:
    return lambda n, draw: ends(population.context(n, draw, 8), *OF_COLUMNS)


def of_svc(population: Population) -> Case:
    return lambda n, draw: ends(population.context(n, draw, 1), "mia.svc", "avg_gap.svc")


def of_models(population: Population) -> Case:
    return lambda n, draw: ends(population.context(n, draw, MODELS, MODELS), "klom", "epsilon", "neurips")


def of_shadows(population: Population) -> Case:
    def case(n: int, draw: np.random.Generator) -> Ends:
        role = draw.permuted(np.tile(np.repeat([FORGOT, NEVER_SAW], 32), (n, 1)), axis=1).astype(np.uint8)
        phi = draw.normal(population.mean, 2.0, (n, 1)) + draw.normal(0, 1, (n, 64)) + draw.normal(0, 0.5, 64)  # models differ, too
        phi += population.leak / 2 * (role == FORGOT)
        table = of_phi(np.zeros(n), sizes=(0, n, 0, 0))
        return ends(EvaluationContext(replace(table, columns={SHADOWS[0]: phi.astype(np.float32), SHADOWS[1]: role})), "ulira")

    return case


def of_features() -> Case:
    """CKA's interval is over references: true is the mean over 100 further ones, on the same images."""

    def case(n: int, draw: np.random.Generator) -> Ends:
        shared = draw.normal(0, 1, (n, 8))
        model, *others = (shared + draw.normal(0, 1, (n, 8)) * draw.uniform(0.5, 1.5) for _ in range(109))
        each = [representations.cka(model, one) for one in others]
        found = catalogue.over_seeds([{"cka.forget": Estimate(value)} for value in each[:8]])["cka.forget"]
        assert isinstance(found, Estimate)
        low, high = found.ends()
        true = float(np.mean(each[8:]))
        return {"cka": (found.value - true, low - true, high - true)}

    return case


def of_seeds(seeds: int) -> Case:
    """Mean accuracy over seeds, on n images that are the same for all."""

    def case(n: int, draw: np.random.Generator) -> Ends:
        accuracies = draw.normal(99.0, 0.5, seeds).clip(0, 100)
        values = np.round(accuracies * n / 100) * 100 / n
        models = [{"accuracy.test": Estimate(v, *(() if k else of_share(v, n)))} for k, v in enumerate(values)]
        found = catalogue.over_seeds(models)["accuracy.test"]
        assert isinstance(found, Estimate)
        return {f"accuracy, mean over {seeds} seeds": (found.value, *found.ends())}

    return case


def of_share(percent: float, n: int) -> tuple[float, float]:
    """The interval that one model has, as `accuracy` gives it."""
    correct = np.repeat([100.0, 0.0], [round(percent * n / 100), n - round(percent * n / 100)])
    split = np.ones(n, np.uint8)
    logits = np.zeros((n, 2), np.float32)
    logits[:, 0] = np.where(correct > 0, 1.0, -1.0)
    table = LogitsTable("seed", tuple(f"{i:06d}" for i in range(n)), np.zeros(n, np.int64), split, logits)
    return ends(EvaluationContext(table), "accuracy")["accuracy.forget"][1:]


def false_differences(seeds: int, n: int, tables: int, draw: np.random.Generator) -> int:
    """Number of tables of ten equal methods in which some difference of neighbours counts as more than noise."""
    names = [f"method {k}" for k in range(10)]
    wrong = 0
    for _ in range(tables):
        accuracies = {
            name: {k: {split: round(draw.normal(90, 0.5) * n / 100) * 100 / n for split in ("forget", "test")} for k in range(seeds)}
            for name in names
        }
        firsts = {name: each[0] for name, each in accuracies.items()}
        results = ResultSet("", "", "", {"forget": n, "test": n}, firsts, by_seed=accuracies)
        wrong += any(one.more_than_noise for one in compare_neighbours(results, names))
    return wrong


def cases() -> Iterator[tuple[str, str, Case, tuple[int, ...], float]]:
    """Name, population, case, numbers of images, share of the usual draws."""
    for seeds in (2, 3, 8, 64):
        yield "seeds", f"{seeds} seeds", of_seeds(seeds), SIZES, 4.0
    yield "features", "any", of_features(), SIZES[:3], 2.0
    for name, population in POPULATIONS.items():
        yield "images", name, of_images(population), SIZES, 1.0
        yield "columns", name, of_columns(population), SIZES, 1.0
        yield "models", name, of_models(population), SIZES, 0.5
        yield "shadows", name, of_shadows(population), SIZES, 0.5
        yield "svc", name, of_svc(population), SIZES[:3], 0.5  # 5,000 images: ten seconds for each attack that is trained


def true_values(case: str, population: str, quick: bool) -> dict[str, float]:
    """Id -> the measure's value on many images; empty where it is the mean over the draws."""
    asked = {"images": OF_IMAGES, "columns": OF_COLUMNS, "models": ("klom", "epsilon", "neurips")}.get(case)
    if asked is None:
        return {}
    models = (MODELS, MODELS) if case == "models" else (8, 0)
    size = LARGE // (10 if quick else 1)
    found: dict[str, list[float]] = defaultdict(list)
    for repeat in range(1 if quick or case == "models" else REPEATED):
        context = POPULATIONS[population].context(size, np.random.default_rng([1, repeat]), *models)
        for id_, (value, _, _) in ends(replace(context, resample=False), *asked).items():
            found[id_].append(value)
    return {id_: float(np.mean(values)) for id_, values in found.items()}


def measured(options: argparse.Namespace) -> pd.DataFrame:
    """Coverage by measure, population and number of images; written case by case, in place of the rows that the file has of these."""
    path: Path | None = options.write
    before = pd.read_csv(path) if path and path.exists() and not options.quick else None
    columns = ["measure", "population", "images", "coverage", "draws", "true", "mean", "width", "lowest", "highest"]
    table = pd.DataFrame(columns=columns)
    rows = []
    for case, population, draw_ends, sizes, share in cases():
        if (options.only and case != options.only) or (options.population and population != options.population):
            continue
        quick = options.quick
        began = time.process_time()
        truth = true_values(case, population, quick)
        for n in sizes[:2] if quick else [n for n in sizes if not options.sizes or n in options.sizes]:
            draws = options.draws or max(10, round(DRAWS[n] * share) // (10 if quick else 1))
            found = defaultdict(list)
            for number in range(draws):
                for id_, one in draw_ends(n, np.random.default_rng([number, n])).items():
                    found[id_].append(one)
            for id_, each in found.items():
                value, low, high = np.array(each).T
                true = 99.0 if case == "seeds" else 0.0 if case == "features" else truth.get(id_, value.mean())
                true = value.mean() if id_.startswith(TRAINED) else true
                held = (low <= true + 1e-9) & (true <= high + 1e-9)
                rows.append((id_, population, n, held.mean(), draws, true, value.mean(), (high - low).mean(), low.min(), high.max()))
        print(f"{case}, {population}: {time.process_time() - began:.0f} s", flush=True)
        table = pd.DataFrame(rows, columns=columns)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            both = table if before is None else pd.concat([before, table])
            both.drop_duplicates(columns[:3], keep="last").round(4).to_csv(path, index=False)
    return table


def page(folder: Path) -> str:
    """The table: coverage in percent over the populations that both files have, and the lowest of one in brackets where it is below 93;
    below it, by population, what after.csv alone has."""
    columns = ["measure", "population", "images"]
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in ("before", "after")}
    alone = tables["after"].merge(tables["before"][columns], how="left", indicator=True).query("_merge == 'left_only'")
    both = tables["before"][columns].merge(tables["after"][columns])
    for name, table in tables.items():
        tables[name] = table.merge(both)
        tables[name]["held"] = tables[name].coverage * tables[name].draws
    lines = ["| measure | " + " | ".join(f"{n:,}" for n in SIZES) + " |", "|---" * (1 + len(SIZES)) + "|"]
    for id_ in tables["after"].measure.drop_duplicates():
        cells = []
        for n in SIZES:
            each = [table[(table.measure == id_) & (table.images == n)] for table in tables.values()]
            cells.append(" → ".join(map(_cell, each)) if len(each[1]) else "")
        lines.append(f"| `{id_}` | " + " | ".join(cells) + " |")
    shown = alone.assign(cell=[f"{100 * row.coverage:.0f}" for row in alone.itertuples()]).pivot_table(
        "cell", ["measure", "population"], "images", "first", fill_value="", sort=False
    )
    lines += ["", "| measure | population | " + " | ".join(f"{n:,}" for n in shown) + " |", "|---" * (2 + len(shown.columns)) + "|"]
    lines += [
        f"| `{measure}` | {population} | {' | '.join(row)} |"
        for (measure, population), row in zip(shown.index, shown.to_numpy(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def _cell(rows: pd.DataFrame) -> str:
    whole, lowest = 100 * rows.held.sum() / rows.draws.sum(), 100 * rows.coverage.min()
    return f"{whole:.0f}" + (f" ({lowest:.0f})" if lowest < 93 and len(rows) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 and 100 images, a tenth of the draws")
    parser.add_argument("--only", default="", help="one kind of case: images, columns, svc, models, shadows, features, seeds")
    parser.add_argument("--population", default="", help="one population: " + ", ".join(POPULATIONS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, help="numbers of images; default: all")
    parser.add_argument("--draws", type=int, help="of each case; default: by the number of images")
    parser.add_argument("--measures", nargs="+", help="of a case that asks for several; default: all")
    parser.add_argument("--write", type=Path, help="CSV file of the coverages; rows that are not measured now stay")
    parser.add_argument("--table", type=Path, help="folder with before.csv and after.csv: print the table and stop")
    options = parser.parse_args()
    ASKED.update(options.measures or ())
    if options.table:
        print(page(options.table), end="")
        return
    coverage = measured(options)
    with pd.option_context("display.max_rows", None, "display.width", 200):
        print(coverage.round(4).to_string(index=False))
    tables = 100 if options.quick else 1000
    for seeds in () if options.only or options.population else (2, 3, 5, 8):
        wrong = false_differences(seeds, 100, tables, np.random.default_rng(0))
        low, high = stats.binomtest(wrong, tables).proportion_ci()
        print(f"more than noise, {seeds} seeds: false in {100 * wrong / tables:.1f} % of tables ({100 * low:.1f} to {100 * high:.1f})")


if __name__ == "__main__":
    main()
