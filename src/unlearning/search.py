"""Search of a method's arguments: ask, spell the recipe, tell. The only file that imports optuna, and no method has a name here.

Two objectives always, so the result is a front: `unlearning` (less is better) and `utility` (more is better). Whatever a trial
sees is made without the test split. A search is found again by a hash of all that its trials depend on, and the sampler is seeded
for each trial by its place, so a search that was killed and goes on proposes what it would have proposed without the kill.
"""

import csv
import io
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor
from torch.nn import Module, functional

from unlearning import checkpoint, engine, metrics, observers, predict, references, rows, tracking
from unlearning.config import Config, Space, load, root
from unlearning.data import Data
from unlearning.engine import Evaluate
from unlearning.errors import BadInput, Diverged, Failed
from unlearning.files import digest, short, write_text
from unlearning.follow import held
from unlearning.unlearn import check
from unlearning.workspace import Prepared, prepare, say

Point = tuple[float, float]  # unlearning, less is better; utility, more is better
Measured = Mapping[str, float]
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
WITHIN = 1.0  # points of validation accuracy below the original: the winner's condition


# ---- what is wanted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """Names of the two objectives, the splits they read, whether they need the retrained model, and how to get them."""

    names: tuple[str, str]
    splits: tuple[str, ...]
    oracle: bool
    point: Callable[[Measured, Measured], Point]
    note: str


def _oracle_free(measured: Measured, retrained: Measured) -> Point:
    return abs(measured["forget.auc"] - 0.5), measured["utility"]


def _oracle(measured: Measured, retrained: Measured) -> Point:
    apart = [abs(measured[f"{split}.accuracy"] - retrained[f"{split}.accuracy"]) for split in observers.MEASURED]
    return sum(apart) / len(apart), measured["utility"]


def _report(measured: Measured, retrained: Measured) -> Point:
    return measured["forget.accuracy"], measured["retain.accuracy"]


OBJECTIVES = {
    "oracle_free": Objective(
        ("|AUC - 0.5| of forget's loss against validation's", "validation accuracy"),
        ("forget", "validation"),
        False,
        _oracle_free,
        "No retrained model is needed: the losses on forget should be spread as those on validation.",
    ),
    "oracle": Objective(
        ("mean |distance to retrained|", "validation accuracy"),
        observers.MEASURED,
        True,
        _oracle,
        "Tuned on the retrained model's accuracies on retain, forget and validation.",
    ),
    "report": Objective(
        ("forget accuracy", "retain accuracy"),
        observers.MEASURED,
        False,
        _report,
        "The report's own wish. **Over-forgets by construction**: a retrained model classifies most of forget correctly.",
    ),
}


def dominates(one: Point, other: Point, margin: float = 0.0) -> bool:
    """Not worse in either, better in one; with a `margin`, by more than that in utility."""
    return one != other and one[0] <= other[0] and one[1] - margin >= other[1]


def front(points: Sequence[Point]) -> list[int]:
    """Which points no other dominates, the least `unlearning` first."""
    kept = [n for n, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    return sorted(kept, key=lambda n: points[n])


def hypervolume(points: Iterable[Point], worst: Point) -> float:
    """Area that the points dominate, up to `worst`: (0.5 or the original's distance; utility 0)."""
    area, reached = 0.0, worst[1]
    for unlearning, utility in sorted(points):
        if unlearning < worst[0] and utility > reached:
            area += (worst[0] - unlearning) * (utility - reached)
            reached = utility
    return area


def evaluator(data: Data, splits: Sequence[str], autocast: Any) -> Evaluate:
    """`<split>.accuracy`, `<split>.loss`; `forget.auc`: how well a low loss tells forget from validation (0.5: not at all);
    `utility`: validation accuracy on the classes that retain still holds.

    Where forget lacks a class of validation's (a class was asked to be forgotten), validation is weighted to forget's classes."""
    from sklearn.metrics import roc_auc_score

    index_N = torch.cat([data.splits[name] for name in splits])
    sizes = [len(data.splits[name]) for name in splits]
    labels = dict(zip(splits, data.labels_N[index_N].split(sizes), strict=True))
    useful_N = torch.isin(labels["validation"], data.labels_N[data.splits["retain"]])
    forget, validation = (labels[name].cpu().numpy() for name in ("forget", "validation"))
    weights = np.ones(len(validation))
    if set(validation) - set(forget):
        wanted, there = (np.bincount(each, minlength=max(forget.max(), validation.max()) + 1) for each in (forget, validation))
        weights = (wanted / np.maximum(there, 1))[validation]
    member = np.concatenate([np.ones(len(forget)), np.zeros(len(validation))])
    weight = np.concatenate([np.ones(len(forget)), weights])

    def evaluate(model: Module) -> dict[str, float]:
        tables = dict(zip(splits, predict.logits(model, data, index_N, autocast).split(sizes), strict=True))
        measured: dict[str, float] = {}
        for name, logits_NC in tables.items():
            measured[f"{name}.accuracy"] = metrics.accuracy(logits_NC, labels[name])
            measured[f"{name}.loss"] = metrics.cross_entropy(logits_NC, labels[name])
        if "retain" in tables:
            measured["gap"] = measured["retain.accuracy"] - measured["forget.accuracy"]
        if all(map(math.isfinite, measured.values())):  # else the engine says so
            loss = [functional.cross_entropy(tables[n].double(), labels[n], reduction="none") for n in ("forget", "validation")]
            measured["forget.auc"] = float(roc_auc_score(member, -torch.cat(loss).cpu().numpy(), sample_weight=weight))
            kept = tables["validation"][useful_N], labels["validation"][useful_N]
            measured["utility"] = metrics.accuracy(*kept) if len(kept[1]) else measured["validation.accuracy"]
        return measured

    return evaluate


def without_test(prepared: Prepared) -> Prepared:
    """The same with no image, label or index of the test split in it; hashes and device are those of the whole."""
    test = np.zeros(len(prepared.images.ids), bool)
    test[prepared.splits["test"]] = True
    place = np.cumsum(~test) - 1
    whole = prepared.images
    images = replace(
        whole,
        pixels=whole.pixels[~test],
        labels=whole.labels[~test],
        ids=tuple(id_ for id_, hidden in zip(whole.ids, test, strict=True) if not hidden),
        held_out=whole.held_out - int(test.sum()),
    )
    splits = {name: place[index] for name, index in prepared.splits.items() if name != "test"}
    blind = Prepared(prepared.config, images, splits)
    vars(blind).update(hashes=prepared.hashes, compute=prepared.compute)  # cached properties
    return blind


# ---- where to look --------------------------------------------------------------------------------------------------


def spaces(config: Config) -> tuple[dict[str, Space], dict[str, Any]]:
    """The method's space, and the configuration's own values, which are the first trial.

    A space that lacks its own value is widened, with a line; where that can't be (log, step) there is no first trial: {}."""
    own, wide, missed = values_of(config), dict(config.space), False
    for word, space in config.space.items():
        value = own[word]
        if space.choices is not None:
            if value not in space.choices:
                wide[word] = space.model_copy(update={"choices": (*space.choices, value)})
        elif space.low is not None and space.high is not None:
            steps = (value - space.low) / space.step if space.step else 0.0
            if (space.log and value <= 0) or not math.isclose(steps, round(steps), abs_tol=1e-9):
                say(f"search.spaces: {word} can't be {value} there; the configuration's own values are not tried")
                missed = True
            elif not space.low <= value <= space.high:
                wide[word] = space.model_copy(update={"low": min(space.low, value), "high": max(space.high, value)})
        if wide[word] != space:
            say(f"search.spaces: {word} is widened to its own value {value}")
    return wide, {} if missed else {word: own[word] for word in wide if holds(wide[word], own)}


def values_of(config: Config) -> dict[str, Any]:
    """The method's arguments; names as one text, as Optuna stores them."""
    section = config.methods[config.method]
    said = {word: getattr(section, word) for word in type(section).model_fields}
    return {word: ",".join(value) if isinstance(value, tuple) else value for word, value in said.items()}


def holds(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether the argument is searched at these values of the others."""
    return all(values[other] in allowed for other, allowed in space.when.items())


def suggest(trial: optuna.Trial, config: Config, wide: Mapping[str, Space]) -> dict[str, Any]:
    """The trial's arguments, in the order of the space, so that a condition is known when it is asked."""
    values, chosen = values_of(config), dict[str, Any]()
    for word, space in wide.items():
        if not holds(space, values | chosen):
            continue
        if space.choices is not None:
            chosen[word] = trial.suggest_categorical(word, space.choices)
        elif isinstance(values[word], int):
            chosen[word] = trial.suggest_int(word, space.low, space.high, log=space.log, step=int(space.step or 1))
        else:
            chosen[word] = trial.suggest_float(word, space.low, space.high, log=space.log, step=space.step)
    return chosen


# ---- one search -----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """A search that is under way. `blind`: what it works on, without the test split; `original`, `retrained`: what they measure."""

    blind: Prepared
    objective: Objective
    start: dict[str, Tensor]
    original: Measured
    retrained: Measured
    evaluate: Evaluate
    wide: dict[str, Space]
    study: optuna.Study
    began: float = field(default_factory=time.monotonic)
    ran: int = 0

    @property
    def config(self) -> Config:
        return self.blind.config

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return found

    def finished(self) -> list[FrozenTrial]:
        """Those that count: failed ones only if they failed by themselves."""
        ended = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [trial for trial in ended if trial.state is not TrialState.FAIL or "reason" in trial.user_attrs]

    def complete(self) -> list[FrozenTrial]:
        return self.trials(TrialState.COMPLETE)

    def worst(self) -> Point:
        """The corner of the hypervolume."""
        at_worst = 0.5 if self.objective.names[0].startswith("|AUC") else self.objective.point(self.original, self.retrained)[0]
        return at_worst, 0.0

    def winner(self) -> FrozenTrial | None:
        """The least `unlearning` among those within a point of the original's validation accuracy."""
        least = self.original["utility"] - WITHIN
        good = [trial for trial in self.complete() if trial.user_attrs["measured"]["utility"] >= least]
        return min(good, key=lambda trial: (trial.values[0], -trial.values[1], trial.number), default=None)

    def step(self, row: tracking.Row) -> None:
        """One trial, from asking to telling, with a row of its own."""
        place = len(self.finished())
        self.study.sampler = sampler(self.config.search.sampler, int(digest([str(self.config.search.seed), str(place)])[:8], 16))
        trial = self.study.ask()
        try:
            config = self.config.changed(suggest(trial, self.config, self.wide))
            with self._row(config, trial, row) as own:
                state, reason = self._run(config, trial, own)
                own.tags({"trial.state": state.name.lower(), "trial.reason": reason or None})
                own.close("FINISHED" if state is TrialState.COMPLETE else "FAILED" if state is TrialState.FAIL else "KILLED")
        except BaseException:
            again(self.study, trial.number, trial.params)
            raise
        self.ran += 1
        self._say(self.study.get_trials(deepcopy=False)[trial.number], reason)

    def _run(self, config: Config, trial: optuna.Trial, row: tracking.Row) -> tuple[TrialState, str]:
        """Spell the recipe while everything watches, then tell. What went wrong with the trial alone is its result."""
        network = self.blind.network(config.run.seed)
        network.load_state_dict(self.start)
        recipe, cast = config.recipe(), self.blind.compute.autocast
        curve: list[tuple[str, int, float, float]] = []
        spelled = engine.run(
            recipe,
            network,
            self.blind.data,
            evaluate=self.evaluate,
            evaluate_every=config.run.evaluate_every,
            seed=config.run.seed,
            autocast=cast,
            blank=self.blind.network(config.run.seed),
        )
        state, reason, point = TrialState.COMPLETE, "", None
        measured: Measured = {}
        try:
            for epoch in spelled:
                row.metrics(observers.metrics(observers.flat(epoch) | observers.timing(epoch)), step=epoch.number)
                if epoch.metrics:
                    unlearning, utility = self.objective.point(epoch.metrics, self.retrained)
                    row.metrics({"search.unlearning": unlearning, "search.utility": utility}, step=epoch.number)
                    curve.append((epoch.phase, epoch.epoch, unlearning, utility))
            measured = self.evaluate(network)  # anew: a phase may end on its best epoch
            point = self.objective.point(measured, self.retrained)
        except optuna.TrialPruned as stopped:
            state, reason = TrialState.PRUNED, str(stopped)
        except Diverged as error:
            state, reason = TrialState.FAIL, f"diverged: {error}"
        except torch.OutOfMemoryError as error:
            state, reason = TrialState.FAIL, f"out of memory: {str(error).splitlines()[0]}"
        told = {"arguments": values_of(config), "ran": max(len(curve) - 1, 0), "curve": curve, "measured": measured}
        for key, value in (told | ({"reason": reason} if reason else {})).items():
            trial.set_user_attr(key, value)
        self.study.tell(trial, point, state)
        return state, reason

    def _row(self, config: Config, trial: optuna.Trial, parent: tracking.Row) -> tracking.Row:
        own = {f"methods.{config.method}.{word}": value for word, value in values_of(config).items()}
        return tracking.Row.open(
            config.workspace,
            name=f"search/{config.method}/{trial.number}",
            tags=self.tags() | {"trial": str(trial.number)},
            params=own | {"recipe": repr(config.recipe())},
            description=f"Trial {trial.number} of a search: {self.objective.note}",
            parent=parent.reference(),
            launched=False,
        )

    def tags(self) -> dict[str, str]:
        known = rows.tags(self.blind, f"search/{self.config.method}")
        return known | {"search": self.study.study_name, "objective": self.config.search.objective}

    def _say(self, trial: FrozenTrial, reason: str) -> None:
        """One line a trial."""
        ended = self.finished()
        count = {state: sum(each.state is state for each in ended) for state in (TrialState.PRUNED, TrialState.FAIL)}
        total, winner = self.config.search.trials, self.winner()
        point = _pair(trial.values) if trial.values else reason
        best = f"best {winner.number}: {_pair(winner.values)}" if winner else "none within a point of the original yet"
        left = (time.monotonic() - self.began) / self.ran * max(total - len(ended), 0)
        said = [f"trial {trial.number} {trial.state.name.lower()}: {point}", f"{len(ended)}/{total} done"]
        said += [f"{count[TrialState.PRUNED]} pruned, {count[TrialState.FAIL]} failed", best]
        say(" | ".join([*said, f"left {time.strftime('%H:%M:%S', time.gmtime(left))}"]))


def _pair(point: Sequence[float]) -> str:
    return f"{point[0]:.4g}, {point[1]:.4g}"


def sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """With Optuna's own defaults."""
    kinds = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "nsga2": "NSGAIISampler"}
    made: optuna.samplers.BaseSampler = getattr(optuna.samplers, kinds[name])(seed=seed)
    return made


def again(study: optuna.Study, number: int, params: Mapping[str, Any]) -> None:
    """A trial that was interrupted is failed without a reason, and its arguments wait to be tried again."""
    study.enqueue_trial(dict(params), user_attrs={"again": number})
    study.tell(number, state=TrialState.FAIL)


def search(config: Config) -> None:
    """Trials until there are search.trials of them, counting those of earlier runs; ends with the front on stdout."""
    prepared = prepare(config)
    objective, method = OBJECTIVES[config.search.objective], config.method
    wide, first = spaces(config)
    for word, space in wide.items():
        for value in space.choices or (space.low, space.high):
            check(prepared, config.changed({word: value}).recipe())
    start = references.weights(prepared, "original")
    retrained = references.weights(prepared, "retrained") if objective.oracle else None
    blind = without_test(prepared)
    del prepared
    evaluate = evaluator(blind.data, objective.splits, blind.compute.autocast)
    measured = _measured(blind, evaluate, start), _measured(blind, evaluate, retrained)
    known = [method, config.search.objective, config.search.sampler, config.search.seed, config.run.seed, values_of(config)]
    known += [{word: space.model_dump() for word, space in wide.items()}, blind.hashes["split"], measured]
    known += [config.run.evaluate_every, blind.compute.precision, blind.compute.device.type, config.model.architecture]
    known += [checkpoint.weights_hash(start), config.search.prune and config.search.prune_margin]
    name = f"{method}.{config.search.objective}.{short(digest([json.dumps(known, default=str)]))}"
    with held(config.workspace / ".lethe" / "locks" / f"search.{name}.lock", f"the search {name}"):
        study = opened(config, name)
        run = Search(blind, objective, start, measured[0], measured[1], evaluate, wide, study)
        _go_on(run, first)
        with _row(run) as row:
            study.set_user_attr("row", row.reference())
            while len(run.finished()) < config.search.trials:
                if config.search.timeout and time.monotonic() - run.began > config.search.timeout:
                    say(f"search.timeout: {len(run.finished())} of {config.search.trials} trials; the same command goes on")
                    break
                run.step(row)
                show(run, row)
    if not run.complete():
        raise Failed(f"no trial of {name} came to its end; the last one {run.finished()[-1].user_attrs['reason']}")
    print(table(run, [run.complete()[n] for n in front([tuple(trial.values) for trial in run.complete()])]), end="")


def _measured(blind: Prepared, evaluate: Evaluate, tensors: Mapping[str, Tensor] | None) -> Measured:
    if tensors is None:
        return {}
    network = blind.network(0)
    network.load_state_dict(dict(tensors))
    return evaluate(network)


def opened(config: Config, name: str) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=storage(config), directions=["minimize", "maximize"], load_if_exists=True, sampler=sampler("random", 0)
    )


def about(config: Config) -> dict[str, Any]:
    """By which `adopt` knows a search, whose name depends on data that it does not read."""
    said = config.search
    return {"method": config.method, "objective": said.objective, "sampler": said.sampler, "seed": said.seed}


def storage(config: Config) -> str:
    """The database, in a folder that is there."""
    if config.search.storage:
        return config.search.storage
    folder = config.workspace / ".lethe" / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.resolve() / 'search.db'}"


def _go_on(run: Search, first: Mapping[str, Any]) -> None:
    """The first trial, or what an earlier run of this search left: under the search's lock, what is RUNNING runs no more."""
    before = run.trials()
    if not before:
        run.study.set_user_attr("about", about(run.config))
        run.study.set_metric_names(list(run.objective.names))
        if first:
            run.study.enqueue_trial(dict(first))
        return
    for trial in run.trials(TrialState.RUNNING):
        again(run.study, trial.number, trial.params)
    say(f"search {run.study.study_name}: going on behind {len(run.finished())} trials")


def _row(run: Search) -> tracking.Row:
    config = run.config
    said = {key: value for key, value in config.search.model_dump().items() if key != "storage"}
    return tracking.Row.open(
        config.workspace,
        name=f"search/{config.method}",
        tags=run.tags(),
        params=config.resolved() | {f"search.{key}": value for key, value in said.items()},
        description=f"**Search of {config.method}**. {run.objective.note} Each row below is a trial; the test split was seen by none.",
        previous=run.study.user_attrs.get("row"),
    )


# ---- what is shown --------------------------------------------------------------------------------------------------


def show(run: Search, row: tracking.Row) -> None:
    pass


def table(run: Search, trials: Iterable[FrozenTrial]) -> str:
    """CSV: trial, both objectives, what was measured, epochs, arguments."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    words, read = list(run.wide), [key for key in run.original if key != "utility"]
    lines.writerow(["trial", "state", "unlearning", "utility", *read, "ran", *words, "reason"])
    for trial in trials:
        said = trial.user_attrs
        measured, arguments = said.get("measured", {}), said.get("arguments", {})
        cells = [*(trial.values or ("", "")), *(measured.get(key, "") for key in read), said.get("ran", "")]
        shown = [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells]
        shown += [arguments.get(word, "") for word in words]
        lines.writerow([trial.number, trial.state.name.lower(), *shown, said.get("reason", "")])
    return written.getvalue()


# ---- what it leads to -----------------------------------------------------------------------------------------------


def adopt(config: Config, number: int, name: str = "") -> None:
    """Write a finished trial of the newest search of this method and objective into params.yaml, as a variant."""
    name = name or f"{config.method}_trial_{number}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise BadInput(f"a variant can't be called {name!r}; it takes letters, digits, _ and -")
    if name in config.methods:
        raise BadInput(f"methods.{name} is there already; give the variant another name: adopt {number} <name>")
    study = _newest(config)
    trial = next((trial for trial in study.get_trials(deepcopy=False) if trial.number == number), None)
    if trial is None or trial.state is not TrialState.COMPLETE:
        good = ", ".join(str(n) for n in sorted(t.number for t in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])))
        what = "is not there" if trial is None else f"is {trial.state.name.lower()}"
        raise BadInput(f"trial {number} of {study.study_name} {what}; it takes one that is complete: {good or 'none is'}")
    params = root() / "params.yaml"
    own = values_of(replace(load(params=params), method=config.method))
    differs = {word: value for word, value in trial.user_attrs["arguments"].items() if value != own[word]}
    write_text(params, with_variant(params.read_text(encoding="utf-8"), name, config.method, differs))
    say(f"{params.name}: methods.{name} is trial {number} of {study.study_name}; python src/unlearn.py --method {name}")


def _newest(config: Config) -> optuna.Study:
    missing = BadInput(f"no search of {config.method} by {config.search.objective} has run here; python src/search.py does")
    if not config.search.storage and not (config.workspace / ".lethe" / "trials" / "search.db").exists():
        raise missing
    there = optuna.get_all_study_summaries(storage(config))
    found = [study for study in there if study.user_attrs.get("about") == about(config) and study.datetime_start]
    if not found:
        raise missing
    return optuna.load_study(study_name=max(found, key=lambda study: study.datetime_start).study_name, storage=storage(config))


def with_variant(text: str, name: str, like: str, arguments: Mapping[str, Any]) -> str:
    """params.yaml with one more line, at the end of `methods`; every other byte stays. Raises Failed where that gives another tree."""
    yaml = YAML(typ="safe", pure=True)
    place = YAML().load(text)
    after = [place.lc.key(key)[0] for key in place if place.lc.key(key)[0] > place.lc.key("methods")[0]]
    lines = text.splitlines(keepends=True)
    end = min(after, default=len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # what stands before the next section is about that one
        end -= 1
    variant = {"like": like, **arguments}
    written = f"{name}: {{{', '.join(f'{word}: {_plain(value)}' for word, value in variant.items())}}}"
    indent = " " * next(iter(place["methods"].lc.data.values()))[1]
    lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    made = "".join([*lines[:end], f"{indent}{written}\n", *lines[end:]])
    wanted = yaml.load(text)
    wanted["methods"][name] = yaml.load(written)[name]
    try:
        same = yaml.load(made) == wanted
    except YAMLError:
        same = False
    if not same:
        raise Failed(f"params.yaml is written in a way that can't be added to; add this line to its methods: {written}")
    return made


def _plain(value: Any) -> str:
    """As every reader of YAML understands it: no exponent (some take it for a text), names as a list."""
    if isinstance(value, float):
        digits = format(Decimal(repr(value)), "f")
        return digits if "." in digits else f"{digits}.0"
    return f"[{value.replace(',', ', ')}]" if isinstance(value, str) and "," in value else json.dumps(value).strip('"')
