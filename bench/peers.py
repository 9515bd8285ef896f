"""Compare with public packages, at their pinned versions, on the same images, network and optimizer steps; each in a process of its own.

    python bench/peers.py [--repeats 5] [--write results/peers.json] -- --data.source image_folder --data.root FOLDER [any key ...]

Every row fine-tunes the same original for one pass over retain, by SGD in batches of 128, then measures the result with what the package
has. Images come from memory in every row, read from the workspace, so that no row decodes files. The packages are installed with their own
requirements, but for torch, into temporary folders, by pip or uv as they are configured. Rows run by turns, on one thread; seconds are
processor time since the process began, with its imports. A package that can't be installed, or does not run, has a row that says so."""

import argparse
import importlib
import json
import os
import platform
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "src"))  # last: a package called unlearn is not src/unlearn.py
BATCH, RATE, MOMENTUM, DECAY = 128, 0.001, 0.9, 0.0005
SPLITS = ("retain", "forget", "validation", "test")


@dataclass(frozen=True)
class Row:
    """A way to unlearn.

    Attributes:
        packages: pinned requirements, without torch and what Lethe needs as well.
        steps: what trains.
        measures: what its result has.
    """

    packages: tuple[str, ...]
    steps: str
    measures: str


ROWS = {
    "lethe": Row(
        (), "python src/unlearn.py --method model_1, where original and retrained model exist", "every measure, verdict, MLflow run"
    ),
    "lethe-fresh": Row(
        (), "the same in a workspace that does not exist yet, from given checkpoints", "the same, and the scores of both references"
    ),
    "loop": Row((), "a plain loop over a DataLoader", "accuracies, area under the curve of an attack by loss"),
    "lightning": Row(
        ("pytorch-lightning==2.6.6", "torchmetrics==1.9.0", "lightning-utilities==0.15.2"),
        "Trainer.fit",
        "accuracies by Trainer.validate",
    ),
    "erasus": Row(
        ("erasus==0.2.0",),
        "GradientAscentStrategy, given retain alone, which it descends; without momentum",
        "accuracies by a plain loop, MIAMetric",
    ),
    "unlearn-lib": Row(
        ("unlearn-lib==0.1.0", "xgboost==3.0.5"),
        "Finetune; its calls of .cuda() are made to do nothing",
        "accuracies by validate, get_SVC_MIA",
    ),
    "torchunlearn": Row(
        ("torchunlearn==0.1.0",), "a Trainer, whose loss the caller writes: the wheel has no method", "accuracies by get_accuracy"
    ),
}


OURS = ("lethe", "lethe-fresh")
GIVEN = ("--pretrain.checkpoint", "--retrain.checkpoint")  # without which a fresh workspace would take two trainings


class Marks:
    """Processor seconds since the process began, at each optimizer step and at the result; at each step also those of its thread alone,
    without what Lethe's sender of records does meanwhile, which begins by importing MLflow."""

    def __init__(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self.first: float | None = None
        self.after: list[float] = []
        self.of_thread: list[float] = []
        register_optimizer_step_pre_hook(self._before)
        register_optimizer_step_post_hook(self._after)

    def _before(self, *_: Any) -> None:
        self.first = self.first or time.process_time()

    def _after(self, *_: Any) -> None:
        self.after.append(time.process_time())
        self.of_thread.append(time.thread_time())

    def told(self, result: float) -> dict[str, Any]:
        """What a row reports."""
        import torch

        peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        images = BATCH * (len(self.after) - 1)
        return {
            "steps": len(self.after),
            "to_first_step": self.first,
            "images_per_second": images / (self.of_thread[-1] - self.of_thread[0]),
            "images_per_second_of_process": images / (self.after[-1] - self.after[0]),
            "to_result": result,
            "peak_gib": peak / 2**20,
            "threads": torch.get_num_threads(),
        }


# --- the rows, each in its own process ----------------------------------------------------------------------------------


def _setting(workspace: Path) -> tuple[Any, dict[str, Any]]:
    """The original, and a DataLoader by split: normalised float32 images in memory."""
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader, TensorDataset
    from torchvision.models import resnet18

    from lethe.data import splits
    from lethe.data.images import load_images

    images, _ = load_images(workspace / "data" / "images.safetensors")
    drawn = splits.read(workspace / "data" / "splits", images)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    loaders = {}
    for name in SPLITS:
        rows = drawn[name]
        pixels = (images.pixels[rows].astype(np.float32) / 255 - mean) / std
        pairs = TensorDataset(torch.from_numpy(pixels), torch.from_numpy(images.labels[rows]))
        loaders[name] = DataLoader(pairs, BATCH, shuffle=name == "retain", drop_last=name == "retain")
    model = resnet18(num_classes=len(images.classes))
    model.load_state_dict(load_file(workspace / "models" / "original.safetensors"))
    return model, loaders


def _sgd(model: Any) -> Any:
    import torch

    return torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)


def _accuracies(model: Any, loaders: Mapping[str, Any]) -> dict[str, float]:
    import torch

    model.eval()
    with torch.no_grad():
        return {
            name: 100 * statistics.fmean(float(hit) for images, labels in loader for hit in model(images).argmax(1) == labels)
            for name, loader in loaders.items()
        }


def loop(workspace: Path) -> dict[str, Any]:
    import torch
    from sklearn.metrics import roc_auc_score
    from torch.nn.functional import cross_entropy

    model, loaders = _setting(workspace)
    optimizer = _sgd(model)
    model.train()
    for images, labels in loaders["retain"]:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    accuracies = _accuracies(model, loaders)
    with torch.no_grad():
        losses = {name: torch.cat([cross_entropy(model(x), y, reduction="none") for x, y in loaders[name]]) for name in ("forget", "test")}
    member = [1] * len(losses["forget"]) + [0] * len(losses["test"])
    return accuracies | {"auc": float(roc_auc_score(member, -torch.cat([losses["forget"], losses["test"]]).numpy()))}


def lightning(workspace: Path) -> dict[str, Any]:
    import pytorch_lightning as pl
    from torch.nn.functional import cross_entropy

    model, loaders = _setting(workspace)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, at: int) -> Any:
            return cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, at: int, dataloader_idx: int = 0) -> None:
            self.log("accuracy", 100 * (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> Any:
            return _sgd(self.model)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    module = Module()
    trainer.fit(module, loaders["retain"])
    found = trainer.validate(module, [loaders[name] for name in SPLITS], verbose=False)
    return {name: next(iter(one.values())) for name, one in zip(SPLITS, found, strict=True)}


def erasus(workspace: Path) -> dict[str, Any]:
    from erasus.metrics.forgetting.mia import MIAMetric
    from erasus.strategies.gradient_methods.gradient_ascent import GradientAscentStrategy

    model, loaders = _setting(workspace)
    strategy = GradientAscentStrategy(lr=RATE, weight_decay=DECAY)
    model, _, _ = strategy.unlearn(model, [], loaders["retain"], epochs=1)
    return _accuracies(model, loaders) | MIAMetric().compute(model, loaders["forget"], loaders["test"])


def unlearn_lib(workspace: Path) -> dict[str, Any]:
    import torch

    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[assignment,method-assign]
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[assignment,method-assign]
    from types import SimpleNamespace

    from unlearn.evaluation.svc_mia import get_SVC_MIA
    from unlearn.trainer import validate
    from unlearn.unlearn import create_unlearn_method

    model, loaders = _setting(workspace)
    loss = torch.nn.CrossEntropyLoss()
    method = create_unlearn_method("Finetune")(model, loss, "", SimpleNamespace(num_classes=model.fc.out_features, seed=0))
    method.epochs, method.lr, method.eval = 1, RATE, False
    names = {"retain_train": "retain", "forget_train": "forget", "retain_valid": "validation", "forget_valid": "test"}
    method.prepare_unlearn({own: loaders[name] for own, name in names.items()})
    model = method.get_unlearned_model()
    found = {name: float(validate(loaders[name], model, loss)["top1"]) for name in SPLITS}
    return found | {
        name: float(value) for name, value in get_SVC_MIA(loaders["retain"], loaders["test"], None, loaders["forget"], model).items()
    }


def torchunlearn(workspace: Path) -> dict[str, Any]:
    from torch.nn.functional import cross_entropy
    from torchunlearn import RobModel
    from torchunlearn.unlearn.trainer import Trainer
    from torchunlearn.utils import get_accuracy

    model, loaders = _setting(workspace)

    class FineTuning(Trainer):
        def calculate_cost(self, batch: Any) -> Any:
            return cross_entropy(self.rmodel(batch[0]), batch[1])

    wrapped = RobModel(model, model.fc.out_features)
    trainer = FineTuning(wrapped)
    trainer.record_during_eval = Trainer.record_during_eval.__get__(trainer)
    trainer.setup(optimizer=_sgd(wrapped), n_epochs=1)
    trainer.fit(loaders["retain"], n_epochs=1, record_type=None, save_type=None)
    wrapped.eval()
    return {name: float(get_accuracy(wrapped, loader)) for name, loader in loaders.items()}


class Table:
    """Standard output that notes when the table of results begins."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.at = out, None

    def write(self, text: str) -> int:
        if text.startswith("percent") and self.at is None:
            self.at = time.process_time()
        return self.out.write(text)

    def flush(self) -> None:
        self.out.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)


def run_row(name: str, workspace: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Run a row in this process."""
    import torch

    torch.set_num_threads(1)
    marks = Marks()
    if name in OURS:
        sys.argv = [str(ROOT / "src" / "unlearn.py"), *keys]
        table = sys.stdout = Table(sys.stdout)  # type: ignore[assignment]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"the command ended with {end.code}") from None
        assert table.at is not None
        return marks.told(table.at) | {"to_end": time.process_time()}
    found = FUNCTIONS[name](workspace)
    return marks.told(time.process_time()) | {"found": {key: float(value) for key, value in found.items()}}


FUNCTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "loop": loop,
    "lightning": lightning,
    "erasus": erasus,
    "unlearn-lib": unlearn_lib,
    "torchunlearn": torchunlearn,
}


# --- all rows -----------------------------------------------------------------------------------------------------------


def install(row: Row, folder: Path) -> str:
    """Install a row's packages into a folder; the reason where that fails."""
    if not row.packages:
        return ""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    start = (
        [uv, "pip", "install", "-q", "--system-certs", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install", "-q"]
    )
    done = subprocess.run([*start, "--no-deps", "--target", str(folder), *row.packages], capture_output=True, text=True, check=False)
    return " ".join(done.stderr.split())[-200:] if done.returncode else ""


@contextmanager
def standing(keys: Sequence[str], folder: Path) -> Iterator[Path]:
    """A workspace with original and retrained model, and without the method's files."""
    workspace = folder / "workspace"
    command = [sys.executable, str(ROOT / "src" / "unlearn.py"), *keys, "--run.workspace", str(workspace)]
    subprocess.run(command, env=_environment(folder), check=True, stdout=subprocess.DEVNULL)
    yield workspace


def _environment(folder: Path, packages: Path | None = None) -> dict[str, str]:
    path = os.pathsep.join(map(str, (*((packages,) if packages else ()), ROOT / "src")))
    tracking = f"sqlite:///{folder}/mlflow.db"  # not your runs
    return {**os.environ, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}


def compare(names: Sequence[str], keys: Sequence[str], repeats: int) -> dict[str, Any]:
    """Run the rows by turns.

    Args:
        names: of the rows.
        keys: of the configuration.
        repeats: runs of each row.

    Returns:
        The sizes of the splits, and by row what it is, its runs, or why there are none.
    """
    from lethe.data import splits

    keys = [*keys, "--method", "model_1", "--methods.model_1.epochs", "1", "--methods.model_1.batch_size", str(BATCH), "--run.threads", "1"]
    found: dict[str, Any] = {name: {"steps_by": ROWS[name].steps, "measures": ROWS[name].measures, "runs": []} for name in names}
    with tempfile.TemporaryDirectory() as name, standing(keys, Path(name)) as workspace:
        folder = Path(name)
        for row in names:
            if reason := install(ROWS[row], folder / row):
                found[row]["missing"] = f"it can't be installed: {reason}"
            elif row == "lethe-fresh" and not {*GIVEN} <= {*keys}:
                found[row]["missing"] = f"it takes {' and '.join(GIVEN)}"
        for _ in range(repeats):
            for row in names:
                if "missing" in found[row]:
                    continue
                for kind in ("models", "epochs", "logits", "scores"):
                    for path in (workspace / kind).glob("model_1.*"):
                        path.unlink()
                here = folder / "fresh" if row == "lethe-fresh" else workspace
                shutil.rmtree(folder / "fresh", ignore_errors=True)
                told = folder / "told.json"
                told.unlink(missing_ok=True)
                own = ["--row", row, "--workspace", str(workspace), "--told", str(told)]
                command = [sys.executable, str(Path(__file__)), *own, "--", *keys, "--run.workspace", str(here)]
                done = subprocess.run(command, env=_environment(folder, folder / row), capture_output=True, text=True, check=False)
                if done.returncode or not told.exists():
                    found[row]["missing"] = f"it does not run: {' '.join(done.stderr.split())[-300:]}"
                else:
                    found[row]["runs"].append(json.loads(told.read_text()))
                print(row, found[row].get("missing") or found[row]["runs"][-1], file=sys.stderr, flush=True)
        sizes = {split: splits.count(workspace / "data" / "splits", split) for split in SPLITS}
    return {"images": sizes, "batch_size": BATCH, "rows": found}


def table(found: Mapping[str, Any]) -> str:
    """The medians as a table in Markdown."""
    numbers = {
        "images/s": "images_per_second",
        "to the first step, s": "to_first_step",
        "to a result, s": "to_result",
        "peak, GiB": "peak_gib",
    }
    lines = [f"| | {' | '.join(numbers)} | steps by | result |", f"|---|{'---|' * (len(numbers) + 2)}"]
    for name, row in found.items():
        what = f"{', '.join(ROWS[name].packages[:1]).replace('==', ' ') or name}"
        if row["runs"]:
            middle = [statistics.median(run[key] for run in row["runs"]) for key in numbers.values()]
            cells = [f"{value:.0f}" if value >= 100 else f"{value:.2f}" for value in middle]
        else:
            cells = [row["missing"], *[""] * (len(numbers) - 1)]
        lines.append(f"| {what} | {' | '.join(cells)} | {row['steps_by']} | {row['measures']} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line; run all rows, or one of them in this process."""
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--told", type=Path, help=argparse.SUPPRESS)
    asked, keys = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    if asked.row:
        asked.told.write_text(json.dumps(run_row(asked.row, asked.workspace, keys)))
        return
    found = compare(asked.rows, keys, asked.repeats)
    torch = importlib.import_module("torch")
    machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    print(table(found["rows"]))
    if asked.write:
        asked.write.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
