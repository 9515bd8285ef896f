"""Search of a method's arguments: ask, spell the recipe, tell. It names no method.

A search is found again by a hash of all that its trials depend on. The sampler is seeded anew for each trial, by the trial's place:
a search that was killed and goes on proposes what it would have proposed without the kill (with several workers what is proposed
depends on who is first). A trial is a unit of work: its process may die, and another tries it again.
"""

import contextlib
import io
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from lethe._util import redact
from lethe._util.checkout import root
from lethe._util.errors import Diverged, RunFailed, UserError
from lethe._util.files import digest, short, write_text
from lethe.config.loader import Config, load
from lethe.config.schema import Space
from lethe.engine import engine, observers
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.observers import MEASURED
from lethe.engine.options import Evaluate, RunOptions
from lethe.models import checkpoint
from lethe.parallel.pool import spread
from lethe.pipeline import references
from lethe.pipeline import run_logging as rows
from lethe.pipeline.runner import held
from lethe.pipeline.unlearn import check
from lethe.recipes.recipe import Phase, Recipe, epochs
from lethe.search import storage as storages
from lethe.search.adopt import with_variant
from lethe.search.objectives import OBJECTIVES, Measured, evaluator, without_test
from lethe.search.pareto import Place, Point, Stop
from lethe.search.results import Found, Trial, pair, price, readings
from lethe.search.spaces import spaces, suggest, values_of
from lethe.search.storage import TRIES, Storage, again, interrupted, patiently, running
from lethe.tracking import mlflow_delivery as delivery
from lethe.tracking import run_log as tracking
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId, trial_name
from lethe.workspace.workspace import Prepared, prepare, say

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}  # with Optuna's defaults
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ROW: dict[TrialState, tracking.Status] = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
ENOUGH = 4  # complete trials, for pictures of arguments


def search(config: Config) -> None:
    """Trials until there are search.trials of them, those of earlier runs counted; then the winner with seeds that the search
    did not have; ends with the front on stdout."""
    config = _chosen(config)
    if config.search.storage:  # refused before anything is written
        opened(config)
    prepared = prepare(config)
    objective = OBJECTIVES[config.search.objective]
    wide, first = spaces(config)
    for word, space in wide.items():
        for value in space.choices or (space.low, space.high):
            check(prepared, config.changed({word: value}).recipe())
    start = references.weights(prepared, "original")
    reference = _reference(prepared, objective.oracle)
    blind = without_test(prepared)
    del prepared
    everything = evaluator(blind.data, MEASURED, blind.compute.autocast)
    original, retrained = (_measured(blind, everything, tensors) for tensors in (start, reference))
    name = _name(blind, wide, [checkpoint.weights_hash(start), retrained if objective.oracle else {}])
    with held(kept(config).lock(f"search.{name}"), f"the search {name}"):
        study = opened(config, partial(optuna.create_study, study_name=name, directions=["minimize", "maximize"], load_if_exists=True))
        asked = Asked(config, name, wide, original, retrained)
        run = Search(blind, asked, start, study)
        _here[name] = run
        run.go_on(first)
        with run.row() as row:
            study.set_user_attr("row", row.reference())
            run.trials_through(row)
            run.freshly(row)
            run.end(row)
        delivery.send([config.workspace])  # what a process that died left unsent


def _chosen(config: Config) -> Config:
    """The configuration with search.method as its method."""
    if "method" in config.given:
        raise UserError(f"method is {config.given['method']} (command line); a search takes --search.method")
    return replace(config, method=config.search.method)


def _reference(prepared: Prepared, needed: bool) -> dict[str, Tensor] | None:
    """The retrained model: made where it is needed; else what is there and belongs, or was given, so that trials can be read both ways."""
    if needed or prepared.config.retrain.checkpoint:
        return references.weights(prepared, "retrained")
    if prepared.layout.weights("retrained").exists():
        with contextlib.suppress(UserError):
            return references.weights(prepared, "retrained")
    return None


def _measured(blind: Prepared, evaluate: Evaluate, tensors: Mapping[str, Tensor] | None) -> Measured:
    if tensors is None:
        return {}
    network = blind.network(0)
    network.load_state_dict(dict(tensors))
    return evaluate(network, blind.data)


def _name(blind: Prepared, wide: Mapping[str, Space], models: Sequence[Any]) -> str:
    """By which the same search is found again, whatever its search.trials: all that a trial depends on."""
    config, chosen = blind.config, blind.compute
    known: list[Any] = [about(config), values_of(config), {word: space.model_dump() for word, space in wide.items()}, models]
    known += [blind.hashes["split"], config.model.architecture, config.run.seed, config.run.evaluate_every, chosen.precision]
    known += [chosen.device.type, config.search.prune and config.search.prune_margin]
    return f"{config.method}.{config.search.objective}.{short(digest([json.dumps(known, default=str)]))}"


def about(config: Config) -> dict[str, Any]:
    """What of it `adopt` can know without the data."""
    said = config.search
    return {"method": config.method, "objective": said.objective, "sampler": said.sampler, "seed": said.seed}


def kept(config: Config) -> Layout:
    """Where trials and their locks stand: one place for all the copies that DVC makes of a checkout."""
    return Layout(config.path(config.run.workspace))


def storage(config: Config) -> str:
    """The database, in a folder that is there."""
    if config.search.storage:
        return config.search.storage
    folder = kept(config).trials
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.resolve() / 'search.db'}"


def _storage(config: Config) -> Storage:
    return Storage(storage(config), config.search.heartbeat)


def opened(config: Config, call: Callable[..., Any] | None = None) -> Any:
    """What `call` makes of the storage, or nothing but that it can be opened."""
    try:
        there = _storage(config)
        return call(storage=there) if call else None
    except Exception as error:  # a driver that is missing, a server that is away: as many kinds as databases
        where = redact.clean(storage(config))
        raise UserError(f"search.storage: Optuna can't work with {where}: {redact.said(error)}") from error


def sampler(config: Config, place: int) -> optuna.samplers.BaseSampler:
    seed = int(digest([str(config.search.seed), str(place)])[:8], 16)
    made: optuna.samplers.BaseSampler = getattr(optuna.samplers, SAMPLERS[config.search.sampler])(seed=seed)
    return made


# ---- units of work --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a process must know to run trials of a search: plain values. `original`, `retrained`: what they measure."""

    config: Config
    name: str
    wide: dict[str, Space]
    original: Measured
    retrained: Measured


@dataclass(frozen=True)
class Task:
    """A trial to ask for, unless `until` (a time) has passed; or one to run anew with another seed. `above`: the search's row."""

    asked: Asked
    above: Mapping[str, Any]
    until: float | None = None
    number: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        return "a trial" if self.number is None else f"trial {self.number} with seed {self.seed}"


_here: dict[str, "Search"] = {}  # images, networks and features are made once a process


def _unit(task: Task) -> None:
    asked = task.asked
    if asked.name not in _here:
        prepared = prepare(asked.config)
        start = references.weights(prepared, "original")
        study = patiently(lambda: optuna.load_study(study_name=asked.name, storage=_storage(asked.config)))
        _here[asked.name] = Search(without_test(prepared), asked, start, study)
    run = _here[asked.name]
    if task.number is None:
        run.step(task)
    else:
        run.fresh(task, task.number)


class _Ended(Exception):
    """A trial failed by itself; its reason stands on it."""


# ---- one search -----------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """What became of a run: the last epoch, (phase, epoch, point) of each measured one, the measurement at the end, or why none."""

    number: int = 0
    curve: list[Place] = field(default_factory=list)
    measured: Measured = field(default_factory=dict)
    pruned: str = ""
    failed: str = ""


class Search:
    """A search under way. `blind`: the workspace without the test split; `start`: the original's weights."""

    def __init__(self, blind: Prepared, asked: Asked, start: dict[str, Tensor], study: optuna.Study) -> None:
        self.blind, self.asked, self.start, self.study = blind, asked, start, study
        self.config, self.wide, self.original, self.retrained = asked.config, asked.wide, asked.original, asked.retrained
        self.objective = OBJECTIVES[self.config.search.objective]
        cast = blind.compute.autocast
        self.evaluate = evaluator(blind.data, self.objective.splits, cast)
        self.everything = evaluator(blind.data, MEASURED, cast)
        self.step_inputs = Prefix(self.config.run.cache, cast)
        self.locks, self.home = kept(self.config).locks, delivery.place(self.config.workspace)
        self.began, self.before, self.shown = time.monotonic(), 0, set[int]()

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return found

    def finished(self) -> list[FrozenTrial]:
        """Those that count, as they ended: a failed one unless it was or will be tried again."""
        over = interrupted(self.study) | {trial.number for trial in storages.lost(self.study)}
        found = [trial for trial in self.trials(*ENDED) if trial.number not in over]
        return sorted(found, key=lambda trial: (trial.datetime_complete, trial.number))

    def found(self) -> Found:
        """What can be read from the trials that there are."""
        fresh = {}
        for key, said in self.study.user_attrs.items():
            if key.startswith("fresh."):
                _, number, seed = key.split(".")
                fresh[int(number), int(seed)] = said
        ended = [_plain(trial) for trial in self.finished()]
        return Found(self.config, list(self.wide), self.original, self.retrained, ended, fresh)

    def go_on(self, first: Mapping[str, Any]) -> None:
        """The first trial, or what an earlier run left."""
        if not self.trials():
            self.study.set_user_attr("about", about(self.config))
            self.study.set_metric_names(list(self.objective.names))
            if first:
                self.study.enqueue_trial(dict(first))
            return
        self.revive(alone=self.config.search.storage is None)
        for trial in storages.lost(self.study):
            again(self.study, trial)
        self.shown, self.before = {trial.number for trial in self.finished()}, len(self.finished())
        say(f"search {self.study.study_name}: going on behind {self.before} trials")

    def revive(self, alone: bool = False) -> None:
        storages.revive(self.study, self.locks, self.home, alone)

    def trials_through(self, row: tracking.Row) -> None:
        """All of them, search.workers at once. What another machine still runs is waited for."""
        said, waits = self.config.search, False
        until = time.time() + said.timeout if said.timeout else None
        while (left := said.trials - len(self.finished())) > 0:
            if until and time.time() > until:
                say(f"search.timeout: {said.trials - left} of {said.trials} trials; the same command goes on")
                return
            self.revive()
            elsewhere = self.trials(TrialState.RUNNING)
            tasks = [Task(self.asked, row.reference(), until)] * max(0, left - len(elsewhere))
            if not tasks and not waits:
                numbers = ", ".join(str(trial.number) for trial in elsewhere)
                say(f"waiting for what runs elsewhere (or is tried again once its heartbeat has stopped): trial {numbers}")
                waits = True
            for _ in spread(_unit, tasks, workers=said.workers, gpus=said.gpus, fail_fast=True):
                self.show(row)
            if not tasks:
                time.sleep(min(said.heartbeat, 5))

    def step(self, task: Task) -> None:
        """One trial, from asking to telling, with a row of its own; none where enough are under way."""
        self.revive()
        if task.until and time.time() > task.until:
            return
        if len(self.finished()) + len(self.trials(TrialState.RUNNING)) >= self.config.search.trials:
            return
        with contextlib.ExitStack() as stack:
            rows_: list[tracking.Row] = []

            def objective(trial: optuna.Trial) -> Point:
                stack.enter_context(running(self.study, trial, self.locks, self.home))
                try:
                    self.study.sampler = sampler(self.config, trial.number - sum(n < trial.number for n in interrupted(self.study)))
                    config = self.config.changed(suggest(trial, self.config, self.wide))
                    rows_.append(stack.enter_context(self._trial_row(config, trial.number, task.above)))
                    return self._spell(config, trial, rows_[0])
                except (optuna.TrialPruned, _Ended):
                    raise
                except BaseException:  # interrupted, or a fault of ours: it does not count
                    again(self.study, self.study.get_trials()[trial.number], None)
                    raise

            def told(study: optuna.Study, trial: FrozenTrial) -> None:
                rows_[0].tags({"trial.state": trial.state.name.lower(), "trial.reason": trial.user_attrs.get("reason")})
                rows_[0].close(ROW[trial.state])

            self.study.optimize(objective, n_trials=1, catch=(_Ended,), callbacks=[told])

    def _spell(self, config: Config, trial: optuna.Trial, row: tracking.Row) -> Point:
        """Run it, note what came out. What goes wrong with the trial alone is its result."""
        ran = self._run(config, row, self._stop())
        told = {"arguments": values_of(config), "ran": ran.number, "curve": ran.curve, "measured": ran.measured}
        if reason := ran.failed or ran.pruned:
            told["reason"] = reason
        for key, value in told.items():
            trial.set_user_attr(key, value)
        if ran.failed:
            raise _Ended
        if ran.pruned:
            raise optuna.TrialPruned
        for reading in readings(self.config.search.objective, self.retrained):
            point = OBJECTIVES[reading].point(ran.measured, self.retrained)
            trial.set_user_attr(reading, point)
            row.metrics({f"search.{reading}.unlearning": point[0], f"search.{reading}.utility": point[1]}, step=ran.number)
        return self.objective.point(ran.measured, self.retrained)

    def _run(self, config: Config, row: tracking.Row, stop: Stop | None = None) -> Ran:
        """Spell the recipe while everything watches, to its end or where it is hopeless."""
        ran = Ran()
        try:
            network, recipe = self.blind.network(config.run.seed), config.recipe()
            network.load_state_dict(self.start)
            others = [each.user_attrs["curve"] for each in self.trials(TrialState.COMPLETE)] if stop else []
            options = RunOptions(
                evaluate=self.evaluate,
                evaluate_every=config.run.evaluate_every,
                seed=config.run.seed,
                autocast=self.blind.compute.autocast,
                step_inputs=self.step_inputs,
                random_init=self.blind.network(config.run.seed),
            )
            for epoch in engine.run(recipe, network, self.blind.data, options):
                ran.number = epoch.number
                row.metrics(observers.metrics(observers.flat(epoch) | observers.timing(epoch)), step=epoch.number)
                if not epoch.metrics:
                    continue
                point = self.objective.point(epoch.metrics, self.retrained)
                row.metrics({"search.unlearning": point[0], "search.utility": point[1]}, step=epoch.number)
                ran.curve.append((epoch.phase, epoch.epoch, *point))
                if stop and epoch.number < epochs(recipe):
                    ran.pruned = stop.reason(ran.curve, _resting(epoch, recipe), others)
                if ran.pruned:
                    return ran
            measured = self.everything(network, self.blind.data)  # anew: a phase may end on its best epoch
            if all(map(math.isfinite, measured.values())):
                ran.measured = measured
            else:
                ran.failed = "diverged: the loss at the end is not finite"
        except Diverged as error:
            ran.failed = f"diverged: {error}"
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            ran.failed = f"out of memory: {redact.said(error)}"
        if ran.failed and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return ran

    def _stop(self) -> Stop | None:
        guess, original = 100.0 / len(self.blind.images.classes), self.objective.point(self.original, self.retrained)[1]
        chance = guess + (original - guess) / 8
        return Stop(original, self.config.search.prune_margin, chance) if self.config.search.prune else None

    # ---- the price of having been chosen

    def freshly(self, row: tracking.Row) -> None:
        """The winners once more with seeds that the search did not have; what was run before counts."""
        found = self.found()
        seeds, chosen = found.seeds(), sorted({trial.number for trial in found.winners().values()})
        tasks = [
            Task(self.asked, row.reference(), None, number, seed)
            for number in chosen
            for seed in seeds
            if (number, seed) not in found.fresh
        ]
        if tasks:
            say(f"trial {', '.join(map(str, chosen))} once more, with {len(seeds)} seeds that the search did not have")
        for task, _ in spread(_unit, tasks, workers=self.config.search.workers, gpus=self.config.search.gpus, fail_fast=True):
            say(f"{task} is done")

    def fresh(self, task: Task, number: int) -> None:
        arguments = self.study.get_trials(deepcopy=False)[number].user_attrs["arguments"]
        config = self.config.changed(arguments)
        config = replace(config, run=config.run.model_copy(update={"seed": task.seed}))
        with self._trial_row(config, number, task.above, task.seed) as row:
            ran = self._run(config, row)
            row.tag("trial.reason", ran.failed or None)
            row.close("FAILED" if ran.failed else "FINISHED")
        said = {"measured": ran.measured} | ({"reason": ran.failed} if ran.failed else {})
        self.study.set_user_attr(f"fresh.{number}.{task.seed}", said)

    # ---- its rows

    @property
    def _name(self) -> RunId:
        return RunId(self.config.method, chain="search")

    def tags(self) -> dict[str, str]:
        known = rows.tags(self.blind, str(self._name))
        return known | {"search": self.study.study_name, "objective": self.config.search.objective}

    def row(self) -> tracking.Row:
        said = {f"search.{key}": value for key, value in self.config.search.model_dump().items() if key != "storage"}
        return tracking.Row.open(
            self.config.workspace,
            name=str(self._name),
            tags=self.tags(),
            params=self.config.resolved() | said,
            description=f"**Search of {self.config.method}**. {self.objective.note} A row below is a trial; none saw the test split.",
            previous=self.study.user_attrs.get("row"),
        )

    def _trial_row(self, config: Config, number: int, above: Mapping[str, Any], seed: int | None = None) -> tracking.Row:
        own = {f"methods.{config.method}.{word}": value for word, value in values_of(config).items()}
        again_ = "" if seed is None else f" Run anew with seed {seed}, which the search did not have."
        return tracking.Row.open(
            config.workspace,
            name=trial_name(config.method, number, seed),
            tags=self.tags() | {"trial": str(number)} | ({} if seed is None else {"fresh": str(seed)}),
            params=own | {"recipe": repr(config.recipe()), "run.seed": config.run.seed},
            description=f"Trial {number} of a search. {self.objective.note}{again_}",
            parent=above,
            launched=False,
        )

    def show(self, row: tracking.Row) -> None:
        """A line on stderr for what is new; numbers, tables and pictures on the search's row."""
        found = self.found()
        new = [trial for trial in found.ended if trial.number not in self.shown]
        if not new:
            return
        self.shown |= {trial.number for trial in new}
        ended, wanted, count, winner = len(found.ended), self.config.search.trials, found.counts(), found.winner()
        left = (time.monotonic() - self.began) / max(1, ended - self.before) * (wanted - ended)
        said = [f"trial {trial.number} {trial.state}: {pair(trial.values) or trial.reason}" for trial in new]
        alive = len(self.trials(TrialState.RUNNING))
        said += [f"{ended} of {wanted} done, {alive} running, {count['pruned']} pruned, {count['failed']} failed"]
        said += [f"best {winner.number}: {pair(winner.values)}" if winner else f"none yet with {found.floor()}"]
        say(" | ".join([*said, f"left {time.strftime('%H:%M:%S', time.gmtime(max(left, 0)))}"]))
        best = {"search.best.unlearning": winner.point[0], "search.best.utility": winner.point[1]} if winner else {}
        row.metrics({f"search.{name}": value for name, value in count.items()} | best, step=ended)
        row.refresh(lambda: found.table(found.ended).encode(), "trials.csv")
        row.refresh(lambda: found.table(found.front()).encode(), "front.csv")
        row.refresh(found.picture, "front.png")
        row.refresh(found.budgets, "budgets.png")
        if len(found.complete) >= ENOUGH:
            for name, draw in self._optunas().items():
                row.refresh(partial(_drawn, draw), f"{name}.png")

    def end(self, row: tracking.Row) -> None:
        """The front on stdout and in files; what the winner is worth with fresh seeds and how to take it on stderr."""
        found = self.found()
        if not found.complete:
            reason = found.ended[-1].reason if found.ended else "none was begun"
            raise RunFailed(f"no trial of {self.study.study_name} came to its end; the last: {reason}")
        found.write(Layout(self.config.workspace).search(self.config.method))
        print(found.table(found.front()), end="", flush=True)
        chosen = found.chosen()
        for reading, of in chosen.items():
            row.metrics({f"search.{reading}.{key}": value for key, value in of.items() if key != "trial"}, step=len(found.ended))
            row.tag(f"winner.{reading}", of["trial"])
            say(price(reading, of))
        row.text("fresh.csv", found.fresh_table())
        row.text("best.json", json.dumps({"chosen": chosen}, indent=2) + "\n")
        winner = found.winner()
        if winner is None:
            return say(f"no trial has {found.floor()}: choose one from the front")
        row.tag("winner", winner.number)
        about_it = ("run.workspace", "search.method", "search.objective", "search.sampler", "search.seed", "search.storage")
        keys = "".join(f" --{key} {redact.clean(self.config.given[key])}" for key in about_it if key in self.config.given)
        say(f"take the best as a variant: python src/search.py adopt {winner.number}{keys}")

    def _optunas(self) -> dict[str, Callable[[], Any]]:
        """Optuna's own pictures, by name."""
        import optuna.visualization.matplotlib as pictures

        def value(which: int, trial: FrozenTrial) -> float:
            return float(trial.values[which])

        def contour() -> Any:
            least = optuna.importance.get_param_importances(self.study, target=partial(value, 0))
            axes = pictures.plot_contour(self.study, list(least)[:3], target=partial(value, 0), target_name=self.objective.names[0])
            axes.flat[0].figure.set_size_inches(10, 8) if hasattr(axes, "flat") else None
            return axes

        slices = {
            f"slice.{word}": partial(pictures.plot_slice, self.study, target=partial(value, n), target_name=self.objective.names[n])
            for n, word in enumerate(("unlearning", "utility"))
        }
        return {"importances": partial(pictures.plot_param_importances, self.study), **slices, "contour": contour}


def _plain(trial: FrozenTrial) -> Trial:
    said = trial.user_attrs
    values = (trial.values[0], trial.values[1]) if trial.state is TrialState.COMPLETE else None
    reason = said.get("reason", f"its process died, {TRIES} times")
    return Trial(trial.number, trial.state.name.lower(), values, said.get("arguments", trial.params), said, reason)


def _resting(epoch: engine.Epoch, recipe: Recipe) -> float | None:
    """The share of the last phase that is behind us; None before it, or where it still climbs."""
    last = recipe[-1]
    return (epoch.epoch + 1) / last.epochs if isinstance(last, Phase) and epoch.phase == last.name and epoch.scale is None else None


def _out_of_memory(error: BaseException) -> bool:
    """Torch says it of a GPU by a class of its own, of the CPU by a text."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error) or "t allocate memory" in str(error)


def _drawn(draw: Callable[[], Any]) -> bytes:
    """PNG of one of Optuna's pictures, which are made for a window; where it can't be drawn (too few values, say) the reason instead."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    drawn = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context():  # they set a style for the whole process
        warnings.simplefilter("ignore")
        try:
            figure = np.ravel(draw())[0].figure
        except Exception as error:  # a picture must never be what ends a search
            figure = plt.figure()
            figure.text(0, 1, f"can't be drawn: {redact.said(error)}", va="top")
        figure.savefig(drawn, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return drawn.getvalue()


# ---- what it leads to -----------------------------------------------------------------------------------------------


def adopt(config: Config, number: int, name: str = "") -> None:
    """Write a complete trial of the newest search by these keys into params.yaml, as a variant."""
    config = _chosen(config)
    name = name or f"{config.method}_trial_{number}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise UserError(f"a variant can't be called {name!r}; it takes letters, digits, _ and -")
    if name in config.methods:
        raise UserError(f"methods.{name} is there already; give the variant another name: adopt {number} <name>")
    study = _newest(config)
    found = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    state = found[number].state if number in found else None
    if state is not TrialState.COMPLETE:
        good = [str(n) for n, trial in found.items() if trial.state is TrialState.COMPLETE]
        what = state.name.lower() if state else "not there"
        raise UserError(f"trial {number} of {study.study_name} is {what}; it takes one that is complete: {', '.join(good) or 'none is'}")
    params = root() / "params.yaml"
    own = values_of(replace(load(params=params), method=config.method))
    differs = {word: value for word, value in found[number].user_attrs["arguments"].items() if value != own[word]}
    write_text(params, with_variant(params.read_text(encoding="utf-8"), name, config.method, differs))
    say(f"{params.name}: methods.{name} is trial {number} of {study.study_name}; python src/unlearn.py --method {name}")


def _newest(config: Config) -> optuna.Study:
    there = config.search.storage or (kept(config).trials / "search.db").exists()
    known = opened(config, optuna.get_all_study_summaries) if there else []
    found = [study for study in known if study.user_attrs.get("about") == about(config) and study.datetime_start]
    if not found:
        by = ", ".join(f"{key} {value}" for key, value in about(config).items())
        raise UserError(f"there is no search by {by} in {config.workspace}; python src/search.py makes one")
    name = max(found, key=lambda study: study.datetime_start).study_name
    newest: optuna.Study = opened(config, partial(optuna.load_study, study_name=name))
    return newest
