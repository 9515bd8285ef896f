"""Time, work and memory of a run. Time and memory depend on the machine, so all of them are stored under the state folder and sent to
MLflow only: no file that DVC hashes holds them, and equal runs are equal files."""

import platform

import torch

from lethe._util.files import read_json, write_json
from lethe.evaluation.context import Cost
from lethe.models.device import Compute
from lethe.workspace.layout import Layout


def reset_peak_memory(compute: Compute) -> None:
    """Let a GPU count its peak memory from now on."""
    if compute.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(compute.device)


def record_cost(
    layout: Layout, compute: Compute, name: str, result: str, seconds: float, flops: float | None, retrained: str | None
) -> Cost:
    """Record the time and the work of a run, and return its cost next to that of retraining.

    Args:
        layout: the workspace.
        compute: device and precision of the run.
        name: the run.
        result: short hash of the weights it made.
        seconds: its optimizer steps and edits took.
        flops: their floating-point operations; None if they were not counted.
        retrained: short hash of models/retrained; None without one.

    Returns:
        Seconds, work, peak memory in bytes (of a GPU), and the work of retraining if it was recorded for those weights.
    """
    cuda = compute.device.type == "cuda"
    device = torch.cuda.get_device_name(compute.device) if cuda else compute.device.type
    where = {"machine": platform.node(), "device": device, "precision": compute.precision}
    retraining = read_json(path) if (path := layout.clock("retrained")).exists() else {}
    write_json(layout.clock(name), where | {"result": result, "seconds": seconds} | ({"flops": flops} if flops is not None else {}))
    theirs = retraining.get("flops") if retrained is not None and retraining.get("result") == retrained else None
    return Cost(seconds, flops, theirs, torch.cuda.max_memory_allocated(compute.device) if cuda else None)


def keep_cost(layout: Layout, name: str, to: str, result: str) -> None:
    """Give a copy of a run's weights the time and the work of the run, where they were recorded.

    Args:
        layout: the workspace.
        name: the run.
        to: the run that has the copy.
        result: short hash of the weights.
    """
    recorded = read_json(path) if (path := layout.clock(name)).exists() else {}
    if recorded.get("result") == result:
        write_json(layout.clock(to), recorded)
