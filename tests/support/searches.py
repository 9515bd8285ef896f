"""Small searches, and their trials as Optuna keeps them."""

import re
from collections.abc import Callable
from typing import Any

import optuna

from support.project import Project

SPACE = "search.spaces.hybrid_4"
SMALL = ["--search.prune", "false"]
SMALL += [f"--{SPACE}.{key}" if "." in key else key for key in ("epochs.low", "2", "epochs.high", "4", "final_epochs.high", "2")]


# --- searches ---------------------------------------------------------------------------------------------------------


def trials(project: Project, store: str = "search.db") -> list[dict[str, Any]]:
    """Those of the only search in the database, by number; `history`: which trials it tries again."""
    return read(f"sqlite:///{project.root}/.lethe/trials/{store}")


def read(url: str) -> list[dict[str, Any]]:
    """The trials of the only study in a database; every connection is closed again, for a server has only so many."""
    storage = optuna.storages.RDBStorage(url)
    try:
        trials = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage).trials
    finally:
        storage.engine.dispose()
    found = [{"number": t.number, "state": t.state.name, "params": t.params, "values": t.values, **t.user_attrs} for t in trials]
    return [trial | {"history": t.system_attrs.get("retry_history", [])} for trial, t in zip(found, trials, strict=True)]


def done(least: int) -> Callable[[str], bool]:
    return lambda said: any(int(n) >= least for n in re.findall(r"(\d+) of \d+ done", said))
