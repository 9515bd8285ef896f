"""The resume state on disk: a run that was killed continues after its last complete epoch, to the bit."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import durations, epoch_row
from lethe.engine.run_state import State
from lethe.models import checkpoint


@dataclass
class Resume:
    """The resume state of one run: a safetensors file of tensors, with everything else in its metadata.

    Args:
        folder: holds the file, and checkpoints of the run; deleted when the run is complete.
        history: rows of the epochs so far.
        row: reference to the run's MLflow run, if it has one.
        saved: global epoch that the file holds.
    """

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, Any] | None = None
    saved: int | None = None

    @property
    def lacks_start(self) -> bool:
        """Whether the start, before any step, is not in the history."""
        return not self.history or self.history[0]["step"] > 0

    @property
    def path(self) -> Path:
        """The safetensors file, which may not exist yet."""
        return self.folder / "state.safetensors"

    @contextmanager
    def loaded(self, device: torch.device) -> Iterator[State]:
        """Load the state at which an earlier run stopped.

        On a CPU it also sets the number of threads, which affects sums, to that of the earlier run. At the end, also by an exception, it
        is again what it was: what the process runs next was not begun with that number.

        Args:
            device: where the tensors are loaded.

        Yields:
            The state; that of the start if no earlier run left one, and `saved` is then None.

        Raises:
            UserError: the file can't be read.
        """
        before = torch.get_num_threads()
        try:
            yield self._load(device) or State()
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    def _load(self, device: torch.device) -> State | None:
        if not self.path.exists():
            return None
        tensors, metadata = checkpoint.load(self.path, str(device))
        saved = json.loads(metadata["state"])
        self.history, self.row = saved.pop("history"), saved.pop("row")
        threads = saved.pop("threads")
        if device.type == "cpu":
            torch.set_num_threads(threads)
        state = State(pending=tensors, global_epoch=saved.pop("number"), **saved)
        self.saved = state.global_epoch
        return state

    def save(self, state: State, model: Module) -> None:
        """Write the state after an epoch; the file appears complete or not at all.

        Args:
            state: progress of the run.
            model: the network, whose weights and buffers are part of the file.

        Raises:
            RunFailed: the file could not be written.
        """
        values = {
            "step": state.step,
            "epoch": state.epoch,
            "number": state.global_epoch,
            "passes": dict(state.passes),
            "optimizer_step": state.optimizer_step,
            "best_value": state.best_value,
            "measured": state.measured,
            "history": self.history,
            "row": self.row,
            "threads": torch.get_num_threads(),
        }
        checkpoint.save(state.tensors(model), self.path, {"state": json.dumps(values)})
        self.saved = state.global_epoch

    def record(self, epoch: Epoch, state: State, model: Module) -> dict[str, Any]:
        """Add an epoch to the history and save the state that follows it.

        Args:
            epoch: record of the epoch; of the start also after the first epoch, if it was measured then.
            state: progress of the run by now.
            model: the network by now.

        Returns:
            The epoch's row, with its durations and, as `at`, the time in milliseconds since 1970.

        Raises:
            RunFailed: the file could not be written.
        """
        row = epoch_row(epoch) | durations(epoch) | {"at": int(time.time() * 1000)}
        self.history.insert(len(self.history) if epoch.global_epoch else 0, row)
        self.save(state, model)
        return row

    def done(self) -> None:
        """Delete the folder: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
