"""The epoch table: one row per epoch, in the run's CSV file and as metrics in MLflow."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lethe._util import manifest
from lethe.engine.engine import Epoch

TIMES = ("epoch_seconds", "epoch_flops", "images_per_second", "evaluate_seconds", "at")
MEASURED = ("retain", "forget", "validation")


def epoch_row(epoch: Epoch) -> dict[str, Any]:
    """The row of an epoch: `step` counts over all phases, metrics are named `<split>.<measure>`."""
    row: dict[str, Any] = {"step": epoch.global_epoch, "phase": epoch.phase, "epoch": epoch.epoch, "t": epoch.progress}
    row |= {"learning_rate": epoch.learning_rate, "scale": epoch.scale}
    row |= {name: epoch.metrics.get(name) for split in MEASURED for name in (f"{split}.accuracy", f"{split}.loss")}
    row |= {"gap": epoch.metrics.get("gap")}
    row |= {f"{stream}.training_loss": epoch.losses.get(stream) for stream in ("retain", "forget")}
    if "train" in epoch.losses:
        row["train.training_loss"] = epoch.losses["train"]
    return row


def durations(epoch: Epoch) -> dict[str, float]:
    """Seconds, throughput and counted work of an epoch. They go to MLflow and to no file that DVC hashes: seconds depend on the machine."""
    measured = {"evaluate_seconds": epoch.evaluate_seconds}
    if epoch.seconds:
        measured["epoch_seconds"] = epoch.seconds
    if epoch.steps:
        measured["images_per_second"] = epoch.images / epoch.seconds if epoch.seconds else 0.0
    return measured | ({} if epoch.flops is None else {"epoch_flops": float(epoch.flops)})


def row_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in a row: all numbers except those that identify the epoch."""
    return {k: v for k, v in row.items() if isinstance(v, int | float) and k not in ("step", "epoch", "t", "at")}


def to_csv(history: Iterable[Mapping[str, Any]]) -> str:
    """The epoch table as CSV, one row per epoch from step 0 on; without times, so that equal runs give equal files."""
    import pandas as pd

    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in history]
    return pd.DataFrame(rows).dropna(axis="columns", how="all").to_csv(index=False)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of an epoch table, empty cells left out.

    Raises:
        UserError: it is not as it was written, or no table; names it.
    """
    import pandas as pd

    manifest.check(path)
    try:
        rows = [{str(name): value for name, value in row.items()} for row in pd.read_csv(path).to_dict("records")]
    except ValueError as error:  # of pandas' parser, and of bytes that are no text
        raise manifest.unreadable(path, f"can't be read as an epoch table: {' '.join(str(error).split())}") from None
    if not rows or any(not isinstance(row.get("step"), int) for row in rows):
        raise manifest.unreadable(path, "is no epoch table: it takes a column step with the number of each epoch")
    return [{k: v for k, v in row.items() if not pd.isna(v)} for row in rows]
