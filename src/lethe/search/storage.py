"""The database of a search's trials: it may be unreachable for a while, and trials whose process died are queued again.

A trial is alive while its process holds a lock file (on this machine) or while its heartbeat continues (on another). A trial that is
not alive fails and is queued again with the same arguments: the failed one does not count, and its successor names it in Optuna's
retry history.
"""

import contextlib
import functools
import logging
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from lethe._util import redact
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import FULL
from lethe.config.loader import Config
from lethe.workspace.layout import Layout

MAX_WAIT = 600.0  # seconds that a database may be unreachable
MISSED_HEARTBEATS = 4  # in a row, after which a trial counts as dead
MAX_ATTEMPTS = 4  # at a trial whose process dies each time
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
# Private methods of Optuna's storage that its cache calls without going through the public ones
CACHE_METHODS = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids")
REFUSED = {  # of SQLite's errors those that last
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not take or give it",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened",
}
UNWRITTEN = "the database of search.storage could not be written: {}; the same command resumes"
CLAIM = "set_trial_state_values"  # the method that takes a waiting trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
log = logging.getLogger(__name__)


def shared_layout(config: Config) -> Layout:
    """The workspace whose trials and locks are used: the same one for all the copies that DVC makes of a checkout."""
    return Layout(config.path(config.run.workspace))


def storage_url(config: Config) -> str:
    """Resolve `search.storage`; by default a SQLite file in the workspace, whose folder is created."""
    if config.search.storage:
        return config.search.storage
    folder = shared_layout(config).trials
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.resolve() / 'search.db'}"


def with_storage(config: Config, call: Callable[..., Any] | None = None) -> Any:
    """Open the database and call a function of Optuna with it.

    Args:
        config: The configuration.
        call: Takes the keyword argument `storage`; None: only test that the database opens.

    Returns:
        What `call` returns.

    Raises:
        UserError: The database can't be opened; names it without its password.
        RunFailed: The disk is full, or the database stopped answering: nothing that another value of search.storage would mend.
    """
    try:
        storage = Storage(storage_url(config), config.search.heartbeat)
        return call(storage=storage) if call else None
    except RunFailed:
        raise
    except Exception as error:  # a missing driver, a server that is down: as many types as there are databases
        if is_full(error):
            raise RunFailed(UNWRITTEN.format(REFUSED[sqlite3.SQLITE_FULL])) from error
        raise UserError(
            f"search.storage: Optuna can't work with {redact.clean(storage_url(config))}: {redact.summarize_error(error)}"
        ) from error


def with_driver(url: str) -> str:
    """Complete a PostgreSQL URL that names no driver with the one that is installed."""
    kind, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and kind in ("postgresql", "postgres") else url


class Storage(optuna.storages.RDBStorage):  # type: ignore[misc]
    """Optuna's storage, which waits for an unreachable database. Opening it does not wait: a wrong URL is an error at once."""

    def __init__(self, url: str, heartbeat: int) -> None:
        """Open the database.

        Args:
            url: SQLAlchemy's URL.
            heartbeat: Seconds between two heartbeats of a running trial.
        """
        sqlite = url.startswith("sqlite")
        self.file = make_url(url).database if sqlite else None
        engine: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
        if url.startswith("postgresql"):
            engine["connect_args"] = {"connect_timeout": 10}
        with self.claim_lock():  # two processes that start together would both make the tables
            super().__init__(
                with_driver(url),
                engine,
                heartbeat_interval=heartbeat,
                grace_period=MISSED_HEARTBEATS * heartbeat,
                heartbeat_stale_trial_callback=requeue,
            )

    def claim_lock(self) -> contextlib.AbstractContextManager[Any]:
        """Lock while a waiting trial is taken. SQLite locks no row: two processes would take the same trial (14 times of 60)."""
        return FileLock(f"{self.file}.lock") if self.file and self.file != ":memory:" else contextlib.nullcontext()


def retrying(call: Callable[[], Any]) -> Any:
    """Call a function of the database again until the database answers.

    Raises:
        RunFailed: It did not answer for `MAX_WAIT` seconds.
    """
    for attempt in Retrying(
        retry=retry_if_exception(_is_unreachable),
        wait=wait_exponential(max=5),
        stop=stop_after_delay(MAX_WAIT),
        before_sleep=_warn,
        retry_error_callback=_give_up,
    ):
        with attempt:
            try:
                return call()
            except UpdateFinishedTrialError:
                if attempt.retry_state.attempt_number == 1:
                    raise
                return True  # an earlier attempt succeeded, only its answer was lost
            except (StorageInternalError, OperationalError) as error:
                if reason := _refused(error.__cause__ if isinstance(error, StorageInternalError) else error):
                    raise RunFailed(UNWRITTEN.format(reason)) from error
                raise
    raise AssertionError


@contextlib.contextmanager
def unmasked() -> Iterator[None]:
    """Raise what the database raised as a trial's state was to be stored, where Optuna raises an error about that state instead."""
    try:
        yield
    except (AssertionError, UnboundLocalError) as error:
        cause = error.__context__
        while cause is not None and not isinstance(cause, RunFailed):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from None


def _is_unreachable(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if _refused(cause):
        return False
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError)  # the last: Optuna reuses a broken session


def is_full(error: Exception) -> bool:
    """Whether an error says that the disk of SQLite's file, or of its lock, is full."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return _refused(cause) == REFUSED[sqlite3.SQLITE_FULL] or (isinstance(error, OSError) and error.errno in FULL)


def _refused(error: BaseException | None) -> str:
    """Why the disk refuses SQLite's file, which waiting does not change; "" where that is not so."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF  # without what further tells them apart
    return REFUSED.get(code, "")


def _give_up(state: RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    reason = redact.summarize_error(error.__cause__ or error) if error else ""
    raise RunFailed(f"search.storage did not answer for {MAX_WAIT:g} s ({reason}); the same command resumes") from error


def _warn(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number == 2 and error:  # the first may be no more than a lock
        log.warning("search.storage does not answer (%s); waiting up to %g s", redact.summarize_error(error.__cause__ or error), MAX_WAIT)


def _with_retries(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Storage, *arguments: Any, **named: Any) -> Any:
        with self.claim_lock() if method.__name__ == CLAIM else contextlib.nullcontext():
            return retrying(lambda: method(self, *arguments, **named))

    return call


for _name, _method in list(vars(optuna.storages.RDBStorage).items()):
    if callable(_method) and (not _name.startswith("_") or _name in CACHE_METHODS):
        setattr(Storage, _name, _with_retries(_method))


# ---- trials -----------------------------------------------------------------------------------------------------------


def trials_of(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Read the study's trials in these states; without any, in all states.

    Args:
        study: The study.
        *states: The states.

    Returns:
        By number. They are Optuna's own objects, not copies: they must not be changed.
    """
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False, states=states or None)
    return trials


def earlier_trials(config: Config, name: str) -> int:
    """Count the trials of other searches of the same method and objective in the storage, which had other settings.

    Args:
        config: The configuration.
        name: Of the study, `<method>.<objective>.<hash>`.

    Returns:
        Their number, in whatever state they are.
    """
    summaries = with_storage(config, functools.partial(optuna.get_all_study_summaries, include_best_trial=False))
    kind = name.rpartition(".")[0]
    return sum(each.n_trials for each in summaries if each.study_name != name and each.study_name.rpartition(".")[0] == kind)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Read the trials that count, in the order in which they ended: a failed one counts unless it was or will be tried again."""
    retried = retried_numbers(study) | {trial.number for trial in unqueued(study)}
    trials = [trial for trial in trials_of(study, *FINISHED) if trial.number not in retried]
    return sorted(trials, key=lambda trial: (trial.datetime_complete, trial.number))


def requeue(study: optuna.Study, trial: FrozenTrial, max_attempts: int | None = MAX_ATTEMPTS) -> None:
    """Queue a trial's arguments again, without what it recorded.

    Args:
        study: The trial's study.
        trial: The trial that did not end by itself.
        max_attempts: How often these arguments are tried in all; None: without limit.
    """
    trial.user_attrs = {}
    RetryHeartbeatStaleTrialCallback(max_retry=max_attempts and max_attempts - 1)(study, trial)


def retried_numbers(study: optuna.Study) -> set[int]:
    """Numbers of the trials that were queued again."""
    return {number for trial in trials_of(study) for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def places(study: optuna.Study) -> dict[int, int]:
    """Return each trial's place in the search by its number in the database, which gives a trial that is tried again a new number."""
    histories = {trial.number: RetryHeartbeatStaleTrialCallback.retry_history(trial) for trial in trials_of(study)}
    rank = {number: place for place, number in enumerate(sorted(number for number, history in histories.items() if not history))}
    return {number: rank[history[0] if history else number] for number, history in histories.items()}


def at_place(study: optuna.Study, place: int) -> FrozenTrial | None:
    """Return the trial at a place of the search, of several attempts the last; None if there is none.

    Args:
        study: The study.
        place: Counted from 0; a trial that is repeated keeps its place.

    Returns:
        The trial, in whatever state it is.
    """
    attempts = [number for number, at in places(study).items() if at == place]
    return trials_of(study)[max(attempts)] if attempts else None


def unqueued(study: optuna.Study) -> list[FrozenTrial]:
    """Interrupted trials that were killed before they were queued again."""
    retried = retried_numbers(study)
    alone = [t for t in trials_of(study, TrialState.FAIL) if "reason" not in t.user_attrs and t.number not in retried]
    return [trial for trial in alone if len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) < MAX_ATTEMPTS - 1]


@contextlib.contextmanager
def marked_alive(study: optuna.Study, trial: optuna.Trial, locks: Path, home: str) -> Iterator[None]:
    """Show other processes that a trial is alive.

    Args:
        study: The trial's study.
        trial: The running trial.
        locks: Folder of lock files that the processes on this machine share.
        home: Identifies this workspace on this machine.

    Yields:
        None, while the lock is held; an exception leaves its file.
    """
    lock = _lock_path(study, locks, trial.number)
    with FileLock(lock, timeout=10):
        trial.set_user_attr("home", home)
        yield
        lock.unlink(missing_ok=True)


def requeue_dead(study: optuna.Study, locks: Path, home: str, exclusive: bool = False) -> None:
    """Fail and queue again every trial whose process is gone.

    Args:
        study: The study to look at.
        locks: Folder of lock files, as for `marked_alive`.
        home: This workspace on this machine, as for `marked_alive`.
        exclusive: Whether no other process can start a trial now.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in trials_of(study, TrialState.RUNNING):
        where, age = trial.user_attrs.get("home"), datetime.now() - (trial.datetime_start or datetime.now())
        if where not in (None, home):
            continue  # on another machine: its heartbeat decides
        if where is None and not exclusive and age < timedelta(minutes=5):
            continue  # another process may have started it just now
        with contextlib.suppress(Timeout), FileLock(lock := _lock_path(study, locks, trial.number), timeout=0):
            _fail_and_requeue(study, trial.number)
            lock.unlink(missing_ok=True)


def _fail_and_requeue(study: optuna.Study, number: int) -> None:
    """Queue a trial again, then fail it. If the process is killed in between, the next call queues the trial once."""
    trial = study.get_trials()[number]
    if trial.state is TrialState.RUNNING:
        if number not in retried_numbers(study):
            requeue(study, trial)
        with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # another process's heartbeat check was first
            study.tell(number, state=TrialState.FAIL)


def _lock_path(study: optuna.Study, locks: Path, number: int) -> Path:
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"search.{study.study_name}.{number}.lock"
