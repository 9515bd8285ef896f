"""One run from start to end: its lock, its resume state, its row, and everything that watches its epochs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch.nn import Module

from lethe._util import dvc_stage as under_dvc
from lethe._util.errors import Diverged, RunFailed
from lethe._util.files import digest, short, write_text
from lethe._util.log import log
from lethe.engine import engine
from lethe.engine.epoch_table import MEASURED, row_metrics, to_csv
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.options import RunOptions
from lethe.engine.progress import show_progress
from lethe.engine.resume import Resume, resumable
from lethe.engine.run_state import State
from lethe.evaluation import inference as predict
from lethe.models import checkpoint
from lethe.pipeline import run_logging as rows
from lethe.plots import training_curves
from lethe.recipes.recipe import Recipe
from lethe.tracking.run_log import RunLog
from lethe.workspace import timing as clock
from lethe.workspace.workspace import Prepared

STOPPING = 60.0  # seconds: an optimizer step, and what its row still sends


@dataclass
class Started:
    """A run that is under way: its lock is held, its row open, its resume state known."""

    prepared: Prepared
    name: str
    recipe: Recipe
    network: Module
    row: RunLog
    resume: Resume
    state: State

    def follow(self) -> None:
        """Spell the recipe on the network while everything watches; ends with the epoch table written.

        Raises Diverged, naming phase, epoch, step and the file with the last good epoch."""
        config, data, cast = self.prepared.config, self.prepared.data, self.prepared.compute.autocast
        clock.watch(self.prepared.compute)
        sample = config.run.evaluate_retain
        options = RunOptions(
            evaluate=predict.evaluator(data, MEASURED, cast),
            evaluate_sample=predict.evaluator(data, MEASURED, cast, sample) if sample else None,
            evaluate_every=config.run.evaluate_every,
            seed=config.run.seed,
            autocast=cast,
            step_inputs=Prefix(config.run.cache, cast, log),
            random_init=self.prepared.network(config.run.seed),
        )
        epochs = engine.run(self.recipe, self.network, data, options, state=self.state)
        epochs = resumable(epochs, self.resume, self.state, self.network)
        try:
            for epoch in show_progress(epochs, self.recipe, data, self.name):
                newest = self.resume.history[-1]
                self.row.metrics(row_metrics(newest), epoch.global_epoch, newest["at"])
                self.row.refresh(lambda: to_csv(self.resume.history).encode(), "epochs.csv")
                self.row.refresh(lambda: training_curves.accuracy_curves(self.resume.history, self.name), "curves.png")
                every = config.run.checkpoint_every
                if every and epoch.global_epoch and epoch.global_epoch % every == 0:
                    path = self.resume.folder / f"{epoch.global_epoch}.safetensors"
                    checkpoint.save(self.network.state_dict(), path, {"kind": self.name, "step": str(epoch.global_epoch)})
                    shape, info = rows.about_model(self.prepared)
                    self.row.checkpoint(path, epoch.global_epoch, shape=shape, info=info)
        except Diverged as error:
            raise Diverged(f"{self.name} diverged: {error}; the last good epoch is kept in {self.resume.path}") from error
        write_text(self.prepared.layout.epochs(self.name), to_csv(self.resume.history))

    def save(self, path: Path, known: Mapping[str, str]) -> None:
        """The result, whole or not at all, its hash and what it took on the row."""
        tensors = self.network.state_dict()
        checkpoint.save(tensors, path, known)
        result = short(checkpoint.weights_hash(tensors))
        self.row.tag("result", result)
        seconds = sum(past.get("epoch_seconds", 0.0) for past in self.resume.history)
        rows.timed(self.row, self.prepared, self.name, result, seconds, self.state.global_epoch)


@contextmanager
def started(
    prepared: Prepared,
    name: str,
    recipe: Recipe,
    network: Module,
    *,
    launched: bool,
    parent: Mapping[str, Any] | None = None,
) -> Iterator[Started]:
    """Lock, resume state and row of the run that spells `recipe` on `network`; `launched`: a launcher's row is for this run.

    The row ends FINISHED, KILLED (stopped by the user, resumable) or FAILED. Raises RunFailed when another process runs it."""
    start = checkpoint.weights_hash(network.state_dict())
    resume = Resume(resume_folder(prepared, name, repr(recipe), start))
    with held(prepared.layout.lock(name), name):
        state = resume.load(prepared.compute.device) or State()
        if resume.history:
            log(f"{name}: going on behind epoch {state.global_epoch}")
        row = rows.opened(prepared, name, recipe, short(start), resume, launched=launched, parent=parent)
        with row:
            try:
                yield Started(prepared, name, recipe, network, row, resume, state)
            except KeyboardInterrupt:
                begins = "begins anew" if resume.saved is None else f"goes on behind epoch {resume.saved}"
                log(f"{name}: stopped; the same command {begins}")
                raise
        resume.done()


def resume_folder(prepared: Prepared, name: str, recipe: str, start: str) -> Path:
    """Where the state of a run stands that only the same command takes up."""
    config, chosen = prepared.config, prepared.compute
    key = [name, recipe, start, prepared.hashes["split"], str(config.run.seed), chosen.precision, chosen.device.type]
    return prepared.layout.resume / short(digest(key))


@contextmanager
def held(path: Path, name: str) -> Iterator[Path]:
    """One run of a method in a workspace at a time. Raises RunFailed naming the holder's pid; a dead holder's lock is free.

    Under DVC the holder may be what a killed `dvc repro` left behind, and is then about to stop: so that is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".pid")
    try:
        with FileLock(path, timeout=STOPPING if under_dvc.runs() else 0):
            holder.write_text(str(os.getpid()))
            yield path
    except Timeout:
        pid = holder.read_text() if holder.exists() else "unknown"
        raise RunFailed(f"{name} is already running in this workspace (pid {pid})") from None
