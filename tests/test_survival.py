"""A search by two workers on a real PostgreSQL: what a killed worker, database and search cost; and where its password stands."""

import contextlib
import re
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import psutil
import pytest
from conftest import Project, Started
from sqlalchemy.exc import OperationalError
from test_search import SMALL, read

from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import clean
from lethe.cli import mlflow_launch as launch
from lethe.search import storage


def workers(search: Started) -> list[psutil.Process]:
    """Those that live: one that was killed stays in the list, without a command, until its parent has looked."""
    found = []
    for child in psutil.Process(search.pid).children():
        with contextlib.suppress(psutil.Error):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def done(least: int) -> Callable[[str], bool]:
    return lambda said: any(int(n) >= least for n in re.findall(r"(\d+) of \d+ done", said))


@pytest.mark.slow
def test_killed_workers_database_and_search_cost_what_was_running(database: Any, project: Project) -> None:
    keys = ("--search.storage", database.url, "--search.workers", "2", "--search.trials", "8")
    there = storage.with_driver(database.url)
    search = project.start("search", *SMALL, *keys)
    search.until(done(1), 300)
    again_ = "died by SIGKILL; it is tried again"
    for _ in range(20):  # one that is between two trials costs nothing, and is no proof
        for worker in workers(search)[:1]:
            worker.kill()
        time.sleep(0.5)
        if again_ in search.err.read_text():
            break
    assert again_ in search.err.read_text()
    database.kill()
    time.sleep(2)
    database.start()
    search.until(done(4), 300)
    everyone = [psutil.Process(search.pid), *workers(search)]
    for process in everyone:
        process.suspend()
    while not any(trial["state"] == "RUNNING" for trial in read(there)):  # between two trials a kill costs nothing
        for process in everyone:
            process.resume()
        time.sleep(0.1)
        for process in everyone:
            process.suspend()
    for process in everyone:
        process.kill()
    first = search.wait()
    again = project.ran("search", *SMALL, *keys)
    trials = read(there)
    over = {number for trial in trials for number in trial["history"]}
    assert over, "nothing was running when it was killed"
    assert {trial["state"] for trial in trials} == {"COMPLETE", "FAIL"}
    assert {trial["number"] for trial in trials if trial["state"] == "FAIL"} == over
    assert sum(trial["state"] == "COMPLETE" for trial in trials) == 8
    for trial in trials:
        for number in trial["history"]:
            assert trials[number]["params"].items() <= trial["params"].items()
    rows = [row for row in project.rows() if "trial" in row["tags"]]
    assert "RUNNING" not in {row["status"] for row in project.rows()}
    finished = [int(row["tags"]["trial"]) for row in rows if row["status"] == "FINISHED"]
    assert len(set(finished)) == len(finished)
    assert {trial["number"] for trial in trials if trial["state"] == "COMPLETE"} >= set(finished)
    assert "resuming after" in again.stderr
    assert not list(project.root.glob(".lethe/outbox/*/"))
    for said in (first.stdout, first.stderr, again.stdout, again.stderr):
        assert database.password not in said
    for path in project.root.rglob("*"):
        assert not path.is_file() or database.password.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_two_workers_on_sqlite(project: Project) -> None:
    project.ran("search", *SMALL, "--search.workers", "2", "--search.trials", "4", "--search.fresh_seeds", "1")
    (url,) = (f"sqlite:///{path}" for path in project.root.glob(".lethe/trials/search.db"))
    trials = read(url)
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * 4
    assert len({str(trial["arguments"]) for trial in trials}) == 4
    rows = [row for row in project.rows() if row["name"].startswith("search/")]
    assert {row["status"] for row in rows} == {"FINISHED"}
    for trial, row in zip(trials, sorted((r for r in rows if "trial" in r["tags"] and "fresh" not in r["tags"]), key=number), strict=True):
        assert [step for step, _ in row["metrics"]["search.utility"]] == list(range(trial["ran"] + 1))


def number(row: dict[str, Any]) -> int:
    return int(row["tags"]["trial"])


def test_a_wrong_password_is_said_at_once_and_shown_nowhere(database: Any, project: Project) -> None:
    before = project.files()
    wrong = database.url.replace(database.password, "wr0ng/pass")
    refused = project.run("search", "--search.storage", wrong)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: search.storage: Optuna can't work with postgresql://127.0.0.1")
    assert "password authentication failed" in refused.stderr
    assert "wr0ng" not in refused.stderr
    assert project.files() == before


def test_a_password_is_cleaned_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    for text in ("postgresql://me:s3cret@db/x", "postgresql:///x?host=db&user=me&password=s3cret&a=1", "it said s3cret"):
        assert "s3cret" not in clean(text)


def test_a_password_is_not_handed_to_mlflow() -> None:
    """Which would write it on the row before the program starts."""
    argv = ["/x/bin/mlflow", "run", ".", "-e", "search", "-P"]
    with pytest.raises(SystemExit, match="PGPASSWORD"):
        launch._keep_passwords([*argv, "search.storage=postgresql://me:secret@host:5432/db"])
    launch._keep_passwords([*argv, "search.storage=postgresql://me@host:5432/db"])
    launch._keep_passwords([*argv, "search.storage=sqlite:///x:y.db"])
    launch._keep_passwords(["src/search.py", "--search.storage=postgresql://me:secret@host/db"])


@pytest.mark.parametrize("url", ["postgresql://u@h/d", "postgres://u@h/d", "postgresql+psycopg://u@h/d"])
def test_an_address_takes_the_driver_that_is_there(url: str) -> None:
    assert storage.with_driver(url) == "postgresql+psycopg://u@h/d"


def test_a_database_that_is_away_is_waited_for_and_what_got_through_is_not_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.exceptions import UpdateFinishedTrialError

    away, finished = OperationalError("select", {}, Exception("gone")), UpdateFinishedTrialError()
    answers: list[Any] = [away, away, 7]

    def call() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda seconds: None))
    assert storage.retrying(call) == 7
    answers[:] = [away, finished]
    assert storage.retrying(call) is True
    answers[:] = [finished]
    with pytest.raises(UpdateFinishedTrialError):
        storage.retrying(call)
    answers[:] = [UserError("no")]
    with pytest.raises(UserError):
        storage.retrying(call)
    monkeypatch.setattr(storage, "MAX_WAIT", 0.0)
    answers[:] = [away]
    with pytest.raises(RunFailed, match=r"search.storage did not answer for 0 s .*gone.*; the same command resumes"):
        storage.retrying(call)


def test_on_sqlite_too_a_waiting_trial_is_taken_once(tmp_path: Path) -> None:
    """Which Optuna leaves to the database's row locks, and SQLite has none."""
    url, number = f"sqlite:///{tmp_path / 's.db'}", 30
    study = optuna.create_study(study_name="s", storage=storage.Storage(url, 30))
    for _ in range(2 * number):
        study.enqueue_trial({}, skip_if_exists=False)

    def take(_: int) -> list[int]:
        own = optuna.load_study(study_name="s", storage=storage.Storage(url, 30))
        return [own.ask().number for _ in range(number)]

    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")  # a heartbeat is for optimize
        taken = [n for each in pool.map(take, range(2)) for n in each]
    assert sorted(taken) == list(range(2 * number))
