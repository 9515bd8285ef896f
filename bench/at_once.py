"""Measure whether training several small models as one stacked network is faster than one after another. In one process, on one thread.

    python bench/at_once.py [--models 1 8 16 64] [--repeats 5] [--epochs 3] [--architecture convnet]

A few epochs of the demo's retraining on digits, the engine's steps only. CPU time, so that other load on the machine matters little; the
two ways alternate, and a line is the median over the repeats."""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch

from lethe.config import loader as config
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.engine.stacked_models import Stack, stacked
from lethe.recipes.recipe import Phase
from lethe.workspace.prepare import prepare

MOST = 8  # models that are trained one after another; more would add no information


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--architecture", default="convnet")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        said = ["--run.workspace", folder, "--run.device", "cpu", "--model.architecture", asked.architecture]
        prepared = prepare(config.load(said, overlay="demo"))
    recipe = tuple(replace(step, epochs=asked.epochs) for step in prepared.config.reference_recipe("retrained") if isinstance(step, Phase))

    def alone(models: int) -> None:
        for seed in range(models):
            list(engine.run(recipe, prepared.network(seed), prepared.data, RunOptions(seed=seed)))

    def together(models: int) -> None:
        seeds = tuple(range(models))
        list(engine.run(recipe, stacked([prepared.network(seed) for seed in seeds]), prepared.data, RunOptions(step_inputs=Stack(seeds))))

    steps = sum(step.epochs * prepared.data.length("retain", step.batch_size) for step in recipe)
    print(f"{asked.architecture}, batch {recipe[0].batch_size}, CPU ms a step and model (torch {torch.__version__}, one thread)")
    print(f"{'models':>6} {'one after another':>18} {'at once':>8} {'ratio':>6}")
    for models in asked.models:
        took: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(asked.repeats):
            for name, way, number in (("alone", alone, min(models, MOST)), ("together", together, models)):
                began = time.process_time()
                way(number)
                took[name].append(1000 * (time.process_time() - began) / number / steps)
        one, all_ = (statistics.median(took[name]) for name in ("alone", "together"))
        ratio = statistics.median(a / b for a, b in zip(took["alone"], took["together"], strict=True))
        print(f"{models:6} {one:18.2f} {all_:8.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
