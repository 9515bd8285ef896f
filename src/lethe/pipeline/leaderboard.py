"""The leaderboard: methods at stated shares of the cost of retraining, one row for each method, share and seed.

Every row is a run of a variant, `<method>_at_<percent>`, in the workspace; its files are those of any other run. A finished row is kept, so
the command can be stopped and repeated, and rows can be added one by one. The tables are computed from the score files of all rows
(`leaderboard_tables`). Where settings were chosen for a method (`search.leaderboard`), its rows have them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe._util.log import log
from lethe.config.describe import unknown_method
from lethe.config.loader import Config, load
from lethe.config.method_schema import method_section
from lethe.models import checkpoint
from lethe.pipeline.cost import planned_share
from lethe.pipeline.leaderboard_tables import folder, table, write
from lethe.pipeline.runner import metadata
from lethe.pipeline.unlearn import unlearn
from lethe.recipes.registry import registered_names
from lethe.workspace import settings
from lethe.workspace.layout import Layout
from lethe.workspace.plan import ORIGINAL, plan
from lethe.workspace.prepare import prepare
from lethe.workspace.provenance import matches

SHARES = (0.03, 0.05, 0.1, 0.2, 0.3)
DIALS = ("retain_epochs", "epochs", "final_epochs")  # the argument by which a method costs more or less


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


def leaderboard(words: list[str], names: list[str], shares: list[str]) -> None:
    """Run the rows that are missing, then write leaderboard.csv and its figures; print the table.

    Args:
        words: the keys of the command line.
        names: methods; empty or all: every single-run method.
        shares: shares of the cost of retraining, as typed; empty: SHARES.

    Raises:
        UserError: a share or a method is not what is accepted, or a key is wrong.
        RunFailed: a run diverged, or another process is running it.
    """
    wanted, methods = accepted_shares(shares), accepted_methods(names)
    asked = load(words, settings=settings.layer)
    workspace = asked.workspace
    if line := _without_bank(asked):
        log(line)
    for entry in (Entry(name, share) for name in methods for share in wanted):
        config = at_share(words, entry, chosen(workspace, entry.method))
        if config is None:
            log(f"{entry.name}: one epoch costs more; no row")
        elif not is_finished(config):
            log(f"{entry.name}: {planned_share(config):.3f} of retraining")
            unlearn(config, show=False)
            write(workspace)
    print(table(write(workspace)))
    log(f"written: {folder(workspace) / 'leaderboard.csv'}")


def _without_bank(config: Config) -> str:
    """A line for a command that asks for a bank of retrained models where the workspace has none: rows train none; "" otherwise."""
    number, layout = config.given.get("retrain.seeds", "0"), Layout(config.workspace)
    if number == "0" or any(layout.banks.rglob("retrained.seed*.safetensors")):
        return ""
    again = settings.repair_command("bank", config)
    return f"retrain.seeds is {number}, and {layout.banks} has no retrained models, so rows have no floor; {again} trains them first"


def accepted_methods(names: Sequence[str]) -> list[str]:
    """Names of methods, as typed; none or all: every single-run method.

    Raises:
        UserError: one is not the name of a method.
    """
    known = registered_names(chains=False)
    for name in names:
        if name != "all" and name not in known:
            raise unknown_method(name, (*known, "all"))
    return list(known) if not names or "all" in names else list(names)


def accepted_shares(shares: Sequence[str]) -> list[float]:
    """Shares of the cost of retraining, as typed; none: SHARES.

    Raises:
        UserError: one is not a number from 0.01 to 1.
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
    """The configuration of an entry: as many epochs of the method as fit into the share.

    Args:
        words: the keys of the command line; of the method those of `methods.<method>` count.
        entry: the method and the share.
        chosen: settings of the method as `chosen` returns them: `arguments`, which those of the command line override, and
            `cost_ratio`, the work that a run was seen to take next to what is planned here.

    Returns:
        None if the method's shortest run costs more than the share.
    """
    dial = next(word for word in DIALS if word in method_section(entry.method).model_fields)
    share = entry.share / chosen.get("cost_ratio", 1.0)
    arguments = {word: str(value) for word, value in chosen.get("arguments", {}).items()} | dict(_typed(words, entry.method))

    def config(value: float) -> Config:
        own = [part for word, text in arguments.items() for part in (f"--methods.{entry.name}.{word}", text)]
        like = [f"--methods.{entry.name}.like", entry.method, "--method", entry.name]
        return load([*words, *like, *own, f"--methods.{entry.name}.{dial}", f"{value:g}"], settings=settings.layer)

    if dial == "retain_epochs":
        return config(round(10 * share / planned_share(config(10)), 3))
    one, two = planned_share(config(1)), planned_share(config(2))
    if one > 1.05 * share:
        return None
    return config(1 + int((1.05 * share - one) / (two - one)) if two > one else 1)


def _typed(words: Sequence[str], method: str) -> list[tuple[str, str]]:
    """Arguments of a method on a command line."""
    start = f"--methods.{method}."
    pairs = itertools.pairwise(words)
    return [(word.removeprefix(start), text) for word, text in pairs if word.startswith(start) and "=" not in word]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1 or round(100 * share) < 1:
        raise UserError(f"share is {text}; it takes shares of the cost of retraining, from 0.01 to 1, as 0.1,0.2")
    return share


def is_finished(config: Config) -> bool:
    """Whether all runs of the configuration exist with their scores, and were made by these settings."""
    layout = Layout(config.workspace)
    runs = plan(config)
    paths = [layout.weights(planned.run) for planned in runs]
    if not all(path.exists() and layout.scores(planned.run.all_seeds).exists() for path, planned in zip(paths, runs, strict=True)):
        return False
    prepared, start = prepare(config), checkpoint.model_hash(layout.weights(ORIGINAL))
    return all(matches(metadata(prepared, planned, start), checkpoint.metadata(path)) for path, planned in zip(paths, runs, strict=True))
