"""Check whether a change alters what is computed: the ten methods, a few epochs on digits, at two commits.

    python bench/compare.py <commit> [<other commit>]     (make compare A=<commit>)

Without another commit the second side is the working tree. Both read the first side's params.yaml, and a newer one is told to train for as
many epochs as it says (`pretrain.min_steps` 0), so that what differs is computed differently and not set differently. Each side trains its
own original and retrained model first. Epoch tables, then weights, are compared to the last digit. Exit code 0 if all is identical, 1 if
something differs.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
RUNS = """
import os, sys
from pathlib import Path
sys.path.insert(0, "src")
if os.path.isdir("src/lethe"):  # asked of the folder: the environment may have a lethe installed that is another commit's
    from lethe.config.loader import load
    from lethe.pipeline.unlearn import unlearn
else:  # a commit before the package was called lethe
    from unlearning.config import load
    from unlearning.unlearn import unlearn
demo = load([], overlay="demo", params=Path(sys.argv[2]))
methods = [method for method, like in demo.like.items() if method == like != "as_run"]
for method in methods:
    keys = {"method": method, "run.workspace": sys.argv[1], "run.evaluate": "false", "run.log_model": "none"}
    few = {"epochs": 3, "final_epochs": 1, "repair_every": 2, "batch_size": 16, "lr": 0.01}
    keys |= {f"methods.{method}.{key}": str(value) for key, value in few.items() if hasattr(demo.methods[method], key)}
    keys |= {"pretrain.min_steps": "0"} if hasattr(demo.pretrain, "min_steps") else {}
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    unlearn(load(words, overlay="demo", params=Path(sys.argv[2])))
"""


@contextlib.contextmanager
def tree(commit: str | None) -> Iterator[Path]:
    """Give the checkout itself, or a temporary worktree of a commit."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", path, commit], cwd=ROOT, check=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", path], cwd=ROOT, check=True)


def run_side(commit: str | None, workspace: Path, params: Path) -> None:
    """Run all methods of one side, in one process with that side's code; the first side's params.yaml is kept for the second."""
    print(f"running {commit or 'the working tree'}", file=sys.stderr)
    with tree(commit) as path:
        if not params.exists():
            shutil.copyfile(path / "params.yaml", params)
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DVC_ROOT")}
        env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace}/mlflow.db", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", RUNS, workspace, params], cwd=path, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {commit or 'the working tree'} does not run: {done.stderr.strip().splitlines()[-1]}")


def difference(one: Path, other: Path, name: str) -> str | None:
    """Describe the first number of a run that differs; None if there is none."""
    tables = [pd.read_csv(side / "epochs" / f"{name}.csv") for side in (one, other)]
    if list(tables[0].columns) != list(tables[1].columns):
        return f"different columns: {sorted(set(tables[0].columns) ^ set(tables[1].columns))}"
    for (step, a), (_, b) in zip(tables[0].iterrows(), tables[1].iterrows(), strict=False):
        for metric in a.index:
            if a[metric] != b[metric] and not (pd.isna(a[metric]) and pd.isna(b[metric])):
                return f"epoch {step}, {metric}: {a[metric]} and {b[metric]}"
    if len(tables[0]) != len(tables[1]):
        return f"{len(tables[0]) - 1} and {len(tables[1]) - 1} epochs"
    weights = [load_file(side / "models" / f"{name}.safetensors") for side in (one, other)]
    for tensor in sorted(set(weights[0]) | set(weights[1])):
        if tensor not in weights[0] or tensor not in weights[1] or weights[0][tensor].tobytes() != weights[1][tensor].tobytes():
            return f"weights, {tensor}"
    return None


def main() -> int:
    commits = [*sys.argv[1:], None][:2]
    if not commits[0] or commits[0].startswith("-"):
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder) / name for name in ("one", "other")]
        for commit, side in zip(commits, sides, strict=True):
            side.mkdir()
            run_side(commit, side, Path(folder) / "params.yaml")
        names = [path.stem for path in sorted((sides[0] / "epochs").glob("*.csv"))]
        differences = {name: difference(*sides, name) for name in names if (sides[1] / "epochs" / f"{name}.csv").exists()}
    for name, text in differences.items():
        if text:
            print(f"{name}: {text}")
    if not any(differences.values()):
        print(f"identical, {len(set(differences) - {'original', 'retrained'})} methods")
    return int(any(differences.values()))


if __name__ == "__main__":
    sys.exit(main())
