"""Where trials are kept: a database that may be away for a while, and which of its trials nobody runs any more.

A trial is alive while its process holds a lock on this machine or, on another, while its heartbeat goes on. One that is not
fails and waits to be tried again: it does not count then, and its successor names it in Optuna's retry history.
"""

import contextlib
import functools
import logging
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

from lethe._util.errors import RunFailed
from lethe._util.redact import said

PATIENCE = 600.0  # seconds that a database may be away
MISSED = 4  # heartbeats in a row, and the trial is another's
TRIES = 4  # of a trial whose process dies each time
BEHIND = ("_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id", "_get_stale_trial_ids")  # Optuna's cache calls them
TAKES = "set_trial_state_values"

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
log = logging.getLogger(__name__)


def address(url: str) -> str:
    """With the driver that is installed, where the URL names none."""
    kind, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and kind in ("postgresql", "postgres") else url


class Storage(optuna.storages.RDBStorage):  # type: ignore[misc]
    """Optuna's, which waits for a database that went away. Opening it does not: what is wrong with a URL is said at once."""

    def __init__(self, url: str, heartbeat: int) -> None:
        sqlite = url.startswith("sqlite")
        self.file = make_url(url).database if sqlite else None
        engine: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
        if url.startswith("postgresql"):
            engine["connect_args"] = {"connect_timeout": 10}
        super().__init__(
            address(url),
            engine,
            heartbeat_interval=heartbeat,
            grace_period=MISSED * heartbeat,
            heartbeat_stale_trial_callback=again,
        )

    def turn(self) -> contextlib.AbstractContextManager[Any]:
        """SQLite locks no row while a waiting trial is taken: two processes would take the same one (14 times of 60), and run it."""
        return FileLock(f"{self.file}.lock") if self.file and self.file != ":memory:" else contextlib.nullcontext()


def patiently(call: Callable[[], Any]) -> Any:
    """Its result, tried until the database answers. Raises RunFailed once that takes too long."""
    for attempt in Retrying(
        retry=retry_if_exception(_away),
        wait=wait_exponential(max=5),
        stop=stop_after_delay(PATIENCE),
        before_sleep=_tell,
        retry_error_callback=_gave_up,
    ):
        with attempt:
            try:
                return call()
            except UpdateFinishedTrialError:
                if attempt.retry_state.attempt_number == 1:
                    raise
                return True  # an attempt got through whose answer did not
    raise AssertionError


def _away(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError)  # the last: Optuna goes on in a broken session


def _gave_up(state: RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    reason = said(error.__cause__ or error) if error else ""
    raise RunFailed(f"search.storage did not answer for {PATIENCE:g} s ({reason}); the same command goes on") from error


def _tell(state: RetryCallState) -> None:
    if state.attempt_number == 2 and state.outcome:  # the first may be no more than a lock
        error = state.outcome.exception()
        log.warning("search.storage does not answer (%s); waiting up to %g s", said(error.__cause__ or error), PATIENCE)  # type: ignore[union-attr,arg-type]


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Storage, *arguments: Any, **named: Any) -> Any:
        with self.turn() if method.__name__ == TAKES else contextlib.nullcontext():
            return patiently(lambda: method(self, *arguments, **named))

    return call


for _name, _method in list(vars(optuna.storages.RDBStorage).items()):
    if callable(_method) and (not _name.startswith("_") or _name in BEHIND):
        setattr(Storage, _name, _patient(_method))


# ---- trials that nobody runs ----------------------------------------------------------------------------------------


def again(study: optuna.Study, trial: FrozenTrial, tries: int | None = TRIES) -> None:
    """Its arguments wait to be tried again, by themselves: what it measured is not theirs."""
    trial.user_attrs = {}
    RetryHeartbeatStaleTrialCallback(max_retry=tries and tries - 1)(study, trial)


def interrupted(study: optuna.Study) -> set[int]:
    """Numbers of the trials that were, or will be, tried again."""
    found = study.get_trials(deepcopy=False)
    return {number for trial in found for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def lost(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were interrupted before it was noted that they wait to be tried again."""
    over, found = interrupted(study), study.get_trials(states=(TrialState.FAIL,))
    alone = [trial for trial in found if "reason" not in trial.user_attrs and trial.number not in over]
    return [trial for trial in alone if len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) < TRIES - 1]


@contextlib.contextmanager
def running(study: optuna.Study, trial: optuna.Trial, locks: Path, home: str) -> Iterator[None]:
    """Others see that the trial is alive. `home`: this workspace on this machine, whose `locks` they look at."""
    lock = _lock(study, locks, trial.number)
    with FileLock(lock, timeout=10):
        trial.set_user_attr("home", home)
        yield
        lock.unlink(missing_ok=True)


def revive(study: optuna.Study, locks: Path, home: str, alone: bool = False) -> None:
    """What nobody runs any more fails, and waits to be tried again. `alone`: nobody but us can begin a trial."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        where, age = trial.user_attrs.get("home"), datetime.now() - (trial.datetime_start or datetime.now())
        if where not in (None, home):
            continue  # its heartbeat tells
        if where is None and not alone and age < timedelta(minutes=5):
            continue  # it may just have been begun, anywhere
        with contextlib.suppress(Timeout), FileLock(lock := _lock(study, locks, trial.number), timeout=0):
            _give_up(study, trial.number)
            lock.unlink(missing_ok=True)


def _give_up(study: optuna.Study, number: int) -> None:
    """Killed between the two, it is given up once more, and tried again once."""
    trial = study.get_trials()[number]
    if trial.state is TrialState.RUNNING:
        if number not in interrupted(study):
            again(study, trial)
        with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # another's heartbeat check was first
            study.tell(number, state=TrialState.FAIL)


def _lock(study: optuna.Study, locks: Path, number: int) -> Path:
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"search.{study.study_name}.{number}.lock"
