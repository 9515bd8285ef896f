"""The birth of the project's own MLflow store: its tables take MLflow eight seconds, and a kill in between leaves a file that is of no use.

So the tables are made in a file of another name, which then appears whole under its own.
"""

import contextlib
import os
import sqlite3
import time
import uuid
from pathlib import Path

import psutil

LONGEST = 120.0  # seconds to wait for another process that is making the store
HALF_MADE = ".half-made"  # ending of the name that such a file gets


def ensure(path: Path, artifacts: str) -> None:
    """Make a SQLite store unless there is one. One that a killed process left without its tables is set aside and made again.

    Args:
        path: Of the store.
        artifacts: Where the artifacts of its default experiment go.
    """
    if path.exists() and not _is_half_made(path):
        return
    end = time.monotonic() + LONGEST
    while path.exists() and _is_held(path) and time.monotonic() < end:  # by an `mlflow ui` that started just now
        time.sleep(0.2)
        if not _is_half_made(path):
            return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        SqlAlchemyStore(f"sqlite:///{str(made).replace('%', '%25')}", artifacts).engine.dispose()
        if path.exists() and _is_half_made(path):
            path.replace(path.with_name(path.name + HALF_MADE))
        _appear(made, path)
    finally:
        for file in path.parent.glob(f"{made.name}*"):  # SQLite's journals too
            file.unlink(missing_ok=True)


def _appear(made: Path, path: Path) -> None:
    """Give a file its name, unless another process was faster: its store may have runs already."""
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            made.replace(path)


def _is_half_made(path: Path) -> bool:
    """Whether a store has no experiment: MLflow makes its default one last, after all tables, so there are no runs either."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        if db.execute("select count(*) from sqlite_master where name = 'experiments'").fetchone() == (0,):
            return True
        return bool(db.execute("select count(*) from experiments").fetchone() == (0,))
    return False  # busy, or no database: MLflow says what is wrong


def _is_held(path: Path) -> bool:
    """Whether a process, as far as this user may see, has the file open."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(Path(file.path) == path.absolute() for file in process.open_files()):
                return True
    return False
