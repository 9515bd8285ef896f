"""What watches a run: pipes over the epochs that the engine yields, and the resume state they keep."""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from lethe.data.device_data import Data
from lethe.engine.engine import Epoch, State
from lethe.models import checkpoint
from lethe.recipes.recipe import Phase, Recipe

TIMES = ("epoch_seconds", "images_per_second", "evaluate_seconds", "at")
MEASURED = ("retain", "forget", "validation")


def flat(epoch: Epoch) -> dict[str, Any]:
    """One row, in the words of interface: `step` counts over all phases, metrics are `<split>.<measure>`."""
    row: dict[str, Any] = {"step": epoch.number, "phase": epoch.phase, "epoch": epoch.epoch, "t": epoch.t}
    row |= {"learning_rate": epoch.learning_rate, "scale": epoch.scale}
    row |= {name: epoch.metrics.get(name) for split in MEASURED for name in (f"{split}.accuracy", f"{split}.loss")}
    row |= {"gap": epoch.metrics.get("gap")}
    row |= {f"{stream}.training_loss": epoch.losses.get(stream) for stream in ("retain", "forget")}
    if "train" in epoch.losses:
        row["train.training_loss"] = epoch.losses["train"]
    return row


def timing(epoch: Epoch) -> dict[str, float]:
    """What depends on the machine, and so stands in MLflow alone and in no file that DVC hashes."""
    if not epoch.steps:
        return {"evaluate_seconds": epoch.evaluate_seconds}
    return {
        "epoch_seconds": epoch.seconds,
        "images_per_second": epoch.images / epoch.seconds if epoch.seconds else 0.0,
        "evaluate_seconds": epoch.evaluate_seconds,
    }


def metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that are metrics (the rest names the epoch)."""
    return {k: v for k, v in row.items() if isinstance(v, int | float) and k not in ("step", "epoch", "t", "at")}


def csv(history: Iterable[Mapping[str, Any]]) -> str:
    """The epoch table: one row an epoch, step 0 first; no times, so that equal runs give equal files."""
    import pandas as pd

    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in history]
    return pd.DataFrame(rows).dropna(axis="columns", how="all").to_csv(index=False)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of an epoch table, blanks left out."""
    import pandas as pd

    return [{k: v for k, v in row.items() if not pd.isna(v)} for row in pd.read_csv(path).to_dict("records")]  # type: ignore[misc]


@dataclass
class Resume:
    """The resume state of one run: a safetensors file with the tensors, and all else in its metadata."""

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, Any] | None = None
    saved: int | None = None  # number of the epoch that the file holds

    @property
    def path(self) -> Path:
        return self.folder / "state.safetensors"

    def load(self, device: torch.device) -> State | None:
        """Where an earlier run of the same name stopped, or None. Restores the number of threads it ran with."""
        if not self.path.exists():
            return None
        tensors, said = checkpoint.load(self.path, str(device))
        known = json.loads(said["state"])
        self.history, self.row = known.pop("history"), known.pop("row")
        if device.type == "cpu":
            torch.set_num_threads(known["threads"])
        known.pop("threads")
        state = State(pending=tensors, **known)
        self.saved = state.number
        return state

    def save(self, state: State, model: Module) -> None:
        known = {
            "step": state.step,
            "epoch": state.epoch,
            "number": state.number,
            "passes": dict(state.passes),
            "optimizer_step": state.optimizer_step,
            "best_value": state.best_value,
            "history": self.history,
            "row": self.row,
            "threads": torch.get_num_threads(),
        }
        checkpoint.save(state.tensors(model), self.path, {"state": json.dumps(known)})
        self.saved = state.number

    def done(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def kept(epochs: Iterable[Epoch], resume: Resume, state: State, model: Module) -> Iterator[Epoch]:
    """Writes the resume state behind every epoch, before anything else hears of it."""
    for epoch in epochs:
        resume.history.append(flat(epoch) | timing(epoch) | {"at": int(time.time() * 1000)})
        resume.save(state, model)
        yield epoch


def progress(epochs: Iterable[Epoch], recipe: Recipe, data: Data, label: str) -> Iterator[Epoch]:
    """A bar with the time left on a terminal, one plain line an epoch when piped; both on stderr."""
    total = [steps(phase, e, data) for phase in recipe if isinstance(phase, Phase) for e in range(phase.epochs)]
    watch = _Bar(len(total), label) if sys.stderr.isatty() else _Lines()
    seconds = done = evaluating = 0.0
    with watch:
        for epoch in epochs:
            if epoch.steps:
                seconds, done = seconds + epoch.seconds, done + epoch.steps
                evaluating = epoch.evaluate_seconds or evaluating
            todo = total[epoch.number :]
            left = sum(todo) * seconds / done + evaluating * len(todo) if done else None
            watch.show(epoch, len(total), left)
            yield epoch


def steps(phase: Phase, epoch: int, data: Data) -> int:
    """Optimizer steps in an epoch of a phase, on this data."""
    return len(phase.word({letter: data.length(stream, phase.batch_size) for letter, stream in phase.streams.items()}, epoch))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(100_000)
    '27:46:40'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


HEAD = f"{'phase':<10} {'epoch':>7} {'retain':>7} {'forget':>7} {'val':>7} {'gap':>7} {'scale':>7} {'img/s':>7} {'left':>8}"


def line(epoch: Epoch, epochs: int, left: float | None) -> str:
    def cell(value: float | None, form: str = "7.2f") -> str:
        return f"{value:{form}}" if value is not None else " " * int(form.split(".")[0])

    measured = [cell(epoch.metrics.get(f"{split}.accuracy")) for split in MEASURED]
    rate = epoch.images / epoch.seconds if epoch.steps and epoch.seconds else None
    time_left = clock(left) if left is not None else ""
    numbers = [*measured, cell(epoch.metrics.get("gap")), cell(epoch.scale, "7.3f"), cell(rate, "7.0f")]
    return " ".join([f"{epoch.phase:<10}", f"{epoch.number}/{epochs}".rjust(7), *numbers, time_left.rjust(8)])


class _Lines:
    """One line an epoch, to be read in a log after hours."""

    def __enter__(self) -> "_Lines":
        print(HEAD, file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        print(line(epoch, epochs, left), file=sys.stderr, flush=True)


class _Bar:
    """The lines, with a bar below them."""

    def __init__(self, epochs: int, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True, highlight=False))
        self.task = self.bar.add_task(label, total=epochs, left="")

    def __enter__(self) -> "_Bar":
        self.bar.start()
        self.bar.console.print(HEAD)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        self.bar.console.print(line(epoch, epochs, left))
        text = f"left {clock(left)}" if left is not None else ""
        self.bar.update(self.task, completed=epoch.number, left=text)
