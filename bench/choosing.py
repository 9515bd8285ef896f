"""Compare rules that choose a method's settings without a retrained model with the choice that has retrained models in view.

    python bench/choosing.py measure FILE.csv [--requests 1,2] [--share 0.1] [--methods ft,lethe] [--rates 1,2,4,8] [KEYS]
    python bench/choosing.py FILE.csv ...

For each request (data.seed) `measure` trains an original and retrained models, runs settings of `ft` and `lethe` at a share of the cost of
retraining by two seeds, and appends a row for each with what a search measures of it and its avg_gap.svc. KEYS are those of every command;
without any, the requests are those of results/leaderboard/digits. The second form prints the mean avg_gap.svc of each rule's choices, by
the seed that was chosen with and by the other one, and how far they are from the best choice.
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import Module

from lethe.config.loader import load
from lethe.data.splits import SPLITS
from lethe.engine import engine
from lethe.engine.epoch_table import MEASURED
from lethe.engine.options import RunOptions
from lethe.evaluation import inference
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.measures import avg_gap_svc
from lethe.evaluation.uncertainty import margin_of_error
from lethe.pipeline.cost import planned_share
from lethe.recipes.recipe import Recipe
from lethe.search.objectives import OBJECTIVES, evaluator, expected_gap, is_ruined, sizes
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared

# Multiples of the configured values
RATES = {"ft": (0.4, 1, 2, 4), "lethe": (0.5, 1, 2, 4)}
WEIGHTS = {"ft": (1,), "lethe": (0.25, 0.5, 1, 2)}
REFERENCES, SEEDS = 3, (0, 1)
OBJECTIVE = OBJECTIVES["oracle_free"]
WORDS = {"request", "method", "setting"}
DIGITS = ["--config", "results/leaderboard/digits/settings.yaml"]

Row = Mapping[str, Any]
Rule = Callable[[Sequence[Row]], Row]


def run(prepared: Prepared, recipe: Recipe, network: Module, seed: int) -> LogitsTable:
    for _ in engine.run(recipe, network, prepared.data, RunOptions(seed=seed, fresh_init=prepared.fresh_network(seed))):
        pass
    ids = prepared.images.ids
    split = np.zeros(len(ids), np.uint8)
    for number, name in enumerate(SPLITS):
        split[prepared.splits[name]] = number
    logits_NC = inference.logits(network, prepared.data, torch.arange(len(ids))).numpy()
    return LogitsTable("run", tuple(ids), prepared.images.labels.astype(np.int64), split, logits_NC)


def request(number: int, share: float, methods: Sequence[str], rates: Sequence[float], words: Sequence[str]) -> list[dict[str, Any]]:
    """Run all settings for a request."""
    config = load([*words, "--data.seed", str(number), "--run.workspace", f"choosing/{number}", "--run.threads", "1"])
    prepared = prepare(config)
    network = prepared.untrained(0)
    original = run(prepared, prepared.reference_recipe("original"), network, 0)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    again = prepared.reference_recipe("retrained")
    references = [run(prepared, again, prepared.untrained(seed), seed) for seed in range(1, 1 + REFERENCES)]
    rows = []
    for method in methods:
        own = replace(config, method=method)
        stated = own.methods[method].model_dump()
        own = own.changed({"retain_epochs": round(stated["retain_epochs"] * share / planned_share(own), 3)})
        selection = prepared.data.for_selection(own.recipe())
        measure = evaluator(selection, MEASURED, prepared.compute.autocast, intervals=True)
        network.load_state_dict(start)
        before = measure(network, selection)
        for rate in rates or RATES[method]:
            for weight in WEIGHTS[method]:
                changed = {"lr": stated["lr"] * rate} | ({"weight": stated["weight"] * weight} if "weight" in stated else {})
                for seed in SEEDS:
                    network = prepared.network(seed)
                    network.load_state_dict(start)
                    model = run(prepared, own.changed(changed).recipe(), network, seed)
                    context = EvaluationContext(model, references, original, resample=False)
                    row = {"request": f"{config.data.source} {number}", "method": method, "setting": str(changed), "seed": seed}
                    row |= {"share": share, "avg_gap.svc": round(avg_gap_svc(context).value, 4)} | dict(measure(network, selection))
                    row |= {f"original.{name}": value for name, value in before.items()}
                    row |= {f"images.{name}": value for name, value in sizes(selection).items()}
                    for split in (*MEASURED, "test"):
                        row[f"retrained.{split}"] = float(np.mean([100 * each.correct[each.rows(split)].mean() for each in references]))
                    row["test.accuracy"] = 100 * model.correct[model.rows("test")].mean()
                    rows.append(row)
                    print(number, method, changed, seed, f"{row['avg_gap.svc']:.2f}", flush=True)
    return rows


def _original(row: Row) -> dict[str, float]:
    return {name.removeprefix("original."): value for name, value in row.items() if name.startswith("original.")}


def _images(row: Row) -> dict[str, int]:
    return {name.removeprefix("images."): int(value) for name, value in row.items() if name.startswith("images.")}


def _by_chance(row: Row) -> float:
    """Distance of the AUC from chance, in standard errors."""
    return float(abs(row["forget.auc"] - 0.5) / ((row["forget.auc.high"] - row["forget.auc.low"]) / 3.92))


def _accuracies(row: Row) -> float:
    """Distance of forget accuracy from that of unseen images, in standard errors."""
    images, unseen = _images(row), row["unseen.accuracy"]
    error = margin_of_error((row["forget.accuracy"], images["forget"]), (unseen, images["validation"])) / 1.96
    return float(abs(row["forget.accuracy"] - unseen) / error)


def _gap(row: Row) -> float:
    return expected_gap(row, _original(row))


def search(tried: Sequence[Row]) -> Row:
    """The rule of a search."""
    return min(tried, key=lambda row: OBJECTIVE.rank(row, {}, _images(row), _original(row)))


def useful(distances: Sequence[Callable[[Row], float]], limit: float = 1.96) -> Rule:
    """The most useful of those within a limit of all distances; where there is none, the nearest."""

    def key(row: Row) -> tuple[float, ...]:
        far = max(distance(row) for distance in distances)
        return (
            is_ruined(row, _original(row), _images(row)),
            far > limit,
            *((-row["utility"],) if far <= limit else (far, -row["utility"])),
        )

    return lambda tried: min(tried, key=key)


def least(distance: Callable[[Row], float]) -> Rule:
    return lambda tried: min(tried, key=lambda row: (is_ruined(row, _original(row), _images(row)), distance(row)))


RULES: dict[str, Rule] = {
    "with retrained models in view": lambda tried: min(tried, key=lambda row: float(row["avg_gap.svc"])),
    "a search": search,
    "AUC within chance, the most useful": useful([_by_chance]),
    "AUC and accuracy within chance, the most useful": useful([_by_chance, _accuracies]),
    "AUC within a standard error, the most useful": useful([_by_chance], 1.0),
    "AUC nearest to chance": least(_by_chance),
    "least expected gap": least(_gap),
}


def compare(files: Sequence[str]) -> None:
    """Print a table of the rules."""
    groups: dict[tuple[Any, ...], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        for read in csv.DictReader(Path(file).read_text().splitlines()):
            row = {name: value if name in WORDS else float(value) for name, value in read.items()}
            groups[read["request"], read["method"], row["share"]][int(row["seed"])].append(row)
    for method in dict.fromkeys(method for _, method, _ in groups):
        of_method = [by_seed for (_, own, _), by_seed in groups.items() if own == method]
        every = [(row["avg_gap.svc"], _gap(row)) for by_seed in of_method for rows in by_seed.values() for row in rows]
        print(
            f"{method}: {len(of_method)} requests; rank correlation of expected and real gap {spearmanr(*zip(*every, strict=True))[0]:.2f}"
        )
        for name, rule in RULES.items():
            own, other = [], []
            for by_seed in of_method:
                for seed, tried in by_seed.items():
                    best = rule(tried)
                    own.append(best["avg_gap.svc"])
                    others = [row for at, rows in by_seed.items() if at != seed for row in rows]
                    other += [row["avg_gap.svc"] for row in others if row["setting"] == best["setting"]]
            print(f"  {name:<48} {np.mean(own):6.2f} {np.mean(other):6.2f}")


def main() -> None:
    if sys.argv[1:2] != ["measure"]:
        return compare(sys.argv[1:])
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--requests", default="1,2")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--methods", default="ft,lethe")
    parser.add_argument("--rates", default="", help="multiples of the configured learning rates; default: RATES")
    asked, words = parser.parse_known_args(sys.argv[2:])
    rates = [float(rate) for rate in asked.rates.split(",") if rate]
    for number in asked.requests.split(","):
        rows = request(int(number), asked.share, asked.methods.split(","), rates, words or DIGITS)
        new = not asked.file.exists()
        with asked.file.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            if new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
