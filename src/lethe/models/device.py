"""Where a run computes and in which precision; "auto" says what it chose and why."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from lethe._util.errors import UserError
from lethe.models.small_conv import quicken


@dataclass(frozen=True)
class Compute:
    device: torch.device
    precision: str
    channels_last: bool
    reason: str

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[None]]:
        return partial(torch.autocast, self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """On the device, in the memory format, with the convolutions that suit it."""
        if self.device.type == "cpu":
            quicken(model)
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=form)  # type: ignore[call-overload,no-any-return]

    def holds(self, size: int, asked: str) -> bool:
        """Whether `size` bytes of images go to the device. auto: unless they would take more than half of a GPU's free memory."""
        if asked != "auto" or self.device.type != "cuda":
            return asked != "host"
        free, _ = torch.cuda.mem_get_info(self.device)
        return size <= free / 2

    def __str__(self) -> str:
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device}{threads}, {self.precision} ({self.reason})"


class Settings(Protocol):
    """The keys of the section `run` that decide it."""

    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def threads(self) -> int | None: ...


def resolve(run: Settings) -> Compute:
    """Raises UserError when the device asked for is not there."""
    if run.threads:
        torch.set_num_threads(run.threads)
    name = run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"run.device is {run.device}; this machine has {torch.cuda.device_count()} CUDA devices (or take cpu)")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"run.device is {run.device}; this machine has no mps (take cpu or auto)")
    if run.precision != "auto":
        return Compute(device, run.precision, run.channels_last, "as asked")
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return Compute(device, "bfloat16", run.channels_last, "auto: the GPU has it")
    return Compute(device, "float32", run.channels_last, f"auto: {device.type}")
