"""One trial of a search: draw arguments, run the recipe, record the result. A trial is a unit of work that any process can run.

The sampler's seed for a trial depends on the trial's place in the search, so a search that was killed and resumed proposes the same
arguments as one that was not (with several workers, proposals also depend on which trial ends first). A process that dies loses only its
own trial, which another process runs again.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from lethe._util import redact
from lethe._util.errors import Diverged
from lethe._util.files import digest
from lethe.config.loader import Config
from lethe.config.schema import Space
from lethe.engine import engine
from lethe.engine.epoch_table import MEASURED, durations, epoch_row, row_metrics
from lethe.pipeline import cost, references, run_logging
from lethe.recipes.recipe import last_epoch
from lethe.search.objectives import OBJECTIVES, Measurements, evaluator, sizes, without_test
from lethe.search.pareto import CurvePoint, Point
from lethe.search.pruning import PruningRule, repaired_share
from lethe.search.results import SHARE, scorable_objectives
from lethe.search.spaces import argument_values, suggest
from lethe.search.storage import (
    Storage,
    at_place,
    finished_trials,
    marked_alive,
    places,
    requeue,
    requeue_dead,
    retrying,
    shared_layout,
    storage_url,
    trials_of,
    unmasked,
)
from lethe.tracking.mlflow_store import workspace_hash
from lethe.tracking.run_log import RunLog, Status
from lethe.workspace.prepare import prepare
from lethe.workspace.run_names import RunId, trial_name
from lethe.workspace.workspace import Prepared

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}  # with Optuna's default settings
RUN_STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


@dataclass(frozen=True)
class SearchSpec:
    """What a process must know to run trials of a search; plain values, so that they can be pickled.

    Attributes:
        config: The search's configuration.
        name: Name of the study.
        space: The space of each searched argument.
        original: Measurements of the original model.
        retrained: Measurements of the retrained model; empty if there is none.
    """

    config: Config
    name: str
    space: dict[str, Space]
    original: Measurements
    retrained: Measurements


@dataclass(frozen=True)
class TrialTask:
    """A trial to run: a new one, or, if `number` is set, a finished one again with another seed.

    Attributes:
        spec: The search.
        parent: Reference of the search's MLflow run.
        deadline: Time (`time.time()`) after which no trial starts; None: no limit.
        number: The place of the trial to run again; None: a new trial.
        seed: The seed to run it again with.
    """

    spec: SearchSpec
    parent: Mapping[str, Any]
    deadline: float | None = None
    number: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        return "a trial" if self.number is None else f"trial {self.number} with seed {self.seed}"


def run_trial(task: TrialTask) -> None:
    """Run a trial in this process, which reads images and builds networks once for all its trials."""
    if task.spec.name not in _runners:
        prepared = prepare(task.spec.config)
        start = references.weights(prepared, "original")
        url, heartbeat = storage_url(task.spec.config), task.spec.config.search.heartbeat
        study = retrying(lambda: optuna.load_study(study_name=task.spec.name, storage=Storage(url, heartbeat)))
        share(TrialRunner(task.spec, without_test(prepared), start, study))
    runner = _runners[task.spec.name]
    if task.number is None:
        runner.run(task)
    else:
        runner.rerun(task, task.number)


_runners: dict[str, "TrialRunner"] = {}


def share(runner: "TrialRunner") -> None:
    """Make a runner available to `run_trial` in this process."""
    _runners[runner.spec.name] = runner


@dataclass
class Outcome:
    """Outcome of one run of a recipe.

    Attributes:
        epochs: Number of the last epoch, over all phases.
        curve: The measured epochs.
        measured: Measurements of the final model; empty if there is none.
        pruned: Why the trial was pruned, or "".
        failed: Why the trial failed, or "".
    """

    epochs: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    measured: Measurements = field(default_factory=dict)
    pruned: str = ""
    failed: str = ""


class _TrialFailed(Exception):
    """This trial failed, and the search goes on; the reason is recorded on the trial."""


class TrialRunner:
    """Runs the trials of one search in one process."""

    def __init__(self, spec: SearchSpec, data: Prepared, start: dict[str, Tensor], study: optuna.Study) -> None:
        """Prepare what all trials share.

        Args:
            spec: The search.
            data: The workspace without its test split.
            start: The original's weights.
            study: The Optuna study.
        """
        self.spec, self.data, self.start, self.study = spec, data, start, study
        self.config, self.objective = spec.config, OBJECTIVES[spec.config.search.objective]
        selection = data.data.for_selection(self.config.recipe())
        self.evaluate = evaluator(selection, self.objective.splits, data.compute.autocast)
        self.evaluate_all = evaluator(selection, MEASURED, data.compute.autocast, intervals=True)
        self.images = sizes(selection)
        self.frozen_features = data.feature_cache()
        self.locks, self.home = shared_layout(self.config).locks, workspace_hash(self.config.workspace)

    def run(self, task: TrialTask) -> None:
        """Run a new trial in its own MLflow run, unless time is up or enough trials are finished or running."""
        self.requeue_dead()
        if task.deadline and time.time() > task.deadline:
            return
        if len(finished_trials(self.study)) + len(trials_of(self.study, TrialState.RUNNING)) >= self.config.search.trials:
            return
        with contextlib.ExitStack() as stack:
            runs: list[RunLog] = []

            def objective(trial: optuna.Trial) -> Point:
                stack.enter_context(marked_alive(self.study, trial, self.locks, self.home))
                try:
                    self.study.sampler = self._sampler(trial)
                    config = self.config.changed(suggest(trial, self.config, self.spec.space))
                    trial.set_user_attr(SHARE, share := cost.share_of(self.data, config))
                    runs.append(stack.enter_context(self._open_run(config, places(self.study)[trial.number], task.parent)))
                    outcome = self._too_costly(trial, share) or self._run_recipe(config, runs[0], self._pruning_rule())
                    return self._record(trial, config, outcome, runs[0])
                except (optuna.TrialPruned, _TrialFailed):
                    raise
                except BaseException:  # an interrupt or a bug: the trial does not count
                    requeue(self.study, self.study.get_trials()[trial.number], None)
                    raise

            def close(study: optuna.Study, trial: FrozenTrial) -> None:
                runs[0].tags({"trial.state": trial.state.name.lower(), "trial.reason": trial.user_attrs.get("reason")})
                runs[0].close(RUN_STATUS[trial.state])

            with unmasked():
                self.study.optimize(objective, n_trials=1, catch=(_TrialFailed,), callbacks=[close])

    def rerun(self, task: TrialTask, number: int) -> None:
        """Run a finished trial's arguments again with another seed.

        The result is recorded on the study as `fresh.<number in the database>.<seed>`: the measurements and, if the run failed, the
        reason.

        Args:
            task: The seed, and the search's MLflow run as parent.
            number: The place of the finished trial.

        Raises:
            RunFailed: The records of the MLflow run can't be written to disk; the message names the file.
        """
        trial = at_place(self.study, number)
        assert trial
        arguments = trial.user_attrs["arguments"]
        config = self.config.changed(arguments)
        config = replace(config, run=config.run.model_copy(update={"seed": task.seed}))
        with self._open_run(config, number, task.parent, task.seed) as run:
            outcome = self._run_recipe(config, run)
            run.tag("trial.reason", outcome.failed or None)
            run.close("FAILED" if outcome.failed else "FINISHED")
        record = {"measured": outcome.measured} | ({"reason": outcome.failed} if outcome.failed else {})
        self.study.set_user_attr(f"fresh.{trial.number}.{task.seed}", record)

    def requeue_dead(self, exclusive: bool = False) -> None:
        """Queue again every trial whose process has died; `exclusive`: no other process can start a trial now."""
        requeue_dead(self.study, self.locks, self.home, exclusive)

    @cached_property
    def tags(self) -> dict[str, str]:
        """The tags of every MLflow run of the search."""
        own = {"search": self.study.study_name, "objective": self.config.search.objective}
        return run_logging.tags(self.data, str(RunId(self.config.method, chain="search"))) | own

    def _sampler(self, trial: optuna.Trial) -> optuna.samplers.BaseSampler:
        seed = int(digest([str(self.config.search.seed), str(places(self.study)[trial.number])])[:8], 16)
        sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, SAMPLERS[self.config.search.sampler])(seed=seed)
        return sampler

    def _too_costly(self, trial: optuna.Trial, share: float) -> Outcome | None:
        """The outcome of a trial that is not run, because it would cost more than `search.max_share`; None where it is run."""
        limit = self.config.search.max_share
        if limit is None:
            return None
        trial.set_constraint(SHARE, share - limit)  # kept where it is at most 0
        if share <= limit:
            return None
        return Outcome(pruned=f"would cost {share:.3g} of retraining; search.max_share is {limit:g}")

    def _run_recipe(self, config: Config, run: RunLog, rule: PruningRule | None = None) -> Outcome:
        """Run the recipe to its end, or until the rule prunes it. Divergence and lack of memory are outcomes, not errors."""
        outcome = Outcome()
        try:
            network, recipe = self.data.loaded(self.start, config.run.seed), config.recipe()
            others = [trial.user_attrs["curve"] for trial in trials_of(self.study, TrialState.COMPLETE)] if rule else []
            options = self.data.run_options(
                config.run.seed, evaluate=self.evaluate, evaluate_every=config.run.evaluate_every, step_inputs=self.frozen_features
            )
            for epoch in engine.run(recipe, network, self.data.data, options):
                outcome.epochs = epoch.global_epoch
                run.metrics(row_metrics(epoch_row(epoch) | durations(epoch)), step=epoch.global_epoch)
                if not epoch.metrics:
                    continue
                point = self.objective.point(epoch.metrics, self.spec.retrained)
                run.metrics({"search.unlearning": point[0], "search.utility": point[1]}, step=epoch.global_epoch)
                outcome.curve.append((epoch.phase, epoch.epoch, *point))
                if rule and epoch.global_epoch < last_epoch(recipe):
                    outcome.pruned = rule.reason(outcome.curve, repaired_share(recipe, epoch.phase, epoch.epoch, epoch.scale), others)
                if outcome.pruned:
                    return outcome
            measured = self.evaluate_all(network, self.data.data)  # again, because a phase may end with the weights of its best epoch
            if all(map(math.isfinite, measured.values())):
                outcome.measured = measured
            else:
                outcome.failed = "diverged: the loss at the end is not finite"
        except Diverged as error:
            outcome.failed = f"diverged: {error}"
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            outcome.failed = f"out of memory: {redact.summarize_error(error)}"
        if outcome.failed and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return outcome

    def _record(self, trial: optuna.Trial, config: Config, outcome: Outcome, run: RunLog) -> Point:
        """Record the outcome on the trial and its MLflow run. For a pruned or failed trial it raises the exception that Optuna expects."""
        attributes = {"arguments": argument_values(config), "ran": outcome.epochs, "curve": outcome.curve, "measured": outcome.measured}
        if reason := outcome.failed or outcome.pruned:
            attributes["reason"] = reason
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        if outcome.failed:
            raise _TrialFailed
        if outcome.pruned:
            raise optuna.TrialPruned
        for objective in scorable_objectives(self.config.search.objective, self.spec.retrained):
            point = OBJECTIVES[objective].point(outcome.measured, self.spec.retrained)
            trial.set_user_attr(objective, point)
            run.metrics({f"search.{objective}.unlearning": point[0], f"search.{objective}.utility": point[1]}, step=outcome.epochs)
        return self.objective.point(outcome.measured, self.spec.retrained)

    def _pruning_rule(self) -> PruningRule | None:
        guessing = 100.0 / len(self.data.images.classes)
        original = self.objective.point(self.spec.original, self.spec.retrained)[1]
        chance = guessing + (original - guessing) / 8
        return PruningRule(original, self.config.search.prune_margin, chance) if self.config.search.prune else None

    def _open_run(self, config: Config, number: int, parent: Mapping[str, Any], seed: int | None = None) -> RunLog:
        arguments = {f"methods.{config.method}.{name}": value for name, value in argument_values(config).items()}
        rerun = "" if seed is None else f" Run again with seed {seed}, which the search did not use."
        return RunLog.open(
            config.workspace,
            name=trial_name(config.method, number, seed),
            tags=self.tags | {"trial": str(number)} | ({} if seed is None else {"fresh": str(seed)}),
            params=arguments | {"recipe": repr(config.recipe()), "run.seed": config.run.seed},
            description=f"Trial {number} of a search. {self.objective.note}{rerun}",
            parent=parent,
            launched=False,
        )


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch has an exception class for a GPU that is out of memory, but for the CPU only a message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error) or "t allocate memory" in str(error)
