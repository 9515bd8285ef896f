"""A search of a method's arguments: an Optuna study, resumed by a hash of everything that its trials depend on."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from lethe._util import redact
from lethe._util.checkout import command
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest, short
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.config.schema import Space
from lethe.engine.epoch_table import MEASURED
from lethe.engine.options import Evaluate
from lethe.evaluation.reference import retain_shortfall
from lethe.models import checkpoint, device
from lethe.parallel.pool import map_units
from lethe.pipeline import cost, references, worker_advice
from lethe.pipeline.runner import held
from lethe.pipeline.unlearn import check
from lethe.search import figures
from lethe.search.adopt import for_search, origin, search_key, typed_method
from lethe.search.objectives import AUC_ENDS, OBJECTIVES, UNSEEN, Measurements, evaluator, without_test
from lethe.search.results import SearchResults, Trial, describe_winner
from lethe.search.spaces import argument_values, draws_apart, stated_values, widened_space
from lethe.search.storage import (
    MAX_ATTEMPTS,
    earlier_trials,
    finished_trials,
    places,
    requeue,
    shared_layout,
    trials_of,
    unqueued,
    with_storage,
)
from lethe.search.trial import SearchSpec, TrialRunner, TrialTask, run_trial, share
from lethe.tracking.run_log import RunLog
from lethe.tracking.sender import send
from lethe.workspace.layout import Layout
from lethe.workspace.numerics import TRIALS
from lethe.workspace.prepare import prepare
from lethe.workspace.pseudonyms import as_logged
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import as_words, repair_command
from lethe.workspace.workspace import Prepared

MIN_TRIALS_FOR_FIGURES = 4  # complete ones, for Optuna's plots of the arguments


def search(config: Config) -> None:
    """Run trials until `search.trials` are finished, then the winners with new seeds; print the front on stdout.

    Trials of an earlier run of the same search count.

    Raises:
        UserError: A setting is wrong; nothing is written.
        RunFailed: No trial is complete.
    """
    config = for_search(config)
    objective = OBJECTIVES[config.search.objective]
    device.resolve(config.run)
    needed = ("original", "retrained") if objective.oracle or config.retrain.checkpoint else ("original",)
    references.check_models(config, *needed)
    if config.search.storage:  # an unusable database is an error before anything is written
        with_storage(config)
    space, first = widened_space(config)
    given: dict[str, references.Given] = {}

    def accept(drawn: Prepared) -> None:
        for name, each in space.items():
            for value in each.choices or (each.low, each.high):
                check(drawn, config.changed({name: value}).recipe())
        references.check_standing(drawn, *needed)
        references.read_given(drawn, needed, given)

    prepared = prepare(config, accept=accept)
    start = references.weights(prepared, "original", given=given.get("original"))
    reference = _reference(prepared, "retrained" in needed, given.get("retrained"))
    data = without_test(prepared)
    del prepared
    evaluate = evaluator(data.data.for_selection(config.recipe()), MEASURED, data.compute.autocast, intervals=True)
    original, retrained = (_measurements(data, evaluate, tensors) for tensors in (start, reference))
    retrained = _fit(data, original, retrained, objective.oracle)
    identifying = {key: value for key, value in retrained.items() if key not in (*AUC_ENDS, UNSEEN)} if objective.oracle else {}
    name = study_name(data, space, [checkpoint.weights_hash(start), identifying])
    with held(shared_layout(config).lock(f"search.{name}"), f"the search {name}"):
        create = partial(optuna.create_study, study_name=name, directions=["minimize", "maximize"], load_if_exists=True)
        runner = TrialRunner(SearchSpec(config, name, space, original, retrained), data, start, with_storage(config, create))
        share(runner)
        lead = Search(runner)
        lead.start(first, origin(checkpoint.weights_hash(start), data.hashes["split"]))
        with lead.open_run() as run:
            lead.study.set_user_attr("row", run.reference())
            lead.run_trials(run)
            lead.rerun_winners(run)
            lead.report(run)
        send([config.workspace])  # records that a dead process did not send


def _reference(prepared: Prepared, needed: bool, given: references.Given | None) -> dict[str, Tensor] | None:
    """Get the retrained model: taken over or trained if it is needed, else only if one exists, to score trials by `oracle` too."""
    if needed:
        return references.weights(prepared, "retrained", given=given)
    if prepared.layout.weights("retrained").exists():
        with contextlib.suppress(UserError):
            return references.weights(prepared, "retrained")
    return None


def _measurements(data: Prepared, evaluate: Evaluate, tensors: Mapping[str, Tensor] | None) -> Measurements:
    if tensors is None:
        return {}
    return evaluate(data.loaded(tensors), data.data)


def _fit(data: Prepared, original: Measurements, retrained: Measurements, needed: bool) -> Measurements:
    """Return the retrained model's measurements; {} where it is no reference, which is an error if the objective needs one."""
    if not retrained:
        return {}
    ours, theirs = ({split: each[f"{split}.accuracy"] for split in ("retain", "forget")} for each in (original, retrained))
    line = retain_shortfall(ours, theirs, {split: len(index) for split, index in data.splits.items()})
    if line and needed:
        raise UserError(
            f"search.objective is oracle, and the retrained model is no reference: it gets {line}; raise pretrain.min_steps or "
            f"retrain.epochs, then {repair_command('retrain', data.config)}; or give --search.objective oracle_free"
        )
    if line:
        log(f"the retrained model is no reference: it gets {line}, so no trial is compared with it")
    return {} if line else retrained


def study_name(data: Prepared, space: Mapping[str, Space], models: Sequence[Any]) -> str:
    """Name a study by a hash of everything that its trials depend on, so not of `search.trials`.

    Args:
        data: The workspace without its test split.
        space: The space of each searched argument.
        models: What identifies the original and, if the objective needs it, the retrained model.

    Returns:
        `<method>.<objective>.<hash>`.
    """
    config, compute = data.config, data.compute
    parts: list[Any] = [search_key(config), stated_values(config), {name: each.model_dump() for name, each in space.items()}, models]
    parts += [data.hashes["split"], config.model.architecture, config.run.seed, config.run.evaluate_every, compute.precision]
    parts += [compute.device.type, config.search.prune and config.search.prune_margin]
    parts += [] if config.search.max_share is None else [config.search.max_share]  # what a sampler proposes depends on it
    parts += [TRIALS, *draws_apart(config)]  # values that mean something else are not compared
    parts += [data.hashes["normalisation"]] if config.pretrain.checkpoint else []  # with which the hash of given weights does not change
    return f"{config.method}.{config.search.objective}.{short(digest([json.dumps(parts, default=str)]))}"


class Search:
    """The process that leads a search: it hands out trials and reports their results."""

    def __init__(self, runner: TrialRunner) -> None:
        """Lead a search whose trials `runner` can run in this process."""
        self.runner, self.spec, self.study, self.config = runner, runner.spec, runner.study, runner.config
        self.objective = runner.objective
        self.began, self.resumed, self.shown = time.monotonic(), 0, set[int]()

    def results(self) -> SearchResults:
        """Compute results from the trials finished so far."""
        fresh, place = {}, places(self.study)
        for key, record in self.study.user_attrs.items():
            if key.startswith("fresh."):
                _, number, seed = key.split(".")
                fresh[place[int(number)], int(seed)] = record
        finished = [_trial(trial, place[trial.number]) for trial in finished_trials(self.study)]
        spec = self.spec
        return SearchResults(self.config, list(spec.space), spec.original, spec.retrained, finished, fresh, self.runner.images)

    def start(self, first: Mapping[str, Any], of: str) -> None:
        """Queue the first trial, or resume the search of an earlier run.

        Args:
            first: Values of the first trial; `{}`: the sampler draws it.
            of: What `adopt` knows the workspace by, as `origin` gives it.
        """
        if self.study.user_attrs.get("origin") != of:  # a search that an earlier version began has none
            self.study.set_user_attr("origin", of)
        if not trials_of(self.study):
            self.study.set_user_attr("about", search_key(self.config))
            self.study.set_metric_names(list(self.objective.names))
            if first:
                self.study.enqueue_trial(dict(first))
            if left := earlier_trials(self.config, self.study.study_name):
                log(
                    f"a new search: {left} trials of {self.config.method} with other spaces or settings are kept and do not count; "
                    "the settings that they had resume them"
                )
            return
        self.runner.requeue_dead(exclusive=self.config.search.storage is None)
        for trial in unqueued(self.study):
            requeue(self.study, trial)
        finished = finished_trials(self.study)
        self.shown, self.resumed = {trial.number for trial in self.results().finished}, len(finished)
        log(f"search {self.study.study_name}: resuming after {self.resumed} trials")

    def run_trials(self, run: RunLog) -> None:
        """Run all trials, `search.workers` in parallel, and wait for those that run on other machines."""
        settings, announced = self.config.search, False
        self._advise(settings.trials - len(finished_trials(self.study)))
        end = time.monotonic() + settings.timeout if settings.timeout else None  # a clock that is set changes nothing
        while (left := settings.trials - len(finished_trials(self.study))) > 0:
            if end and time.monotonic() > end:
                log(f"search.timeout: {settings.trials - left} of {settings.trials} trials; the same command resumes")
                return
            self.runner.requeue_dead()
            elsewhere = trials_of(self.study, TrialState.RUNNING)
            deadline = time.time() + end - time.monotonic() if end else None  # what other machines have in common
            tasks = [TrialTask(self.spec, run.reference(), deadline)] * max(0, left - len(elsewhere))
            if not tasks and not announced:
                numbers = ", ".join(str(places(self.study)[trial.number]) for trial in elsewhere)
                log(f"waiting for trial {numbers} of another process (run again if its heartbeat stops)")
                announced = True
            for _ in map_units(run_trial, tasks, workers=settings.workers, gpus=settings.gpus, fail_fast=True):
                self.show(run)
            if not tasks:
                time.sleep(min(settings.heartbeat, 5))

    def _advise(self, trials: int) -> None:
        """Log what several workers would be worth."""
        data = self.runner.data
        if self.config.search.workers == 1 and trials > 1:
            worker_advice.advise(data, "search.workers", trials, lambda: cost.share_of(data), "search")

    def rerun_winners(self, run: RunLog) -> None:
        """Run the winners with seeds that the search did not use, to measure the selection bias. Finished runs are kept."""
        results, settings = self.results(), self.config.search
        seeds, chosen = results.fresh_seeds(), sorted({trial.number for trial in results.winners().values()})
        pairs = [(number, seed) for number in chosen for seed in seeds if (number, seed) not in results.fresh]
        tasks = [TrialTask(self.spec, run.reference(), None, number, seed) for number, seed in pairs]
        if tasks:
            log(f"running trial {', '.join(map(str, chosen))} again with {len(seeds)} seeds that the search did not use")
        for task, _ in map_units(run_trial, tasks, workers=settings.workers, gpus=settings.gpus, fail_fast=True):
            log(f"{task} is done")

    def open_run(self) -> RunLog:
        """Open the search's MLflow run, the parent of its trials' runs."""
        settings = {f"search.{key}": value for key, value in self.config.search.model_dump().items() if key != "storage"}
        about = f"{self.objective.note} Each nested run is a trial; none reads the test split."
        return RunLog.open(
            self.config.workspace,
            name=str(RunId(self.config.method, chain="search")),
            tags=self.runner.tags,
            params=as_logged(self.config).resolved() | settings,
            description=f"**Search of {self.config.method}**. {about}",
            previous=self.study.user_attrs.get("row"),
        )

    def show(self, run: RunLog) -> None:
        """Report newly finished trials: a line on stderr; metrics, tables and figures on the search's MLflow run."""
        results = self.results()
        new = [trial for trial in results.finished if trial.number not in self.shown]
        if not new:
            return
        self.shown |= {trial.number for trial in new}
        finished, counts, winner = len(results.finished), results.counts(), results.winner()
        log(self._progress(new, results))
        best = {"search.best.unlearning": winner.point[0], "search.best.utility": winner.point[1]} if winner else {}
        run.metrics({f"search.{name}": value for name, value in counts.items()} | best, step=finished)
        run.refresh(lambda: results.table(results.finished).encode(), "trials.csv")
        run.refresh(lambda: results.table(results.front()).encode(), "front.csv")
        run.refresh(results.front_figure, "front.png")
        run.refresh(results.budgets_figure, "budgets.png")
        if len(results.complete) >= MIN_TRIALS_FOR_FIGURES:
            for name, draw in figures.of_arguments(self.study, self.objective.names).items():
                run.refresh(draw, f"{name}.png")

    def _progress(self, new: Sequence[Trial], results: SearchResults) -> str:
        finished, wanted, counts, winner = len(results.finished), self.config.search.trials, results.counts(), results.winner()
        left = (time.monotonic() - self.began) / max(1, finished - self.resumed) * (wanted - finished)
        running = len(trials_of(self.study, TrialState.RUNNING))
        numbers = self.objective.describe
        parts = [f"trial {trial.number} {trial.state}: {numbers(trial.values) if trial.values else trial.reason}" for trial in new]
        parts += [f"{finished} of {wanted} done, {running} running, {counts['pruned']} pruned, {counts['failed']} failed"]
        parts += [f"best {winner.number}: {numbers(winner.point)}"] if winner else []
        return " | ".join([*parts, f"{time.strftime('%H:%M:%S', time.gmtime(max(left, 0)))} left"])

    def report(self, run: RunLog) -> None:
        """Print the front on stdout and write the results; say on stderr what the winner is worth and how to adopt it."""
        results = self.results()
        if not results.complete:
            reason = results.finished[-1].reason if results.finished else "none was started"
            raise RunFailed(f"no trial of {self.study.study_name} is complete; the last: {reason}")
        results.write(Layout(self.config.workspace).search(self.config.method))
        print(results.table(results.front()), end="", flush=True)
        chosen = results.chosen()
        for text in filter(None, map(results.undecidable, chosen)):
            log(text)
        for objective, row in chosen.items():
            metrics = {f"search.{objective}.{key}": value for key, value in row.items() if key != "trial"}
            run.metrics(metrics, step=len(results.finished))
            run.tag(f"winner.{objective}", row["trial"])
            log(describe_winner(objective, row))
        run.text("fresh.csv", results.fresh_table())
        run.text("best.json", json.dumps({"chosen": chosen}, indent=2) + "\n")
        winner = results.winner()
        assert winner
        run.tag("winner", winner.number)
        identifying = ("run.workspace", "search.method", "search.objective", "search.sampler", "search.seed", "search.storage")
        given = {key: redact.clean(self.config.given[key]) for key in identifying if key in self.config.given} | typed_method(self.config)
        if winner.arguments == argument_values(self.config):
            log("the best trial has the values that are configured; none that was tried is better")
        else:
            log(f"adopt the best trial as a variant: {command('search', 'adopt', str(winner.number), *as_words(given))}")


def _trial(trial: FrozenTrial, place: int) -> Trial:
    attributes = trial.user_attrs
    values = (trial.values[0], trial.values[1]) if trial.state is TrialState.COMPLETE else None
    reason = attributes.get("reason", f"its process died, {MAX_ATTEMPTS} times")
    return Trial(place, trial.state.name.lower(), values, attributes.get("arguments", trial.params), attributes, reason)
