"""A search's storage: passwords, patience, and whose turn it is."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import clean
from lethe.config import loader
from lethe.search import storage


def number(row: dict[str, Any]) -> int:
    return int(row["tags"]["trial"])


def test_a_password_is_cleaned_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    for words in ("postgresql://me:s3cret@db/x", "postgresql:///x?host=db&user=me&password=s3cret&a=1", "it said s3cret"):
        assert "s3cret" not in clean(words)


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


def test_a_database_on_a_full_disk_is_not_waited_for(tmp_path: Path) -> None:
    """A database of two pages at most stands for the disk: SQLite's error is the same."""
    with closing(create_engine(f"sqlite:///{tmp_path / 's.db'}").connect()) as db:
        db.execute(text("pragma max_page_count = 2"))
        with pytest.raises(RunFailed, match=r"^the database of search\.storage could not be written: the disk is full; the same command"):
            storage.retrying(lambda: [db.execute(text(f"create table t{n} (a integer primary key, b text)")) for n in range(9)])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pages", [2, 40])
def test_a_disk_that_is_full_as_a_search_opens_its_database_is_no_wrong_key(pages: int, tmp_path: Path) -> None:
    """With two pages not even the tables fit, with 40 they do and the study does not."""
    config = loader.load(["--run.workspace", str(tmp_path)])

    def limit(connection: Any, record: Any) -> None:
        connection.execute(f"pragma max_page_count = {pages}")

    def create(storage: optuna.storages.BaseStorage) -> None:
        for number in range(200):
            optuna.create_study(study_name=f"{number}" * 200, storage=storage)

    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(RunFailed, match=r"^the database of search\.storage could not be written: the disk is full; the same command"):
            storage.with_storage(config, create)
    finally:
        event.remove(Engine, "connect", limit)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_a_database_that_refuses_a_trials_end_is_said(fails: bool, tmp_path: Path) -> None:
    """Optuna's own error is then about the state that it could not store."""
    database = storage.Storage(f"sqlite:///{tmp_path / 's.db'}", 30)
    database.heartbeat_interval = None  # the thread of heartbeats would find the database closed to writing when it begins late
    study = optuna.create_study(study_name="s", storage=database)

    def objective(trial: optuna.Trial) -> float:
        event.listen(database.engine, "begin", lambda connection: connection.exec_driver_sql("pragma query_only = 1"))
        if fails:
            raise RuntimeError("the objective's own")
        return 1.0

    with pytest.raises(RunFailed, match=r"^the database of search\.storage could not be written: "), storage.unmasked():
        study.optimize(objective, n_trials=1)
    with pytest.raises(AssertionError, match="own"), storage.unmasked():
        raise AssertionError("its own")
    database.engine.dispose()


@pytest.mark.filterwarnings("ignore:Argument ``heartbeat_interval`` is an experimental feature")
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


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_what_a_new_search_leaves_behind_is_counted(tmp_path: Path) -> None:
    config = loader.load(["--run.workspace", str(tmp_path)])
    for name, trials in (("model_4.oracle.a", 2), ("model_4.oracle.b", 1), ("model_4.report.a", 4), ("model_3.oracle.a", 8)):
        study = storage.with_storage(config, partial(optuna.create_study, study_name=name))
        for _ in range(trials):
            study.add_trial(optuna.trial.create_trial(value=1.0))
    assert storage.earlier_trials(config, "model_4.oracle.c") == 3
    assert storage.earlier_trials(config, "model_4.oracle.a") == 1
    assert storage.earlier_trials(config, "model_4.oracle_free.a") == 0


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_is_tried_again_keeps_its_place_among_those_of_other_workers() -> None:
    study = optuna.create_study()
    killed, other = study.ask(), study.ask()  # numbers 0 and 1, by two workers
    storage.requeue(study, study.trials[killed.number])
    study.tell(killed, state=optuna.trial.TrialState.FAIL)
    study.tell(other, 1.0)
    again = study.ask()
    later = study.ask()
    assert (killed.number, other.number, again.number, later.number) == (0, 1, 2, 3)
    assert storage.places(study) == {0: 0, 1: 1, 2: 0, 3: 2}
    study.tell(again, 0.5)
    found = storage.at_place(study, 0)
    assert found is not None and found.value == 0.5
    assert storage.at_place(study, 3) is None
