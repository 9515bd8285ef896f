"""Search of a method's arguments: ask, spell the recipe, tell. The only file that imports optuna, and it names no method.

A search is found again by a hash of all that its trials depend on. The sampler is seeded anew for each trial, by the trial's place:
a search that was killed and goes on proposes what it would have proposed without the kill.
"""

import csv
import io
import json
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

from unlearning import checkpoint, engine, journal, observers, references, rows, tracking
from unlearning.checkout import root
from unlearning.config import Config, load
from unlearning.engine import Evaluate
from unlearning.errors import BadInput, Diverged, Failed
from unlearning.files import digest, short, whole, write_json, write_text
from unlearning.follow import held
from unlearning.fronts import Place, Point, Stop, front, hypervolume, picture
from unlearning.keys import Space
from unlearning.objectives import OBJECTIVES, Measured, Objective, evaluator, without_test
from unlearning.prefix import Prefix
from unlearning.recipe import Phase, Recipe, epochs
from unlearning.spaces import spaces, suggest, values_of
from unlearning.unlearn import check
from unlearning.variants import with_variant
from unlearning.workspace import Prepared, prepare, say

SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}  # with Optuna's defaults
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ROW = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
WITHIN = 1.0  # points of validation accuracy below the original: the winner's condition
ENOUGH = 4  # complete trials, for pictures of arguments

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def search(config: Config) -> None:
    """Trials until there are search.trials of them, those of earlier runs counted; ends with the front on stdout."""
    if config.search.storage:  # refused before anything is written
        _opened(config, optuna.storages.get_storage)
    prepared = prepare(config)
    objective = OBJECTIVES[config.search.objective]
    wide, first = spaces(config)
    for word, space in wide.items():
        for value in space.choices or (space.low, space.high):
            check(prepared, config.changed({word: value}).recipe())
    start = references.weights(prepared, "original")
    reference = references.weights(prepared, "retrained") if objective.oracle else None
    blind = without_test(prepared)
    del prepared
    evaluate = evaluator(blind.data, objective.splits, blind.compute.autocast)
    original, retrained = (_measured(blind, evaluate, tensors) for tensors in (start, reference))
    name = _name(blind, wide, [checkpoint.weights_hash(start), retrained])
    with held(kept(config) / "locks" / f"search.{name}.lock", f"the search {name}"):
        study = _opened(config, partial(optuna.create_study, study_name=name, directions=["minimize", "maximize"], load_if_exists=True))
        run = Search(blind, objective, start, original, retrained, evaluate, wide, study, Prefix(config.run.cache, blind.compute.autocast))
        run.go_on(first)
        with run.row() as row:
            study.set_user_attr("row", row.reference())
            while len(run.finished()) < config.search.trials:
                if config.search.timeout and time.monotonic() - run.began > config.search.timeout:
                    say(f"search.timeout: {len(run.finished())} of {config.search.trials} trials; the same command goes on")
                    break
                run.step(row)
                run.show(row)
            run.end(row)


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


def _opened(config: Config, call: Callable[..., Any]) -> Any:
    try:
        return call(storage=storage(config))
    except Exception as error:  # a driver that is missing, a server that is away: as many kinds as databases
        where = journal.clean(storage(config))
        raise BadInput(f"search.storage: Optuna can't work with {where}: {journal.said(error)}") from error


def sampler(config: Config, place: int) -> optuna.samplers.BaseSampler:
    seed = int(digest([str(config.search.seed), str(place)])[:8], 16)
    made: optuna.samplers.BaseSampler = getattr(optuna.samplers, SAMPLERS[config.search.sampler])(seed=seed)
    return made


# ---- one search -----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """A search under way. `blind`: the workspace without the test split; `original`, `retrained`: what they measure there."""

    blind: Prepared
    objective: Objective
    start: dict[str, Tensor]
    original: Measured
    retrained: Measured
    evaluate: Evaluate
    wide: dict[str, Space]
    study: optuna.Study
    view: Prefix
    began: float = field(default_factory=time.monotonic)
    ran: int = 0

    @property
    def config(self) -> Config:
        return self.blind.config

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return found

    def finished(self) -> list[FrozenTrial]:
        """Those that count: failed ones only when they failed by themselves."""
        return [trial for trial in self.trials(*ENDED) if trial.state is not TrialState.FAIL or "reason" in trial.user_attrs]

    def complete(self) -> list[FrozenTrial]:
        return self.trials(TrialState.COMPLETE)

    def front(self) -> list[FrozenTrial]:
        done = self.complete()
        return [done[n] for n in front([_point(trial) for trial in done])]

    def winner(self) -> FrozenTrial | None:
        """The least `unlearning` among those within a point of the original's validation accuracy."""
        good = [trial for trial in self.complete() if trial.user_attrs["measured"]["utility"] >= self.original["utility"] - WITHIN]
        return min(good, key=lambda trial: (trial.values[0], -trial.values[1], trial.number), default=None)

    def go_on(self, first: Mapping[str, Any]) -> None:
        """The first trial, or what an earlier run left: the search's lock is held, so what is RUNNING runs no more."""
        if not self.trials():
            self.study.set_user_attr("about", about(self.config))
            self.study.set_metric_names(list(self.objective.names))
            if first:
                self.study.enqueue_trial(dict(first))
            return
        for trial in self.trials(TrialState.RUNNING):
            self.again(trial.number, trial.params)
        say(f"search {self.study.study_name}: going on behind {len(self.finished())} trials")

    def again(self, number: int, params: Mapping[str, Any]) -> None:
        """An interrupted trial fails without a reason, so that it does not count, and its arguments wait to be tried again."""
        if params:
            self.study.enqueue_trial(dict(params), user_attrs={"again": number})
        self.study.tell(number, state=TrialState.FAIL)

    def step(self, above: tracking.Row) -> None:
        """One trial, from asking to telling, with a row of its own."""
        self.study.sampler = sampler(self.config, len(self.finished()))
        trial = self.study.ask()
        try:
            config = self.config.changed(suggest(trial, self.config, self.wide))
            with self._trial_row(config, trial.number, above) as row:
                state, reason = self._spell(config, trial, row)
                row.tags({"trial.state": state.name.lower(), "trial.reason": reason or None})
                row.close(ROW[state])  # type: ignore[arg-type]
        except BaseException:
            self.again(trial.number, trial.params)
            raise
        self.ran += 1

    def _spell(self, config: Config, trial: optuna.Trial, row: tracking.Row) -> tuple[TrialState, str]:
        """Spell the recipe while everything watches, then tell. What goes wrong with the trial alone is its result."""
        network, recipe = self.blind.network(config.run.seed), config.recipe()
        network.load_state_dict(self.start)
        spelled = engine.run(
            recipe,
            network,
            self.blind.data,
            evaluate=self.evaluate,
            evaluate_every=config.run.evaluate_every,
            seed=config.run.seed,
            autocast=self.blind.compute.autocast,
            view=self.view,
            blank=self.blind.network(config.run.seed),
        )
        state, reason, ran, curve = TrialState.COMPLETE, "", 0, list[Place]()
        point: Point | None = None
        measured: Measured = {}
        stop, others = self._stop(), [each.user_attrs["curve"] for each in self.complete()]
        try:
            for epoch in spelled:
                ran = epoch.number
                row.metrics(observers.metrics(observers.flat(epoch) | observers.timing(epoch)), step=ran)
                if not epoch.metrics:
                    continue
                point = self.objective.point(epoch.metrics, self.retrained)
                row.metrics({"search.unlearning": point[0], "search.utility": point[1]}, step=epoch.number)
                curve.append((epoch.phase, epoch.epoch, *point))
                if stop and epoch.number < epochs(recipe):
                    reason = stop.reason(curve, _resting(epoch, recipe), others)
                if reason:
                    state, point = TrialState.PRUNED, None
                    break
            else:
                measured = self.evaluate(network, self.blind.data)  # anew: a phase may end on its best epoch
                point = self.objective.point(measured, self.retrained)
        except Diverged as error:
            state, reason, point = TrialState.FAIL, f"diverged: {error}", None
        except torch.OutOfMemoryError as error:
            state, reason, point = TrialState.FAIL, f"out of memory: {str(error).splitlines()[0]}", None
        told = {"arguments": values_of(config), "ran": ran, "curve": curve, "measured": measured}
        for key, value in (told | ({"reason": reason} if reason else {})).items():
            trial.set_user_attr(key, value)
        self.study.tell(trial, point, state)
        return state, reason

    def _stop(self) -> Stop | None:
        guess, original = 100.0 / len(self.blind.images.classes), self.objective.point(self.original, self.retrained)[1]
        chance = guess + (original - guess) / 8
        return Stop(original, self.config.search.prune_margin, chance) if self.config.search.prune else None

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

    def _trial_row(self, config: Config, number: int, above: tracking.Row) -> tracking.Row:
        own = {f"methods.{config.method}.{word}": value for word, value in values_of(config).items()}
        return tracking.Row.open(
            config.workspace,
            name=f"search/{config.method}/{number}",
            tags=self.tags() | {"trial": str(number)},
            params=own | {"recipe": repr(config.recipe())},
            description=f"Trial {number} of a search. {self.objective.note}",
            parent=above.reference(),
            launched=False,
        )

    def show(self, row: tracking.Row) -> None:
        """A line on stderr; numbers, tables and pictures on the search's row."""
        ended, done, winner, count = self.finished(), self.complete(), self.winner(), self.counts()
        newest = max(ended, key=lambda trial: trial.datetime_complete)
        left = (time.monotonic() - self.began) / self.ran * (self.config.search.trials - len(ended))
        said = [f"trial {newest.number} {newest.state.name.lower()}: {_pair(newest.values) or newest.user_attrs['reason']}"]
        running = len(self.trials(TrialState.RUNNING))
        said += [f"{len(ended)} of {self.config.search.trials} done, {running} running, {count['pruned']} pruned, {count['failed']} failed"]
        said += [f"best {winner.number}: {_pair(winner.values)}" if winner else "none yet within a point of the original"]
        say(" | ".join([*said, f"left {time.strftime('%H:%M:%S', time.gmtime(max(left, 0)))}"]))
        best = {"search.best.unlearning": winner.values[0], "search.best.utility": winner.values[1]} if winner else {}
        row.metrics({f"search.{name}": value for name, value in count.items()} | best, step=len(ended))
        row.refresh(lambda: self.table(self.finished()).encode(), "trials.csv")
        row.refresh(lambda: self.table(self.front()).encode(), "front.csv")
        row.refresh(self.picture, "front.png")
        if len(done) >= ENOUGH:
            for name, draw in self._optunas().items():
                row.refresh(partial(_drawn, draw), f"{name}.png")

    def counts(self) -> dict[str, float]:
        """How many trials counted, were stopped and failed; the area that the complete ones dominate."""
        ended = self.finished()
        stopped, failed = (sum(trial.state is state for trial in ended) for state in (TrialState.PRUNED, TrialState.FAIL))
        worst = self.objective.point(self.original, self.retrained)[0] if self.objective.worst is None else self.objective.worst
        area = hypervolume([_point(trial) for trial in self.complete()], (worst, 0.0))
        return {"done": len(ended), "pruned": stopped, "failed": failed, "hypervolume": area}

    def write(self) -> None:
        """search/<method>/ in the workspace: what the row shows, for those who read files."""
        folder, winner = self.config.workspace / "search" / self.config.method, self.winner()
        best = {"trial": winner.number, "unlearning": winner.values[0], "utility": winner.values[1]} if winner else {}
        with whole(folder / "front.png") as beside:
            beside.write_bytes(self.picture())
        write_text(folder / "trials.csv", self.table(self.finished()))
        write_text(folder / "front.csv", self.table(self.front()))
        write_json(folder / "best.json", self.counts() | best)

    def end(self, row: tracking.Row) -> None:
        """The front on stdout and in files; how to take the winner on stderr."""
        if not self.complete():
            ended = [trial.user_attrs["reason"] for trial in self.finished()] or ["none was begun"]
            raise Failed(f"no trial of {self.study.study_name} came to its end; the last: {ended[-1]}")
        self.write()
        print(self.table(self.front()), end="", flush=True)
        winner = self.winner()
        if winner is None:
            return say("no trial is within a point of the original's validation accuracy: choose one from the front")
        row.tag("winner", winner.number)
        about_it = ("run.workspace", "search.method", "search.objective", "search.sampler", "search.seed", "search.storage")
        keys = "".join(f" --{key} {journal.clean(self.config.given[key])}" for key in about_it if key in self.config.given)
        say(f"take the best as a variant: python src/search.py adopt {winner.number}{keys}")

    def table(self, trials: Iterable[FrozenTrial]) -> str:
        """CSV: both objectives, what was measured, epochs that ran, arguments."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        words, read = list(self.wide), [key for key in self.original if key != "utility"]
        lines.writerow(["trial", "state", "unlearning", "utility", *read, "ran", *words, "reason"])
        for trial in trials:
            said = trial.user_attrs
            cells = [*(trial.values or ("", "")), *(said["measured"].get(key, "") for key in read), said["ran"]]
            cells += [said["arguments"][word] for word in words]
            shown = [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells]
            lines.writerow([trial.number, trial.state.name.lower(), *shown, said.get("reason", "")])
        return written.getvalue()

    def picture(self) -> bytes:
        done, winner = self.complete(), self.winner()
        named = [("original", self.objective.point(self.original, self.retrained), "#D55E00", "s")]
        own = [trial for trial in done if trial.user_attrs["arguments"] == values_of(self.config)]
        named += [("own values", _point(trial), "#222222", "D") for trial in own[:1]]
        named += [(f"best: {winner.number}", _point(winner), "#009E73", "*")] if winner else []
        least = self.original["utility"] - WITHIN if self.objective.names[1] == "validation accuracy" else None
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
    known = _opened(config, optuna.get_all_study_summaries) if there else []
    found = [study for study in known if study.user_attrs.get("about") == about(config) and study.datetime_start]
    if not found:
        raise BadInput(f"there is no search by {about(config)} in {config.workspace}; python src/search.py makes one")
    newest: optuna.Study = optuna.load_study(
        study_name=max(found, key=lambda study: study.datetime_start).study_name, storage=storage(config)
    )
    return newest
