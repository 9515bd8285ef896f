"""The leaderboard's settings: a few of each method, tried on equal terms and chosen without a retrained model.

The first is the configured one, the others lie evenly in `search.spaces` of the method. Each is run once, at the cost of one share and by a
seed that no row uses; the choice is that of a search by the objective `oracle_free`. None reads the test split."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lethe._util.errors import Diverged, UserError
from lethe._util.files import digest, read_json, short, write_json
from lethe._util.log import log
from lethe._util.names import is_whole_number
from lethe.config.loader import STAGE, Config
from lethe.config.schema import Space
from lethe.engine import engine
from lethe.engine.epoch_table import MEASURED
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.options import no_metrics
from lethe.models import checkpoint, device
from lethe.pipeline import leaderboard as rows
from lethe.pipeline import references
from lethe.pipeline.cost import planned_share, retraining_work
from lethe.pipeline.leaderboard_tables import DIALS
from lethe.pipeline.unlearn import check_batches, check_recipes
from lethe.recipes.recipe import keeps_best
from lethe.search.objectives import OBJECTIVES, evaluator, sizes, without_test
from lethe.search.spaces import argument_values, draws_apart, is_active, stated_values
from lethe.workspace.numerics import TRIALS
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared

OBJECTIVE = OBJECTIVES["oracle_free"]
AT = 0.1  # the share at which settings are tried
SEED = 1000  # added to run.seed
PLANS = 3  # a plan, and corrections of it by the work that was seen
CLOSE = 0.1  # a plan that costs so much more or less than the share, relative to it, is left alone


def leaderboard(config: Config, words: list[str], names: list[str], shares: list[str], settings: str) -> None:
    """Choose each method's settings where none are chosen yet, then run the rows that are missing (`pipeline.leaderboard`).

    Args:
        config: the configuration of the command.
        words: the keys of its command line.
        names: methods; empty or all: every built-in and registered one that is a single run.
        shares: shares of the cost of retraining, as typed; empty: all of `SHARES`.
        settings: number of settings to try for each method, as typed.

    Raises:
        UserError: a key, a share, a method or the number is not what is accepted.
        RunFailed: a run diverged, or another process is running it.
    """
    if not is_whole_number(settings) or not 1 <= int(settings) <= 50:
        raise UserError(f"settings is {settings}; it takes the number of settings to try for each method, from 1 to 50")
    rows.accepted_shares(shares)
    for method in rows.accepted_methods(config, names):
        if rows.dial(config, method):
            choose(words, method, int(settings))
    rows.leaderboard(config, words, names, shares)


def choose(words: Sequence[str], method: str, count: int) -> None:
    """Try settings of a method and write the choice into the workspace, where the leaderboard's rows find it.

    Settings that were tried for the same configuration, as many of them, are not run again.

    Args:
        words: the keys of the command line.
        method: the method.
        count: number of settings, the configured one included.
    """
    config = rows.at_share(words, rows.Entry(method, AT, trial=True), {})
    if config is None:
        log(f"{method}: one epoch costs more than {AT} of retraining; its settings stay as configured")
        return
    device.resolve(config.run)
    recipes, _ = check_recipes(config)
    references.check_models(config, *STAGE)
    given: dict[str, references.Given] = {}

    def accept(drawn: Prepared) -> None:
        for recipe in recipes:
            check_batches(config, recipe, len(drawn.splits["retain"]))
        references.check_standing(drawn, *STAGE)
        references.read_given(drawn, STAGE, given)

    prepared = prepare(config, accept=accept)
    path = rows.chosen_file(config.workspace, method)
    start = references.weights(prepared, "original", given=given.get("original"))
    key = _key(prepared, config, count, start)
    found = read_json(path) if path.exists() else {}
    if found.get("key") == key:
        if "original" in found:  # which choices of earlier versions lack: they stay as they are
            _choose(path, method, config, found)
        return
    references.weights(prepared, "retrained", given=given.get("retrained"))  # whose work is what shares are of
    data = without_test(prepared)
    ratio, planned = 1.0, config
    for attempt in range(PLANS):
        cache = data.feature_cache()  # a new one, as each row has: what fills it is work
        tried = [_try(data, planned, start, cache)]
        taken = _share_taken(prepared, tried[0])
        corrected = _cost_ratio(planned, ratio, taken)
        again = rows.at_share(words, rows.Entry(method, AT, trial=True), {"cost_ratio": corrected}) if taken else None
        if not taken or again is None or again == planned or abs(taken / AT - 1) <= CLOSE or attempt == PLANS - 1:
            break
        ratio, planned = float(f"{corrected:.4g}"), again
    for arguments in evenly(planned, count)[1:]:
        tried.append(_try(data, planned.changed(arguments), start, cache, arguments))
        log(f"{method}: {_words(arguments)}: {_result(tried[-1])}")
    selection = data.data.for_selection(config.recipe())
    before = evaluator(selection, MEASURED, data.compute.autocast)(data.loaded(start), selection)
    measured = {"key": key, "share": AT, "cost_ratio": ratio, "tried": tried, "original": dict(before), "images": sizes(selection)}
    _choose(path, method, planned, measured)


def _key(prepared: Prepared, config: Config, count: int, original: Mapping[str, Tensor]) -> str:
    """A hash of what the measurements of the settings depend on."""
    compute = device.resolve(config.run)  # without the line that says it: a repeated command runs nothing
    parts = [stated_values(config), {name: space.model_dump() for name, space in config.space.items()}, count, config.run.seed]
    parts += [checkpoint.weights_hash(original), config.model.architecture, prepared.hashes["split"], prepared.hashes["normalisation"]]
    parts += [compute.precision, compute.device.type, TRIALS, *draws_apart(config)]
    return short(digest([json.dumps(parts, default=str)]))


def _choose(path: Path, method: str, planned: Config, measured: Mapping[str, Any]) -> None:
    """Write the choice among settings that were tried. It is made again whenever the command is repeated, so that it is by the present
    rule."""
    tried = measured["tried"]
    complete = [one for one in tried if one["measured"]]
    if not complete:
        log(f"{method}: every setting diverged; its settings stay as configured")
    images, before = measured["images"], measured["original"]
    best = min(complete, key=lambda one: OBJECTIVE.rank(one["measured"], {}, images, before)) if complete else tried[0]
    own = argument_values(planned)
    every = {name: own[name] for name in _searched(planned)} | best["arguments"]  # over what the workspace remembers of an earlier choice
    if measured.get("arguments") != every:
        log(f"{method}: chosen of {len(tried)} settings: {_words(best['arguments']) or 'as configured'}")
        write_json(path, {**measured, "arguments": every})


def _cost_ratio(planned: Config, ratio: float, taken: float) -> float:
    """The work that a run took, next to what was planned: the share, by an earlier ratio.

    Whole epochs leave less than half of it unused, so a plan below that was cut where it reads as many examples as retraining did."""
    aimed, own = AT / ratio, planned_share(planned)
    return taken / (aimed if own > aimed / 2 else own)


def evenly(config: Config, count: int) -> list[dict[str, Any]]:
    """Draw settings of the configured method: the configured one, then points of a Halton sequence in its space.

    Arguments by which a method costs more or less are left out. The learning rate comes first, as the coordinate that few points cover
    best, so that all methods try the same ones.

    Args:
        config: the configuration; its `space` gives the ranges.
        count: how many.

    Returns:
        The arguments that differ; `{}` for the first. Fewer where the method has no space.
    """
    from scipy.stats.qmc import Halton

    spaces = {name: config.space[name] for name in _searched(config)}
    if not spaces or count == 1:
        return [{}]
    points = Halton(len(spaces), scramble=False).random(count)[1:]
    return [{}, *(_arguments(config, spaces, point) for point in points)]


def _searched(config: Config) -> list[str]:
    return sorted((name for name in config.space if name not in DIALS), key=lambda name: name != "lr")


def _arguments(config: Config, spaces: Mapping[str, Space], point: Sequence[float]) -> dict[str, Any]:
    """The values at a point, without arguments that others switch off (`when`): those are before them in the space."""
    values = argument_values(config)
    at = {
        name: _at(space, float(share), whole=isinstance(values[name], int))
        for (name, space), share in zip(spaces.items(), point, strict=True)
    }
    drawn = dict[str, Any]()
    for name, space in config.space.items():
        if name in at and is_active(space, values | drawn):
            drawn[name] = at[name]
    return {name: drawn[name] for name in spaces if name in drawn}


def _at(space: Space, at: float, whole: bool) -> Any:
    """The value at a share of a space, from 0 to 1."""
    if space.choices is not None:
        return space.choices[int(at * len(space.choices))]
    assert space.low is not None and space.high is not None
    low, high = float(space.low), float(space.high)
    step = space.step or (1 if whole and not space.log else None)
    if step is not None:
        value = low + step * min(int(at * (round((high - low) / step) + 1)), round((high - low) / step))
    else:
        value = low * (high / low) ** at if space.log else low + at * (high - low)
    return round(value) if whole else float(f"{value:.4g}")


def _try(
    data: Prepared, config: Config, start: Mapping[str, Tensor], cache: Prefix, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a setting once, as a row is run: what it measures without the test split, and its work."""
    recipe, seed = config.recipe(), config.run.seed + SEED
    network = data.loaded(start, seed)
    selection, autocast = data.data.for_selection(recipe), data.compute.autocast
    during = evaluator(selection, OBJECTIVE.splits, autocast) if keeps_best(recipe) else no_metrics
    options = data.run_options(seed, evaluate=during, evaluate_every=config.run.evaluate_every, step_inputs=cache, count_work=True)
    evaluate = evaluator(selection, MEASURED, autocast, intervals=True)
    flops, measured = 0, dict[str, float]()
    try:
        flops = sum(epoch.flops or 0 for epoch in engine.run(recipe, network, data.data, options))
        measured = dict(evaluate(network, data.data))
    except Diverged:
        flops = 0
    return {"arguments": dict(arguments or {}), "measured": measured if "forget.auc" in measured else {}, "flops": flops}


def _share_taken(prepared: Prepared, tried: Mapping[str, Any]) -> float:
    """The work of a run next to that of retraining: teachers and target losses take forward passes, too. 0 if it diverged."""
    retain, forget, classes = len(prepared.splits["retain"]), len(prepared.splits["forget"]), len(prepared.images.classes)
    return float(tried["flops"] / retraining_work(prepared.config, (retain, forget, classes)))


def _words(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def _result(tried: Mapping[str, Any]) -> str:
    if not tried["measured"]:
        return "diverged"
    return OBJECTIVE.describe(OBJECTIVE.point(tried["measured"], {}))
