"""Kill `erase` at random moments, finish it by the same command, and count how often everything is right then.

    python bench/kills.py [--trials 30] [--seed 0]

Each trial starts from the same workspace: digits, an original, a retrained model, two results, scores, a card with thumbnails, and runs in
MLflow, one of them with a logged model. The moment is uniform over the time that an erasure takes which nobody kills. Right is: the same
command and then --check end with 0, the original has the accepted weights, no image or id of the request is left, scores are as before, the
ledger's chain is whole, and no half-written file lies around.
"""

import argparse
import csv
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import small_workspace

from lethe.cli.main import main as command
from lethe.data.images import load_images
from lethe.models import checkpoint
from lethe.tracking import mlflow_store
from lethe.workspace import ledger

# So that no child has to import it
PRELOADED = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "mlflow.tracking.client")
PRELOADED += (
    "mlflow.store.artifact.artifact_repository_registry",
    "mlflow.store.artifact.local_artifact_repo",
    "alembic.command",
    "imagehash",
)
OWN = ("--run.workspace", "ws")
KEYS = (*small_workspace.KEYS, "--pretrain.crop", "0", "--pretrain.flip", "false", "--run.evaluate_every", "1000")


def child(verb: str, *words: str) -> int:
    """Start a stage in a process of its own, which has everything imported, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(command(verb, [*words, *OWN]))


def ended(pid: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def prepare() -> None:
    for method in ("model_1", "model_4"):
        own = ("--method", method, f"--methods.{method}.epochs", "1", f"--methods.{method}.batch_size", "16")
        logged = "safetensors" if method == "model_4" else "none"
        if code := ended(child("unlearn", *KEYS, *own, "--run.log_model", logged)):
            raise SystemExit(f"unlearn ended with {code}")
    if code := ended(child("report", "card", "--method", "model_1", "--card.thumbnails", "24")):
        raise SystemExit(f"card ended with {code}")


def wrong(accepted: str, erased: Sequence[str], scores: bytes) -> Iterator[str]:
    """What is not as it must be after an erasure."""
    ws = Path("ws")
    if code := ended(child("erase", "--method", "model_1", "--yes")):
        yield f"the same command ended with {code}"
    if code := ended(child("erase", "--check")):
        yield f"--check ended with {code}"
    if checkpoint.weights_hash(checkpoint.load(ws / "models" / "original.safetensors")[0]) != accepted:
        yield "the original does not have the accepted weights"
    if set(load_images(ws / "data" / "images.safetensors")[0].ids) & set(erased):
        yield "an erased image is left"
    if (ws / "scores" / "model_1.json").read_bytes() != scores:
        yield "the scores have changed"
    if ledger.verify(ws / "ledger.jsonl")[2]:
        yield "the ledger's chain is broken"
    if left := [path.name for path in ws.rglob(".*") if path.is_file() and path.name != ".gitignore"]:
        yield f"half-written: {', '.join(left)}"


def moment() -> str:
    """How far the erasure had come when it was killed."""
    ws = Path("ws")
    if not (ws / ".lethe" / "erased.json").exists():
        return "before the journal"
    if '"done"' in (ws / ".lethe" / "erased.json").read_text():
        return "after the end"
    return "on the way"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lethe-kills-"))
    live, saved = folder / "live", folder / "saved"
    live.mkdir()
    mlflow_store.silence()
    for name in PRELOADED:
        importlib.import_module(name)
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{live}/mlflow.db", "DVC_ROOT": str(live)}
    shutil.copy(Path(__file__).parents[1] / "params.yaml", live)
    os.chdir(live)
    prepare()
    shutil.copytree(live, saved)
    accepted = checkpoint.weights_hash(checkpoint.load(live / "ws" / "models" / "model_1.safetensors")[0])
    with (live / "ws" / "data" / "splits" / "forget.csv").open(newline="") as file:
        erased = [row["id"] for row in csv.DictReader(file)]
    scores = (live / "ws" / "scores" / "model_1.json").read_bytes()
    began = time.monotonic()
    if code := ended(child("erase", "--method", "model_1", "--yes")):
        raise SystemExit(f"erase ended with {code}, and nobody killed it")
    takes = time.monotonic() - began
    draw, right, moments = np.random.default_rng(asked.seed), 0, Counter[str]()
    for trial in range(asked.trials):
        os.chdir(folder)
        shutil.rmtree(live)
        shutil.copytree(saved, live)
        os.chdir(live)
        pid = child("erase", "--method", "model_1", "--yes")
        time.sleep(draw.uniform(0, takes))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        moments[moment()] += 1
        faults = list(wrong(accepted, erased, scores))
        right += not faults
        print(f"trial {trial + 1}: {'; '.join(faults) or 'right'}", file=sys.stderr)
    os.chdir(folder.parent)
    shutil.rmtree(folder)
    print(f"{asked.trials} tried, {right} right; killed {', '.join(f'{what} {n}' for what, n in moments.items())}; one takes {takes:.1f} s")


if __name__ == "__main__":
    main()
