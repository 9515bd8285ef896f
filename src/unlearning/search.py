"""Search of a method's arguments: ask, spell the recipe, tell. It names no method.

A search is found again by a hash of all that its trials depend on. The sampler is seeded anew for each trial, by the trial's place:
a search that was killed and goes on proposes what it would have proposed without the kill (with several workers what is proposed
depends on who is first). A trial is a unit of work: its process may die, and another tries it again.
"""

import contextlib
import csv
import io
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from unlearning import checkpoint, delivery, engine, journal, observers, references, rows, tracking
from unlearning import storage as storages
from unlearning.checkout import root
from unlearning.config import Config, load
from unlearning.engine import Evaluate
from unlearning.errors import BadInput, Diverged, Failed
from unlearning.files import digest, short, whole, write_json, write_text
from unlearning.follow import held
from unlearning.fronts import Place, Point, Stop, front, hypervolume, nested, picture
from unlearning.intervals import over_seeds
from unlearning.keys import Space
from unlearning.objectives import OBJECTIVES, Measured, evaluator, without_test
from unlearning.observers import MEASURED
from unlearning.prefix import Prefix
from unlearning.recipe import Phase, Recipe, epochs
from unlearning.spaces import spaces, suggest, values_of
from unlearning.spread import spread
from unlearning.storage import TRIES, Storage, again, interrupted, patiently, running
from unlearning.unlearn import check
from unlearning.variants import with_variant
from unlearning.workspace import Prepared, prepare, say

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}  # with Optuna's defaults
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ROW: dict[TrialState, tracking.Status] = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
WITHIN = 1.0  # points of validation accuracy, the winner's condition: Search.least
ENOUGH = 4  # complete trials, for pictures of arguments


def search(config: Config) -> None:
    """Trials until there are search.trials of them, those of earlier runs counted; then the winner with seeds that the search
    did not have; ends with the front on stdout."""
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
    with held(kept(config) / "locks" / f"search.{name}.lock", f"the search {name}"):
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


def _reference(prepared: Prepared, needed: bool) -> dict[str, Tensor] | None:
    """The retrained model: made where it is needed; else what is there and belongs, so that trials can be read both ways."""
    if needed:
        return references.weights(prepared, "retrained")
    if (prepared.config.workspace / "models" / "retrained.safetensors").exists():
        with contextlib.suppress(BadInput):
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


def kept(config: Config) -> Path:
    """Where trials and their locks stand: one place for all the copies that DVC makes of a checkout."""
    return config.path(config.run.workspace) / ".lethe"


def storage(config: Config) -> str:
    """The database, in a folder that is there."""
    if config.search.storage:
        return config.search.storage
    folder = kept(config) / "trials"
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
        where = journal.clean(storage(config))
        raise BadInput(f"search.storage: Optuna can't work with {where}: {journal.said(error)}") from error


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
        self.view = Prefix(self.config.run.cache, cast)
        self.locks, self.home = kept(self.config) / "locks", delivery.place(self.config.workspace)
        self.began, self.before, self.shown = time.monotonic(), 0, set[int]()

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return found

    def finished(self) -> list[FrozenTrial]:
        """Those that count, as they ended: a failed one unless it was or will be tried again."""
        over = interrupted(self.study) | {trial.number for trial in storages.lost(self.study)}
        found = [trial for trial in self.trials(*ENDED) if trial.number not in over]
        return sorted(found, key=lambda trial: (trial.datetime_complete, trial.number))

    def complete(self) -> list[FrozenTrial]:
        return self.trials(TrialState.COMPLETE)

    def front(self) -> list[FrozenTrial]:
        done = self.complete()
        return [done[n] for n in front([_point(trial) for trial in done])]

    def readings(self) -> list[str]:
        """The objectives by which its trials can be read: its own first, oracle where the retrained model is known."""
        wanted = [self.config.search.objective, "oracle_free", *(["oracle"] if self.retrained else [])]
        return list(dict.fromkeys(wanted))

    def point(self, trial: FrozenTrial, reading: str) -> Point | None:
        """None where the trial did not measure what the reading needs."""
        measured = trial.user_attrs["measured"]
        if reading == self.config.search.objective:
            return _point(trial)
        known = all(f"{split}.accuracy" in measured for split in OBJECTIVES[reading].splits)
        return OBJECTIVES[reading].point(measured, self.retrained) if known else None

    def least(self, reading: str) -> float:
        """Validation accuracy that a winner has at least: a point below the original's. With the retrained model known, below the
        lower of the two: a trial that is like it must be able to win."""
        known = [self.original["utility"], *([self.retrained["utility"]] if OBJECTIVES[reading].oracle else [])]
        return min(known) - WITHIN

    def winner(self, reading: str | None = None) -> FrozenTrial | None:
        """The least `unlearning` among those with at least that validation accuracy."""
        reading = reading or self.config.search.objective
        good = [(self.point(trial, reading), trial) for trial in self.complete()]
        kept_ = [(point, trial) for point, trial in good if point and trial.user_attrs["measured"]["utility"] >= self.least(reading)]
        best = min(kept_, key=lambda pair: (pair[0][0], -pair[0][1], pair[1].number), default=None)
        return best and best[1]

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
        for reading in self.readings():
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
            others = [each.user_attrs["curve"] for each in self.complete()] if stop else []
            for epoch in engine.run(
                recipe,
                network,
                self.blind.data,
                evaluate=self.evaluate,
                evaluate_every=config.run.evaluate_every,
                seed=config.run.seed,
                autocast=self.blind.compute.autocast,
                view=self.view,
                blank=self.blind.network(config.run.seed),
            ):
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
            ran.failed = f"out of memory: {journal.said(error)}"
        if ran.failed and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return ran

    def _stop(self) -> Stop | None:
        guess, original = 100.0 / len(self.blind.images.classes), self.objective.point(self.original, self.retrained)[1]
        chance = guess + (original - guess) / 8
        return Stop(original, self.config.search.prune_margin, chance) if self.config.search.prune else None

    # ---- the price of having been chosen

    def winners(self) -> dict[str, FrozenTrial]:
        """By reading, those that there are."""
        found = {reading: self.winner(reading) for reading in self.readings()}
        return {reading: trial for reading, trial in found.items() if trial}

    def freshly(self, row: tracking.Row) -> None:
        """The winners once more with seeds that the search did not have; what was run before counts."""
        seeds = [self.config.run.seed + n for n in range(1, self.config.search.fresh_seeds + 1)]
        chosen = sorted({trial.number for trial in self.winners().values()})
        known = self.study.user_attrs
        tasks = [
            Task(self.asked, row.reference(), None, number, seed)
            for number in chosen
            for seed in seeds
            if _fresh(number, seed) not in known
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
        self.study.set_user_attr(_fresh(number, task.seed), said)

    def chosen(self) -> dict[str, dict[str, Any]]:
        """By reading: its winner, what it scored in the search and with fresh seeds, and how far the first is from the second."""
        found: dict[str, dict[str, Any]] = {}
        known = self.study.user_attrs
        for reading, trial in self.winners().items():
            point = self.point(trial, reading)
            assert point
            of = {"trial": trial.number, "unlearning": point[0], "utility": point[1]}
            again_ = [known.get(_fresh(trial.number, self.config.run.seed + n)) for n in range(1, self.config.search.fresh_seeds + 1)]
            measured = [each["measured"] for each in again_ if each and each["measured"]]
            if measured:
                points = [OBJECTIVES[reading].point(each, self.retrained) for each in measured]
                for n, key in enumerate(("unlearning", "utility")):
                    fresh = over_seeds([each[n] for each in points])
                    low, high = fresh.ends()
                    of |= {f"fresh.{key}": fresh.value, f"fresh.{key}.low": low, f"fresh.{key}.high": high}
                    of |= {f"bias.{key}": point[n] - fresh.value, f"bias.{key}.low": point[n] - high, f"bias.{key}.high": point[n] - low}
                of["fresh.seeds"] = len(measured)
            found[reading] = of
        return found

    def freshly_table(self) -> str:
        """CSV: every fresh run of the winners, by each reading."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        readings = self.readings()
        read = [key for key in self.original if key != "utility"]
        lines.writerow(["trial", "seed", *readings, "utility", *read, "reason"])
        for key, said in self.study.user_attrs.items():
            if key.startswith("fresh."):
                _, number, seed = key.split(".")
                measured = said["measured"]
                points = [OBJECTIVES[each].point(measured, self.retrained)[0] if measured else "" for each in readings]
                cells = [*points, measured.get("utility", ""), *(measured.get(each, "") for each in read)]
                lines.writerow([number, seed, *map(_cell, cells), said.get("reason", "")])
        return written.getvalue()

    # ---- its rows

    def tags(self) -> dict[str, str]:
        known = rows.tags(self.blind, f"search/{self.config.method}")
        return known | {"search": self.study.study_name, "objective": self.config.search.objective}

    def row(self) -> tracking.Row:
        said = {f"search.{key}": value for key, value in self.config.search.model_dump().items() if key != "storage"}
        return tracking.Row.open(
            self.config.workspace,
            name=f"search/{self.config.method}",
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
            name=f"search/{config.method}/{number}" + ("" if seed is None else f"/seed{seed}"),
            tags=self.tags() | {"trial": str(number)} | ({} if seed is None else {"fresh": str(seed)}),
            params=own | {"recipe": repr(config.recipe()), "run.seed": config.run.seed},
            description=f"Trial {number} of a search. {self.objective.note}{again_}",
            parent=above,
            launched=False,
        )

    def show(self, row: tracking.Row) -> None:
        """A line on stderr for what is new; numbers, tables and pictures on the search's row."""
        ended, done, winner, count = self.finished(), self.complete(), self.winner(), self.counts()
        new = [trial for trial in ended if trial.number not in self.shown]
        if not new:
            return
        self.shown |= {trial.number for trial in new}
        left = (time.monotonic() - self.began) / max(1, len(ended) - self.before) * (self.config.search.trials - len(ended))
        said = [f"trial {trial.number} {trial.state.name.lower()}: {_pair(trial.values) or _reason(trial)}" for trial in new]
        alive = len(self.trials(TrialState.RUNNING))
        said += [f"{len(ended)} of {self.config.search.trials} done, {alive} running, {count['pruned']} pruned, {count['failed']} failed"]
        said += [f"best {winner.number}: {_pair(winner.values)}" if winner else f"none yet with {self._floor()}"]
        say(" | ".join([*said, f"left {time.strftime('%H:%M:%S', time.gmtime(max(left, 0)))}"]))
        best = {"search.best.unlearning": winner.values[0], "search.best.utility": winner.values[1]} if winner else {}
        row.metrics({f"search.{name}": value for name, value in count.items()} | best, step=len(ended))
        row.refresh(lambda: self.table(self.finished()).encode(), "trials.csv")
        row.refresh(lambda: self.table(self.front()).encode(), "front.csv")
        row.refresh(self.picture, "front.png")
        row.refresh(self.budgets, "budgets.png")
        if len(done) >= ENOUGH:
            for name, draw in self._optunas().items():
                row.refresh(partial(_drawn, draw), f"{name}.png")

    def _floor(self) -> str:
        reading = self.config.search.objective
        lower = OBJECTIVES[reading].oracle and self.retrained["utility"] < self.original["utility"]
        return f"a validation accuracy of {self.least(reading):.2f} (a point below the {'retrained model' if lower else 'original'}'s)"

    def worst(self) -> Point:
        first = self.objective.point(self.original, self.retrained)[0] if self.objective.worst is None else self.objective.worst
        return first, 0.0

    def counts(self) -> dict[str, float]:
        """How many trials counted, were stopped and failed; the area that the complete ones dominate."""
        ended = self.finished()
        stopped, failed = (sum(trial.state is state for trial in ended) for state in (TrialState.PRUNED, TrialState.FAIL))
        area = hypervolume([_point(trial) for trial in self.complete()], self.worst())
        return {"done": len(ended), "pruned": stopped, "failed": failed, "hypervolume": area}

    def grown(self) -> list[list[Point]]:
        """The points that were known when 0, 1, 2, ... trials had ended."""
        known: list[list[Point]] = [[]]
        for trial in self.finished():
            known.append([*known[-1], *([_point(trial)] if trial.state is TrialState.COMPLETE else [])])
        return known

    def budgets(self) -> bytes:
        grown = self.grown()
        title = f"{self.config.method}, {self.config.search.objective}: would more trials help?"
        return nested(title, self.objective.names, grown, [hypervolume(points, self.worst()) for points in grown])

    def budgets_table(self) -> str:
        lines = [f"{n},{len(front(points))},{hypervolume(points, self.worst()):.6g}" for n, points in enumerate(self.grown()) if n]
        return "\n".join(["trials,front,hypervolume", *lines]) + "\n"

    def write(self) -> None:
        """search/<method>/ in the workspace: what the row shows, for those who read files."""
        folder, winner = self.config.workspace / "search" / self.config.method, self.winner()
        best = {"trial": winner.number, "unlearning": winner.values[0], "utility": winner.values[1]} if winner else {}
        for name, draw in (("front.png", self.picture), ("budgets.png", self.budgets)):
            with whole(folder / name) as beside:
                beside.write_bytes(draw())
        write_text(folder / "trials.csv", self.table(self.finished()))
        write_text(folder / "front.csv", self.table(self.front()))
        write_text(folder / "budgets.csv", self.budgets_table())
        write_text(folder / "fresh.csv", self.freshly_table())
        write_json(folder / "best.json", self.counts() | best | {"chosen": self.chosen()})

    def end(self, row: tracking.Row) -> None:
        """The front on stdout and in files; what the winner is worth with fresh seeds and how to take it on stderr."""
        if not self.complete():
            ended = [_reason(trial) for trial in self.finished()] or ["none was begun"]
            raise Failed(f"no trial of {self.study.study_name} came to its end; the last: {ended[-1]}")
        self.write()
        print(self.table(self.front()), end="", flush=True)
        chosen, step = self.chosen(), len(self.finished())
        for reading, of in chosen.items():
            row.metrics({f"search.{reading}.{key}": value for key, value in of.items() if key != "trial"}, step=step)
            row.tag(f"winner.{reading}", of["trial"])
            say(_price(reading, of))
        row.text("fresh.csv", self.freshly_table())
        row.text("best.json", json.dumps({"chosen": chosen}, indent=2) + "\n")
        winner = self.winner()
        if winner is None:
            return say(f"no trial has {self._floor()}: choose one from the front")
        row.tag("winner", winner.number)
        about_it = ("run.workspace", "search.method", "search.objective", "search.sampler", "search.seed", "search.storage")
        keys = "".join(f" --{key} {journal.clean(self.config.given[key])}" for key in about_it if key in self.config.given)
        say(f"take the best as a variant: python src/search.py adopt {winner.number}{keys}")

    def table(self, trials: Iterable[FrozenTrial]) -> str:
        """CSV: both objectives, the first by each other reading, what was measured, epochs that ran, arguments."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        words, read = list(self.wide), [key for key in self.original if key != "utility"]
        others = self.readings()[1:]
        lines.writerow(["trial", "state", "unlearning", "utility", *others, *read, "ran", *words, "reason"])
        for trial in trials:
            said = trial.user_attrs
            measured, own = said.get("measured", {}), said.get("arguments", trial.params)
            points = [self.point(trial, reading) if measured else None for reading in others]
            cells = [*(trial.values or ("", "")), *(point[0] if point else "" for point in points)]
            cells += [*(measured.get(key, "") for key in read), said.get("ran", ""), *(own.get(word, "") for word in words)]
            reason = "" if trial.state is TrialState.COMPLETE else _reason(trial)
            lines.writerow([trial.number, trial.state.name.lower(), *map(_cell, cells), reason])
        return written.getvalue()

    def picture(self) -> bytes:
        done, winner = self.complete(), self.winner()
        named = [("original", self.objective.point(self.original, self.retrained), "#D55E00", "s")]
        own = [trial for trial in done if trial.user_attrs["arguments"] == values_of(self.config)]
        named += [("own values", _point(trial), "#222222", "D") for trial in own[:1]]
        named += [(f"best: {winner.number}", _point(winner), "#009E73", "*")] if winner else []
        least = self.least(self.config.search.objective) if self.objective.names[1] == "validation accuracy" else None
        title = f"{self.config.method}, {self.config.search.objective}"
        return picture(title, self.objective.names, [_point(trial) for trial in done], named, least)

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


def _resting(epoch: engine.Epoch, recipe: Recipe) -> float | None:
    """The share of the last phase that is behind us; None before it, or where it still climbs."""
    last = recipe[-1]
    return (epoch.epoch + 1) / last.epochs if isinstance(last, Phase) and epoch.phase == last.name and epoch.scale is None else None


def _out_of_memory(error: BaseException) -> bool:
    """Torch says it of a GPU by a class of its own, of the CPU by a text."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error) or "t allocate memory" in str(error)


def _reason(trial: FrozenTrial) -> str:
    reason: str = trial.user_attrs.get("reason", f"its process died, {TRIES} times")
    return reason


def _fresh(number: int, seed: int) -> str:
    """Where the study keeps a fresh run."""
    return f"fresh.{number}.{seed}"


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _price(reading: str, of: Mapping[str, Any]) -> str:
    """One line on what a winner's score is worth."""
    said = f"best by {reading}: trial {of['trial']}, {_pair((of['unlearning'], of['utility']))} in the search"
    if "fresh.seeds" not in of:
        return said
    biases = (f"{key} {_signed(of, f'bias.{key}')}" for key in ("unlearning", "utility"))
    fresh = _pair((of["fresh.unlearning"], of["fresh.utility"]))
    return f"{said}; {fresh} with {of['fresh.seeds']} fresh seeds; selection bias (search minus fresh): {', '.join(biases)}"


def _signed(of: Mapping[str, Any], key: str) -> str:
    return f"{of[key]:+.3g} [{of[key + '.low']:+.3g}, {of[key + '.high']:+.3g}]"


def _pair(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:.4g}" for value in values or ())


def _point(trial: FrozenTrial) -> Point:
    return trial.values[0], trial.values[1]


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
            figure.text(0, 1, f"can't be drawn: {journal.said(error)}", va="top")
        figure.savefig(drawn, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return drawn.getvalue()


# ---- what it leads to -----------------------------------------------------------------------------------------------


def adopt(config: Config, number: int, name: str = "") -> None:
    """Write a complete trial of the newest search by these keys into params.yaml, as a variant."""
    name = name or f"{config.method}_trial_{number}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise BadInput(f"a variant can't be called {name!r}; it takes letters, digits, _ and -")
    if name in config.methods:
        raise BadInput(f"methods.{name} is there already; give the variant another name: adopt {number} <name>")
    study = _newest(config)
    found = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    state = found[number].state if number in found else None
    if state is not TrialState.COMPLETE:
        good = [str(n) for n, trial in found.items() if trial.state is TrialState.COMPLETE]
        what = state.name.lower() if state else "not there"
        raise BadInput(f"trial {number} of {study.study_name} is {what}; it takes one that is complete: {', '.join(good) or 'none is'}")
    params = root() / "params.yaml"
    own = values_of(replace(load(params=params), method=config.method))
    differs = {word: value for word, value in found[number].user_attrs["arguments"].items() if value != own[word]}
    write_text(params, with_variant(params.read_text(encoding="utf-8"), name, config.method, differs))
    say(f"{params.name}: methods.{name} is trial {number} of {study.study_name}; python src/unlearn.py --method {name}")


def _newest(config: Config) -> optuna.Study:
    there = config.search.storage or (kept(config) / "trials" / "search.db").exists()
    known = opened(config, optuna.get_all_study_summaries) if there else []
    found = [study for study in known if study.user_attrs.get("about") == about(config) and study.datetime_start]
    if not found:
        raise BadInput(f"there is no search by {about(config)} in {config.workspace}; python src/search.py makes one")
    name = max(found, key=lambda study: study.datetime_start).study_name
    newest: optuna.Study = opened(config, partial(optuna.load_study, study_name=name))
    return newest
