"""Device and precision of a run."""

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
    """A resolved device and precision.

    Attributes:
        device: where tensors are.
        precision: "float32" or "bfloat16" (autocast).
        channels_last: the memory format of images and weights.
        reason: why, for the log: "as asked", "auto: the GPU has it".
    """

    device: torch.device
    precision: str
    channels_last: bool
    reason: str

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[None]]:
        """Makes the context in which a forward pass runs in this precision."""
        return partial(torch.autocast, self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """Move a model to the device and memory format, in place; on a CPU its small convolutions become matrix products."""
        if self.device.type == "cpu":
            quicken(model)
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=form)  # type: ignore[call-overload,no-any-return]

    def holds(self, size: int, asked: str) -> bool:
        """Decide whether images are kept on the device.

        Args:
            size: bytes of all images.
            asked: run.images: "device", "host", or "auto": on the device unless they take more than half of a GPU's free memory.

        Returns:
            True: they are kept there; False: batches are copied from the host.
        """
        if asked != "auto" or self.device.type != "cuda":
            return asked != "host"
        free, _ = torch.cuda.mem_get_info(self.device)
        return size <= free / 2

    def __str__(self) -> str:
        number = torch.get_num_threads()
        threads = f", {number} thread{'s' if number > 1 else ''}" if self.device.type == "cpu" else ""
        return f"{self.device}{threads}, {self.precision} ({self.reason})"


class Settings(Protocol):
    """The keys of section `run` that device and precision depend on."""

    @property
    def device(self) -> str:
        """run.device."""
        ...

    @property
    def precision(self) -> str:
        """run.precision."""
        ...

    @property
    def channels_last(self) -> bool:
        """Whether networks and batches are in the channels_last memory format."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads; None: torch's default."""
        ...


def resolve(run: Settings) -> Compute:
    """Resolve run.device and run.precision on this machine; sets the number of CPU threads.

    Raises:
        UserError: the device does not exist.
    """
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
