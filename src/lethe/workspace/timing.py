"""What a run took: wall clock and memory. They depend on the machine, so they are kept under .lethe/clock and told to the row alone:
no file that DVC hashes says them, and equal runs are equal bytes."""

import platform

import torch

from lethe._util.files import read_json, write_json
from lethe.evaluation.context import Cost
from lethe.models.device import Compute
from lethe.workspace.layout import Layout


def watch(compute: Compute) -> None:
    """From here on the device counts the most memory that tensors take."""
    if compute.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(compute.device)


def took(layout: Layout, compute: Compute, name: str, result: str, seconds: float, retrained: str | None) -> Cost:
    """Notes what the run of `name` took that made the weights `result`; beside the retraining's time where that made the weights
    `retrained` (short hashes) on this machine, on the same device in the same precision."""
    cuda = compute.device.type == "cuda"
    device = torch.cuda.get_device_name(compute.device) if cuda else compute.device.type
    here = {"machine": platform.node(), "device": device, "precision": compute.precision}
    beside = read_json(path) if (path := layout.clock("retrained")).exists() else {}
    write_json(layout.clock(name), here | {"result": result, "seconds": seconds})
    same = retrained is not None and (here | {"result": retrained}).items() <= beside.items()
    return Cost(seconds, beside["seconds"] if same else None, torch.cuda.max_memory_allocated(compute.device) if cuda else None)
