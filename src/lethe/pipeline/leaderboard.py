"""The leaderboard: methods at stated shares of the cost of retraining, one row for each method, share and seed.

Every row is a run of a variant, `<method>_at_<percent>`, in the workspace; its files are those of any other run. A method without a number
of epochs, such as code that is no recipe, has one row, its own run, at the cost that it has. A finished row is kept, so the command can be
stopped and repeated, and rows can be added one by one. The tables are computed from the score files of all rows (`leaderboard_tables`),
which are computed again where they are of other logits tables than exist now.
Where settings were chosen for a method (`search.leaderboard`), its rows have them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json, short
from lethe._util.log import log
from lethe.config.describe import show, unknown_method
from lethe.config.loader import STAGE, Config, load
from lethe.config.method_schema import method_section
from lethe.evaluation import seed_aggregation
from lethe.models import checkpoint
from lethe.parallel.pool import map_units
from lethe.pipeline import ledger_events, run_logging, worker_advice
from lethe.pipeline.cost import planned_share
from lethe.pipeline.leaderboard_tables import DIALS, folder, rows_of, table, write
from lethe.pipeline.runner import is_left, metadata
from lethe.pipeline.unlearn import unlearn
from lethe.recipes.parameters import MOST_EPOCHS
from lethe.recipes.registry import is_method, registered_names
from lethe.reporting import card_files
from lethe.tracking import outbox
from lethe.workspace import artifacts, scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.plan import ORIGINAL, plan
from lethe.workspace.prepare import prepare
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

SHARES = (0.03, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Entry:
    """A method at a share of the cost of retraining.

    Attributes:
        method: the method.
        share: the share.
        trial: whether it only tries settings: a trial has a name that no row has, so that what a workspace remembers of a row's settings
            is not taken for the method's own.
    """

    method: str
    share: float
    trial: bool = False

    @property
    def name(self) -> str:
        """Name of its runs."""
        return f"{self.method}_trial" if self.trial else f"{self.method}_at_{round(100 * self.share)}"


def leaderboard(config: Config, words: list[str], names: list[str], shares: list[str]) -> None:
    """Run the rows that are missing, then write leaderboard.csv and its figures; print the table.

    Args:
        config: the configuration of the command.
        words: the keys of its command line.
        names: methods, variants among them; empty or all: every built-in and registered one that is a single run.
        shares: shares of the cost of retraining, as typed; empty: SHARES.

    Raises:
        UserError: a share or a method is not what is accepted, or a key is wrong.
        RunFailed: a run diverged, or another process is running it.
    """
    wanted, methods = accepted_shares(shares), accepted_methods(config, names)
    workspace = config.workspace
    if line := _without_bank(config):
        log(line)
    missing, prepared = list[PlannedRow](), cache(partial(prepare, config))
    for name in methods:
        if dial(config, name) is None:
            own = load([*words, "--method", name], settings=settings.layer)
            if not is_finished(own, prepared):
                missing.append(PlannedRow(name, own))
            continue
        for entry in (Entry(name, share) for share in wanted):
            row = at_share(words, entry, chosen(workspace, entry.method))
            if row is None:
                log(f"{entry.name}: no number of epochs costs as much; no row")
            elif not is_finished(row, prepared):
                missing.append(PlannedRow(entry.name, row))
    _run_rows(missing)
    if config.run.evaluate:
        _rescore(workspace, prepared)
    print(table(write(workspace)))
    log(f"written: {folder(workspace) / 'leaderboard.csv'}, and next to it summary.csv (means over seeds, with intervals) and two figures")


@dataclass(frozen=True)
class PlannedRow:
    """An entry that has not run: a work unit that any process can do.

    Attributes:
        name: of the entry.
        config: its configuration.
    """

    name: str
    config: Config

    def __str__(self) -> str:
        return self.name


def _run_rows(rows: Sequence[PlannedRow]) -> None:
    """Run rows, several in parallel if that has less to wait for than several seeds of each in parallel."""
    if not rows:
        return
    run = rows[0].config.run
    alone = 0 if _has_references(rows[0].config) else 1  # what trains what all rows start from
    for row in rows[:alone]:
        _run_row(row)
    left = rows[alone:]
    if run.workers == 1 and left:
        runs, shares = len(left) * run.seeds, lambda: sum(planned_share(row.config) for row in left) / len(left)
        worker_advice.advise(prepare(left[0].config), "run.workers", runs, shares, "rows")
    apart = in_parallel(len(left), run.seeds, run.workers) and not _shares_models(rows[0].config)
    for _ in map_units(_run_alone, left, workers=run.workers, gpus=run.gpus) if apart else map(_run_row, left):
        write(rows[0].config.workspace, quiet=True)  # of what has no row yet, some is about to run


def in_parallel(rows: int, seeds: int, workers: int) -> bool:
    """Whether rows run in parallel, the seeds of each one after another: the other way round is as slow or slower.

    Args:
        rows: number of rows to run.
        seeds: of each row.
        workers: how many runs there are at a time.

    Returns:
        False for one worker.
    """
    return workers > 1 and -(-rows // workers) * seeds <= rows * -(-seeds // workers)


def _has_references(config: Config) -> bool:
    layout = Layout(config.workspace)
    return all(layout.weights(kind).exists() and layout.scores(RunId(kind)).exists() for kind in STAGE)


def _shares_models(config: Config) -> bool:
    """Whether rows have to train models that other rows need too, which one process at a time may do."""
    return config.run.originals > 1 or config.evaluate.swap or config.evaluate.shadows > 0


def _run_alone(row: PlannedRow) -> None:
    """Run a row in a process of several: its seeds one after another."""
    outbox.release_launchers_run()
    _run_row(replace(row, config=replace(row.config, run=row.config.run.model_copy(update={"workers": 1}))))


def _run_row(row: PlannedRow) -> None:
    log(f"{row.name}: {planned_share(row.config):.3f} of retraining")
    unlearn(row.config, show=False)


def _rescore(workspace: Path, prepared: Callable[[], Prepared]) -> None:
    """Score rows again that were scored next to other models than exist now, as before a bank was trained, or before weights that a killed
    process left without a score. None is run again."""
    layout, again = Layout(workspace), list[str]()
    for run, seeds in rows_of(workspace).items():
        name = str(run)
        if not layout.exists(run) or not all(artifacts.available(prepared(), each) for each in (name, *STAGE)):
            continue  # without the models that it was next to, its score says more than a new one
        before = scores.read(layout.scores(run))
        try:
            after = scores.scores(prepared(), name)
        except UserError as error:
            log(f"{name}: not scored again: {error}")
            continue
        if after != before:
            log(f"{name}: scored again: its score was of other logits tables than exist now")
            again += dict.fromkeys([name, *map(str, seeds)])
    if again:
        run_logging.log_references(prepared())
        for name in again:
            run_logging.add_scores(prepared(), name)
        ledger_events.record_evaluated(prepared(), again)
        card_files.log_outdated(prepared(), again)


def _without_bank(config: Config) -> str:
    """A line for a command that asks for a bank of retrained models where the workspace has none: rows train none; "" otherwise."""
    number, layout = config.given.get("retrain.seeds", "0"), Layout(config.workspace)
    if number == "0" or any(layout.banks.rglob("retrained.seed*.safetensors")):
        return ""
    again = settings.repair_command("bank", config)
    return f"retrain.seeds is {number}, and {layout.banks} has no retrained models, so rows have no floor; {again} trains them first"


def accepted_methods(config: Config, names: Sequence[str]) -> list[str]:
    """Names of methods, as typed; none or all: every built-in and registered method that is a single run.

    Args:
        config: the configuration, which knows variants and methods of other packages.
        names: as typed.

    Raises:
        UserError: one is not the name of a method.
    """
    registered = registered_names(chains=False)
    known = (*registered, *(name for name in config.methods if name not in registered and not replace(config, method=name).chain))
    for name in names:
        if name != "all" and name not in known:
            raise unknown_method(name, (*known, "all"), also="; your own is package.module:function")
    return registered if not names or "all" in names else list(dict.fromkeys(names))


def dial(config: Config, method: str) -> str | None:
    """The argument by which a method costs more or less: a number of epochs.

    Args:
        config: the configuration, with the method.
        method: its name.

    Returns:
        One of `DIALS`; None: the method has none, and costs what it costs.
    """
    return next((word for word in DIALS if word in type(config.methods[method]).model_fields), None)


def accepted_shares(shares: Sequence[str]) -> list[float]:
    """Shares of the cost of retraining, as typed; none: SHARES.

    Raises:
        UserError: one is not a number of whole percent, from 0.01 to 1.
    """
    return [_share(text) for text in shares] or list(SHARES)


def chosen_file(workspace: Path, method: str) -> Path:
    """Where the settings that were chosen for a method are stored.

    Args:
        workspace: its folder.
        method: its name.

    Returns:
        The path of a JSON file, which need not exist.
    """
    return folder(workspace) / "settings" / f"{method}.json"


def chosen(workspace: Path, method: str) -> Mapping[str, Any]:
    """The settings that were chosen for a method in a workspace; {} if none were.

    Args:
        workspace: its folder.
        method: its name.

    Returns:
        The content of `chosen_file`.
    """
    path = chosen_file(workspace, method)
    return read_json(path) if path.exists() else {}


def at_share(words: Sequence[str], entry: Entry, chosen: Mapping[str, Any]) -> Config | None:
    """The configuration of an entry: as many epochs of the method as fit into the share, and as read no more examples than retraining.

    A head is a thousandth of a network's weights, so by weights alone it might train for thousands of epochs.

    Args:
        words: the keys of the command line; of the method those of `methods.<method>` count.
        entry: the method and the share.
        chosen: settings of the method as `chosen` returns them: `arguments`, which those of the command line override, and
            `cost_ratio`, the work that a run was seen to take next to what is planned here.

    Returns:
        None if the method's shortest run costs more than the share, or its longest less.
    """
    named = load(words, settings=settings.layer)
    like, own_arguments = _stated(named, entry.method)
    word = next(each for each in DIALS if each in method_section(like).model_fields)
    share = entry.share / chosen.get("cost_ratio", 1.0)
    picked = {name: str(value) for name, value in chosen.get("arguments", {}).items()}
    arguments = {name: text for name, text in (own_arguments | picked | _given(named, entry.method)).items() if name != word}

    def config(value: float) -> Config:
        own = [part for name, text in arguments.items() for part in (f"--methods.{entry.name}.{name}", text)]
        row = [f"--methods.{entry.name}.like", like, "--method", entry.name]
        return load([*words, *row, *own, f"--methods.{entry.name}.{word}", f"{value:g}"], settings=settings.layer)

    if word == "retain_epochs":
        ten = config(10)
        passes = round(10 * min(share / planned_share(ten), 1 / planned_share(ten, by_weights=False)), 3)
        return config(passes) if passes <= MOST_EPOCHS else None
    epochs = config(1), config(2)

    def longest(most: float, *, by_weights: bool) -> float:
        one, two = (planned_share(each, by_weights=by_weights) for each in epochs)
        return 1 + (most - one) / (two - one) if two > one else float(one <= most)

    number = int(min(longest(1.05 * share, by_weights=True), longest(1, by_weights=False)) + 1e-9)  # a rounded 20 may be below it
    return config(number) if 1 <= number <= MOST_EPOCHS else None


def _stated(config: Config, method: str) -> tuple[str, dict[str, str]]:
    """The method that a row is like, and the arguments in which the named one differs from it: none unless it is a variant, or a function
    by its name, which the workspace does not remember with the row."""
    if is_method(method):
        return method, {}
    like = config.like[method]
    own, of_base = (config.methods[name].model_dump(mode="json") if name in config.methods else {} for name in (method, like))
    changed = {name: value for name, value in own.items() if name not in of_base or of_base[name] != value}
    return like, {name: _typed(show(value)) for name, value in changed.items()}


def _given(config: Config, method: str) -> dict[str, str]:
    """Arguments of a method that the command gives: on its command line, or in the file of --config."""
    start = f"methods.{method}."
    return {key.removeprefix(start): _typed(text) for key, text in config.given.items() if key.startswith(start) and key != f"{start}like"}


def _typed(text: str) -> str:
    """A shown value as a word of a command line, where nothing quotes it."""
    return "" if text == show("") else text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.01 <= share <= 1 or not math.isclose(percent := 100 * share, round(percent)):  # a row is named by its percent
        raise UserError(f"share is {text}; it takes shares of the cost of retraining in whole percent, from 0.01 to 1, as 0.1,0.2")
    return share


def is_finished(config: Config, prepared: Callable[[], Prepared]) -> bool:
    """Whether all runs of the configuration are complete, and were made by these settings. Their scores may be of other tables.

    Args:
        config: of a row.
        prepared: returns the images and splits, which all rows of a command have in common; called if the files exist.
    """
    layout = Layout(config.workspace)
    runs = plan(config)
    paths = [layout.weights(planned.run) for planned in runs]
    if not layout.weights(runs[0].run.all_seeds).exists():
        return False
    if not all(path.exists() and layout.scores(planned.run.all_seeds).exists() for path, planned in zip(paths, runs, strict=True)):
        return False
    if len(runs) > 1:  # several seeds: the result may be of other runs of the method since
        listed = seed_aggregation.listed(checkpoint.metadata(layout.weights(runs[0].run.all_seeds)))
        if listed != {planned.seed: short(checkpoint.model_hash(path)) for path, planned in zip(paths, runs, strict=True)}:
            return False
    images, start = prepared(), checkpoint.model_hash(layout.weights(ORIGINAL))
    if len(runs) == 1 and is_left(images, runs[0], start):
        return False
    return all(matches(metadata(images, planned, start), checkpoint.metadata(path)) for path, planned in zip(paths, runs, strict=True))
