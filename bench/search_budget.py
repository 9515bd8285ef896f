"""Compare Optuna's samplers, random search among them, on digits: the hypervolume of the front after the same number of epochs.

    python bench/search_budget.py [--trials 30] [--seeds 3] [--workspace DIR] [--write]

Budgets count all epochs that ran, including those of pruned and failed trials. --write: results/search_digits.csv. An interrupted search
resumes in the same --workspace. Its MLflow runs go to a store in that folder, not to yours.
"""

import argparse
import contextlib
import csv
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SAMPLERS = ("tpe", "gp", "nsga2", "random")
SHORT = {"epochs.low": "4", "epochs.high": "16", "final_epochs.high": "5"}  # the demo's network learns in 20 epochs
COLUMNS = ("sampler", "seed", "budget_epochs", "trials", "stopped", "hypervolume", "best_unlearning")


def one(sampler: str, seed: int, trials: int, workspace: Path) -> tuple[list[Any], float]:
    """Run one search; return its trials and the original's utility."""
    import optuna

    from lethe.config import loader as config
    from lethe.search.storage import storage_url
    from lethe.search.study import search

    keys = {f"search.spaces.hybrid_4.{key}": value for key, value in SHORT.items()}
    keys |= {"search.sampler": sampler, "search.seed": str(seed), "search.trials": str(trials), "run.workspace": str(workspace)}
    said = config.load([word for key, value in keys.items() for word in (f"--{key}", value)], overlay="demo")
    with contextlib.redirect_stdout(io.StringIO()):
        search(said)
    names = optuna.get_all_study_summaries(storage_url(said))
    (name,) = (s.study_name for s in names if (s.user_attrs["about"]["sampler"], s.user_attrs["about"]["seed"]) == (sampler, seed))
    found = [t for t in optuna.load_study(study_name=name, storage=storage_url(said)).get_trials() if "ran" in t.user_attrs]
    return found[:trials], found[0].user_attrs["curve"][0][3]


def within(trials: list[Any], budget: float) -> list[Any]:
    """Select the trials that had ended after so many epochs."""
    spent, ended = 0, []
    for trial in trials:
        spent += trial.user_attrs["ran"]
        if spent > budget:
            break
        ended.append(trial)
    return ended


def measure(trials: list[Any], original: float) -> tuple[int, int, float, float | None]:
    from lethe.search.pareto import hypervolume

    done = [trial for trial in trials if trial.values]
    good = [trial.values[0] for trial in done if trial.user_attrs["measured"]["utility"] >= original - 1]
    return len(trials), len(trials) - len(done), hypervolume([tuple(trial.values) for trial in done], (0.5, 0.0)), min(good, default=None)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--trials", type=int, default=30)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--workspace", type=Path)
    asked.add_argument("--write", action="store_true")
    said = asked.parse_args()
    workspace = (said.workspace or Path(tempfile.mkdtemp(prefix="search-"))).resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{workspace}/mlflow.db"
    runs = {(sampler, seed): one(sampler, seed, said.trials, workspace) for seed in range(said.seeds) for sampler in SAMPLERS}
    least = min(sum(trial.user_attrs["ran"] for trial in trials) for trials, _ in runs.values())
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(COLUMNS)
    for budget in (least // 4, least // 2, least):
        for (sampler, seed), (trials, original) in runs.items():
            count, stopped, area, best = measure(within(trials, budget), original)
            lines.writerow([sampler, seed, budget, count, stopped, f"{area:.3f}", "" if best is None else f"{best:.4f}"])
    print(table.getvalue(), end="")
    if said.write:
        from lethe._util.files import write_text

        path = Path(__file__).resolve().parents[1] / "results" / "search_digits.csv"
        write_text(path, table.getvalue())
        print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
