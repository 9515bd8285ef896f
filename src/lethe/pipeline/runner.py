"""One run from start to end: its lock, its resume state, its MLflow run, and what is recorded after each epoch."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch.nn import Module

from lethe._util import collector, dvc_stage, memory
from lethe._util.errors import Diverged, RunFailed
from lethe._util.files import digest, short, write_text
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.data.device_data import Data
from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import MEASURED, row_metrics, to_csv
from lethe.engine.options import Evaluate, RunOptions
from lethe.engine.progress import Progress
from lethe.engine.resume import Resume
from lethe.engine.run_state import State
from lethe.evaluation import inference
from lethe.models import checkpoint, foreign
from lethe.pipeline import run_logging
from lethe.plots import training_curves
from lethe.tracking.run_log import REFRESH, RunLog
from lethe.workspace import artifacts, read_model, timing
from lethe.workspace.layout import Layout
from lethe.workspace.plan import PlannedRun
from lethe.workspace.prepare import remember
from lethe.workspace.settings import WITH_ORIGINAL
from lethe.workspace.workspace import Prepared, initial_weights

KEYS = {"original": WITH_ORIGINAL, "retrained": ("retrain.",)}  # that the workspace's settings keep; of a method its section
LOCK_TIMEOUT = 60.0  # seconds: an optimizer step, and what a stopping run still sends to MLflow


@dataclass
class ActiveRun:
    """A run in progress: its lock is held, its MLflow run is open, its resume state is loaded.

    Attributes:
        prepared: the images and splits, configured for the run's own seed.
        scoring: the same as its scores are computed: for one of several seeds with the first seed, which the bank leaves out.
        planned: its name, recipe, seed and parent.
        start: hash of the weights it starts from.
        network: the model that is trained; until its weights are written.
        resume: its history, and the file that holds `state`.
        state: progress within the recipe; the engine keeps it up to date.
        run_log: its MLflow run.
        progress: the lines or the bar on stderr.
        later: what is put off until after the first epoch, and reads the original; None: nothing. The start is recorded after it.
    """

    prepared: Prepared
    scoring: Prepared
    planned: PlannedRun
    start: str
    network: Module
    resume: Resume
    state: State
    run_log: RunLog
    progress: Progress
    later: Callable[[], None] | None = None
    _recorded: list[tuple[Epoch, Mapping[str, Any]]] = field(default_factory=list)  # not shown yet

    @property
    def name(self) -> str:
        """Its name in files, locks and messages."""
        return str(self.planned)

    @property
    def data(self) -> Data:
        """The images and splits on the device, configured for the run's seed."""
        return self.prepared.data

    @cached_property
    def options(self) -> RunOptions:
        """How the engine runs it: what is measured and when, seed, precision, and the cache of frozen layers' outputs."""
        run, autocast = self.prepared.config.run, self.prepared.compute.autocast
        data = self.data.for_selection(self.planned.recipe)
        sample = run.evaluate_retain
        return self.prepared.run_options(
            self.planned.seed,
            evaluate=self._evaluator(data),
            evaluate_sample=inference.evaluator(data, MEASURED, autocast, sample) if sample else None,
            evaluate_every=run.evaluate_every,
            step_inputs=self.prepared.feature_cache(log),
            count_work=True,
        )

    @cached_property
    def _epochs(self) -> int:
        """Number of epochs and edits of the recipe, where no phase stops early."""
        return sum(getattr(step, "epochs", 1) for step in self.planned.recipe)

    def _evaluator(self, data: Data) -> Evaluate:
        """Metrics of an epoch. Outputs are shared with logits tables: those of the start with the table of the model that it is, those of
        the last epoch with the table of the result. Only in float32, in which tables are made."""
        prepared = self.prepared
        compute = inference.evaluator(data, MEASURED, prepared.compute.autocast)
        if prepared.compute.precision != "float32" or not (self.name in STAGE or prepared.config.run.evaluate):
            return compute
        share = inference.evaluator(data, MEASURED, read=prepared.outputs.read)

        def evaluate(model: Module, source: Data) -> Mapping[str, float]:
            if self.state.global_epoch < 0 and self.planned.parent is not None:
                known = data is self.data  # otherwise the recipe holds validation images back, and other batches are read
                return {} if known and self.later else (self._start() if known else None) or share(model, source)
            last = self.state.global_epoch + 1 == self._epochs
            if last or self.later:
                memory.give_back()  # what the steps left in holes
            return (share if last else compute)(model, source)

        return evaluate

    def _start(self) -> Mapping[str, float] | None:
        """Metrics of the weights that the run starts from, by their logits table; None: there is none."""
        table = artifacts.current_logits(self.prepared, str(self.planned.parent))
        return read_model.measured(self.prepared, table) if table else None

    def _start_now(self) -> Mapping[str, float]:
        """The same where no table is made: the command that put the start off was stopped, and this one evaluates nothing."""
        assert self.planned.parent is not None
        weights = checkpoint.load(self.prepared.layout.weights(self.planned.parent))[0]
        return inference.evaluator(self.data, MEASURED)(self.prepared.loaded(weights))

    def record(self, epoch: Epoch) -> None:
        """Save the resume state, then show the epoch and send it to MLflow: what was sent once must not be lost by a kill.

        Where the original is not read yet, the start is recorded after the first epoch."""
        if self.later and not epoch.global_epoch and not epoch.metrics:
            self.resume.save(self.state, self.network)
            return
        self._recorded.append((epoch, self.resume.record(epoch, self.state, self.network)))
        if not epoch.global_epoch:
            self._show()
        elif epoch.global_epoch < self._epochs or not self.later:  # else as the run ends, which takes less memory
            self._catch_up()
        every = self.prepared.config.run.checkpoint_every
        if every and epoch.global_epoch and epoch.global_epoch % every == 0:
            path = self.resume.folder / f"{epoch.global_epoch}.safetensors"
            checkpoint.save(self.network.state_dict(), path, {"kind": self.name, "step": str(epoch.global_epoch)})
            shape, info = run_logging.about_model(self.prepared)
            self.run_log.checkpoint(path, epoch.global_epoch, shape=shape, info=info)

    def _catch_up(self) -> None:
        """Do what was put off until after the first epoch, record the start where it is not, and show what was recorded."""
        if self.later:
            memory.give_back()
            self.later()
            self.later = None
        if self.resume.lacks_start:
            began = time.perf_counter()
            metrics = self._start() or self._start_now()
            start = Epoch(0, "start", 0, 0.0, metrics=metrics, evaluate_seconds=time.perf_counter() - began)
            self._recorded.insert(0, (start, self.resume.record(start, self.state, self.network)))
        self._show()

    def _show(self) -> None:
        for epoch, row in self._recorded:
            self.progress.show(epoch)
            self.run_log.metrics(row_metrics(row), epoch.global_epoch, row["at"])
            if epoch.global_epoch or not self._epochs:  # the table's library is not imported before the first step
                self.run_log.refresh(lambda: to_csv(self.resume.history).encode(), "epochs.csv")
            if epoch.global_epoch < self._epochs:
                self.run_log.refresh(self._curves, "curves.png", wait=REFRESH)
        self._recorded.clear()

    def _curves(self) -> bytes:
        return training_curves.accuracy_curves(self.resume.history, self.name)

    def finish(self) -> None:
        """Write the epoch table and the weights; log the weights' hash, the time and the scores."""
        self.state.optimizer = self.state.forget_optimizer = None  # no step follows
        vars(self).pop("options", None)  # the cache of frozen layers' outputs knows the network, and how it was traced
        self.prepared.outputs.share_weights(self.network)
        collector.collect()
        memory.give_back()
        self._catch_up()
        self.progress.close()
        self.run_log.refresh(self._curves, "curves.png", last=True)  # drawn as the run ends, after its results are printed
        layout, config, reference = self.prepared.layout, self.prepared.config, self.name in STAGE
        path, tensors = layout.weights(self.planned.run), self.network.state_dict()
        write_text(layout.epochs(self.planned.run), to_csv(self.resume.history))
        about = {key: text for key, text in metadata(self.prepared, self.planned, self.start).items() if text or key != "init"}
        result = short(checkpoint.save_model(tensors, path, about))
        del self.network, tensors  # who reads or exports it makes another, from the file
        memory.give_back()
        self.run_log.tag("result", result)
        trained = [past for past in self.resume.history if "epoch_seconds" in past]
        seconds = sum(past["epoch_seconds"] for past in trained)
        counted = all("epoch_flops" in past for past in trained)  # not so where an earlier version began the run
        flops = sum(past.get("epoch_flops", 0.0) for past in trained) if counted else None
        run_logging.log_cost(self.run_log, self.prepared, self.name, result, (seconds, flops), self.state.global_epoch)
        remember(self.prepared, *KEYS.get(self.name, (f"methods.{config.method}.",)))
        if reference or config.run.evaluate:
            run_logging.log_scores(self.run_log, self.scoring, self.name, self.state.global_epoch)

    def export(self) -> None:
        """Log the model, in the format of run.log_model."""
        memory.give_back()
        collector.mark()
        run_logging.log_model(self.run_log, self.prepared, self.prepared.layout.weights(self.planned.run))
        collector.collect()
        memory.give_back()


@contextmanager
def start(
    prepared: Prepared,
    planned: PlannedRun,
    *,
    launched: bool = True,
    parent: Mapping[str, Any] | None = None,
    later: Callable[[], None] | None = None,
) -> Iterator[ActiveRun]:
    """Start a run, or resume it after its last recorded epoch.

    Its MLflow run ends FINISHED, KILLED (stopped by the user, resumable) or FAILED.

    Args:
        prepared: the images and splits; of several seeds, as they are scored.
        planned: what to run.
        launched: whether the MLflow run that a launcher made, if one did, is this run's.
        parent: reference of the parent MLflow run; None: it has none.
        later: what is done after the first epoch, and reads the original; None: nothing.

    Yields:
        The run, with network and state; the caller trains its epochs, records each, and finishes it.

    Raises:
        RunFailed: another process runs it.
        Diverged: a loss became NaN or infinite; the message names phase, epoch, step and the file that holds the last good epoch.
    """
    own = prepared if planned.run.seed is None else prepared.seeded(planned.seed)
    if planned.parent is None:
        network = own.untrained(planned.seed, quiet=False)
        weights = checkpoint.weights_hash(network.state_dict())
    else:
        path = own.layout.weights(planned.parent)
        network = own.loaded(checkpoint.load(path)[0], planned.seed)
        weights = checkpoint.model_hash(path)
    resume = Resume(resume_folder(own, str(planned), repr(planned.recipe), weights))
    with held(own.layout.lock(planned.run), str(planned)), resume.loaded(own.compute.device) as state:
        if resume.saved is not None:
            log(f"{planned}: resuming after epoch {state.global_epoch}")
        timing.reset_peak_memory(own.compute)
        with run_logging.open_run(own, planned, short(weights), resume, launched=launched, parent=parent) as run_log:
            try:
                with Progress(planned.recipe, own.data, str(planned)) as progress:
                    run = ActiveRun(own, prepared, planned, weights, network, resume, state, run_log, progress, later)
                    del network  # the run gives it up when it is finished
                    collector.mark()
                    yield run
            except KeyboardInterrupt:
                what = "starts again" if resume.saved is None else f"resumes after epoch {resume.saved}"
                log(f"{planned}: stopped; the same command {what}")
                raise
            except Diverged as error:
                raise Diverged(f"{planned} diverged: {error}; the last good epoch is kept in {resume.path}") from error
        resume.done()


def metadata(prepared: Prepared, planned: PlannedRun, start: str = "") -> dict[str, str]:
    """Return the metadata of a run's weights: what they are made from and how.

    It holds no time, run id or commit, so that equal results are equal files.

    Args:
        prepared: the images and splits.
        planned: the run.
        start: hash of the weights it starts from; a reference has none.

    Returns:
        Key -> text, as it is stored in the file.
    """
    config, kind = prepared.config, str(planned.run.all_seeds)
    if kind in STAGE:
        return reference_metadata(config, planned, prepared.hashes)
    known = {"kind": kind, "architecture": config.model.architecture, "original": start} | prepared.hashes
    return known | {"recipe": repr(planned.recipe), "seed": str(planned.seed)}


def reference_metadata(config: Config, planned: PlannedRun, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a reference's weights.

    Args:
        config: the configuration.
        planned: the run that trains the reference.
        hashes: as `Prepared.hashes`; those that are not known without the images may be missing, and are then left out.

    Returns:
        Key -> text, as it is stored in the file.

    Raises:
        UserError: a given checkpoint, or pretrain.init, is named in a way that can't be read.
    """
    kind, layout = str(planned.run.all_seeds), Layout(config.workspace)
    known = {"kind": kind, "architecture": config.model.architecture}
    # an original depends on the train images, not on the deletion request
    of_images = ("data", "normalisation", *(["retain"] if kind == "retrained" else []))
    known |= {key: hashes[key] for key in of_images if key in hashes}
    spec: str | None = getattr(config, STAGE[kind]).checkpoint
    if spec:
        own = config.path(Path(spec)).parent == layout.accepted("").parent
        sha256 = foreign.identity(spec, config.path(Path()), layout.downloads)
        name = {"checkpoint": spec.rsplit("/", 1)[-1]} if sha256 is None else {"sha256": sha256}
        classes = "" if own else ",".join(config.pretrain.classes or ())  # its outputs are in the order of the data already
        return known | {"provenance": "unlearned" if own else "unknown", "classes": classes} | name
    return known | {"provenance": "trained", "seed": str(planned.seed), "recipe": repr(planned.recipe), "init": initial_weights(config)}


def resume_folder(prepared: Prepared, name: str, recipe: str, start: str) -> Path:
    """Return the folder of a run's resume state, which only the same command finds again.

    Args:
        prepared: the images and splits.
        name: of the run.
        recipe: its repr.
        start: hash of the weights it starts from.

    Returns:
        The folder, which need not exist.
    """
    config, chosen = prepared.config, prepared.compute
    key = [name, recipe, start, prepared.hashes["split"], str(config.run.seed), chosen.precision, chosen.device.type]
    earlier = prepared.layout.resume / short(digest(key))  # of a version whose key left the normalisation out
    return earlier if earlier.exists() else prepared.layout.resume / short(digest([*key, prepared.hashes["normalisation"]]))


def is_left(prepared: Prepared, planned: PlannedRun, start: str) -> bool:
    """Return whether a process was stopped before the run was complete: its weights may exist, and their scores or its MLflow run may not.

    Args:
        prepared: the images and splits, configured for the run's own seed.
        planned: the run.
        start: hash of the weights it starts from.
    """
    if not any(prepared.layout.resume.glob("*/state.safetensors")):  # which needs no device
        return False
    return Resume(resume_folder(prepared, str(planned), repr(planned.recipe), start)).path.exists()


@contextmanager
def held(path: Path, name: str) -> Iterator[Path]:
    """Hold the lock of a run: one process at a time runs it in a workspace. The lock of a dead process is free.

    Under DVC the holder may be what a killed `dvc repro` left running and is about to stop, so it is waited for.

    Args:
        path: of the lock file.
        name: of the run, for the message.

    Yields:
        The path of the lock file.

    Raises:
        RunFailed: another process holds it; the message has its pid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder, here = path.with_suffix(".pid"), platform.node()
    lock = FileLock(path, timeout=LOCK_TIMEOUT if dvc_stage.active() else 0)
    try:
        lock.acquire()
    except Timeout:
        pid, _, host = (holder.read_text() if holder.exists() else "unknown").partition(" ")
        raise RunFailed(
            f"{name} is already running in this workspace (pid {pid}{f' on {host}' if host not in ('', here) else ''})"
        ) from None
    except PermissionError:
        raise RunFailed(f"{name} can't be run: its lock {path} is {_owner(path)}'s, and may not be used by others") from None
    try:
        with contextlib.suppress(OSError):  # a full disk: it is for the message alone
            holder.write_text(f"{os.getpid()} {here}")
        yield path
    finally:
        lock.release()


def _owner(path: Path) -> str:
    """The name of a file's owner."""
    try:
        return path.owner()
    except (KeyError, OSError):
        return "another user"
