"""A search by two workers on a real PostgreSQL: what a killed worker, database and search cost; and where its password stands."""

import contextlib
import time
from typing import Any

import psutil
import pytest

from lethe.search import storage
from support.project import Project, Started, until
from support.searches import SMALL, done, read


def workers(search: Started) -> list[psutil.Process]:
    """Those that live: one that was killed stays in the list, without a command, until its parent has looked."""
    found = []
    for child in psutil.Process(search.pid).children():
        with contextlib.suppress(psutil.Error):
            found += [child] if child.name() == "spawned" or "spawn_main" in " ".join(child.cmdline()) else []
    return found


@pytest.mark.slow
def test_killed_workers_database_and_search_cost_what_was_running(database: Any, project: Project) -> None:
    keys = ("--search.storage", database.url, "--search.workers", "2", "--search.trials", "8")
    there = storage.with_driver(database.url)
    search = project.start("search", *SMALL, *keys)
    search.until(done(1))
    again_ = "died by SIGKILL; it is tried again"

    def tried_again() -> bool:
        """After another kill: a worker that is between two trials costs nothing, and is no proof."""
        for worker in workers(search)[:1]:
            worker.kill()
        time.sleep(0.5)
        return again_ in search.err.read_text()

    until(tried_again, search.err.read_text)
    database.kill()
    time.sleep(2)
    database.start()
    search.until(done(4))
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
    assert set(finished) <= set(range(8)), "a trial that is tried again keeps its place"
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
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: search.storage: Optuna can't work with postgresql://127.0.0.1")
    assert "password authentication failed" in refused.stderr
    assert "wr0ng" not in refused.stderr
    assert project.files() == before
