"""Time, work and memory of a run. Time and memory depend on the machine, so all of them are stored under the state folder and sent to
MLflow only: no file that DVC hashes holds them, and equal runs are equal files."""

import platform
from typing import Any

import torch

from lethe._util.files import read_json, short, write_json
from lethe.evaluation.context import Cost
from lethe.models import checkpoint
from lethe.models.device import Compute
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId


def reset_peak_memory(compute: Compute) -> None:
    """Let a GPU count its peak memory from now on."""
    if compute.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(compute.device)


def recorded(layout: Layout, name: RunId | str, result: str) -> dict[str, Any]:
    """Return what a run took, where that was recorded for these weights.

    A name says too little: its weights may have been made again on another machine, or a given model may have taken their place.

    Args:
        layout: the workspace.
        name: the run.
        result: hash of its weights, short or not; "": not known.

    Returns:
        As `record_cost` wrote it: result, seconds, flops where they were counted, machine, device, precision. {} where nothing was
        recorded, or for other weights.
    """
    path = layout.clock(name)
    found: dict[str, Any] = read_json(path) if result and path.exists() else {}
    return found if found.get("result") == short(result) else {}


def retraining(layout: Layout) -> dict[str, Any]:
    """Return what the retrained model that exists now took, as `recorded`; {} where a given one stands for it, or none exists.

    Args:
        layout: the workspace.

    Raises:
        UserError: its file is damaged.
    """
    weights, logits = layout.weights("retrained"), layout.logits("retrained")
    if not layout.clock("retrained").exists():  # which is quicker than to read weights
        return {}
    result = checkpoint.model_hash(weights) if weights.exists() else checkpoint.metadata(logits).get("model", "") if logits.exists() else ""
    return recorded(layout, "retrained", result)


def record_cost(
    layout: Layout, compute: Compute, name: str, result: str, seconds: float, flops: float | None, retraining: float | None
) -> Cost:
    """Record the time and the work of a run, and return its cost next to that of retraining.

    Args:
        layout: the workspace.
        compute: device and precision of the run.
        name: the run.
        result: short hash of the weights it made.
        seconds: its optimizer steps and edits took.
        flops: their floating-point operations; None if they were not counted.
        retraining: floating-point operations of retraining; None if they are not known.

    Returns:
        Seconds, work, the work of retraining, and peak memory in bytes (of a GPU).
    """
    cuda = compute.device.type == "cuda"
    device = torch.cuda.get_device_name(compute.device) if cuda else compute.device.type
    where = {"machine": platform.node(), "device": device, "precision": compute.precision}
    write_json(layout.clock(name), where | {"result": result, "seconds": seconds} | ({"flops": flops} if flops is not None else {}))
    return Cost(seconds, flops, retraining, torch.cuda.max_memory_allocated(compute.device) if cuda else None)


def keep_cost(layout: Layout, name: str, to: str, result: str) -> None:
    """Give a copy of a run's weights the time and the work of the run, where they were recorded.

    Args:
        layout: the workspace.
        name: the run.
        to: the run that has the copy.
        result: short hash of the weights.
    """
    if found := recorded(layout, name, result):
        write_json(layout.clock(to), found)
