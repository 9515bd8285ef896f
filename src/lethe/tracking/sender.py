"""When records are sent to MLflow: by a background thread during the run; those of dead processes by the next run or by `send`."""

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lethe._util.checkout import commit, send_command
from lethe._util.redact import clean, plain, summarize_error
from lethe.tracking.mlflow_delivery import Delivery, unreachable
from lethe.tracking.mlflow_store import end_abandoned_runs
from lethe.tracking.outbox import Outbox, abandoned

MAX_WAIT, MAX_WAIT_UNREACHABLE = 120.0, 5.0  # seconds that `finish` waits if the store answers, and if not
MAX_DELAY = 60.0  # seconds between two attempts while the store does not answer
GATHER = 1.0  # seconds in which records are gathered for one transaction of the store; none at the end of the run
SHORT_DELAY = 0.1  # seconds between two attempts while only another thread is waited for

log = logging.getLogger(__name__)


class Sender(threading.Thread):
    """Sends the abandoned outboxes of a workspace, then the records of its own outbox as they are appended, up to the last one.

    Attributes:
        wake: Set after a record was appended.
    """

    def __init__(self, home: Path, own: Outbox) -> None:
        """Create the thread without starting it.

        Args:
            home: The workspace.
            own: The outbox of this process's run.
        """
        super().__init__(name="tracking", daemon=True)
        self.home, self.own = home, Delivery(own)
        self.wake, self.closing, self.done = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        """Send the outboxes of dead processes and this one's, until closed. Errors are logged, never raised."""
        older: list[Delivery] = []
        try:
            if not self.own.outbox.joins:
                self.own.outbox.append("tags", _commit_tags())
            older += _to_callers_store(map(Delivery, abandoned(self.home)))
            self._loop(older)
        except Exception as error:  # tracking must never end a run
            log.warning("Tracking stopped: %s", summarize_error(error))
        finally:
            for delivery in [*older, self.own]:
                delivery.outbox.lock.release()
            self.done.set()

    def _loop(self, older: list[Delivery]) -> None:
        delay, swept, folder = 1.0, False, self.own.outbox.folder
        while folder.exists():
            self.wake.clear()
            closing = self.closing.is_set()
            if outcome := self._attempt_all(older):
                if closing and outcome != "waits":
                    return
                if closing:
                    time.sleep(SHORT_DELAY)
                else:
                    self.closing.wait(delay)
                delay = min(MAX_DELAY, 2 * delay)
            else:
                if not swept:
                    with contextlib.suppress(Exception):  # cosmetic: a failure must not stop sending
                        end_abandoned_runs(self.home, self.own.store)
                delay, swept = 1.0, True
                if closing:  # without an end: the disk was full
                    return
                if folder.exists():
                    self.wake.wait()
                    self.closing.wait(GATHER)

    def _attempt_all(self, older: list[Delivery]) -> str:
        """Attempt every delivery once. Older outboxes go first: one of them may hold the beginning of our own run."""
        silent: set[str] = set()
        for delivery in list(older):
            if delivery.store not in silent and delivery.attempt() == "unreachable":
                silent.add(delivery.store)
            if delivery.store not in silent:
                older.remove(delivery)
                delivery.outbox.lock.release()
        return "unreachable" if self.own.store in silent else self.own.attempt()

    def finish(self) -> bool:
        """Wait until the last record is sent, or a time limit is reached.

        Returns:
            Whether all records are sent.
        """
        try:
            self._wait(MAX_WAIT_UNREACHABLE if self.own.store in unreachable else MAX_WAIT)
        except KeyboardInterrupt:  # the command has done its work: a moment more, so that its run does not stay RUNNING
            self._wait(MAX_WAIT_UNREACHABLE)
            raise
        finally:
            sent = not self.own.outbox.folder.exists()
            if not sent:
                left = len(self.own.outbox.pending())
                log.warning(
                    "%d records are not sent to MLflow yet. The next run here sends them; to send them now: %s",
                    left,
                    send_command(self.home),
                )
        return sent

    def _wait(self, seconds: float) -> None:
        self.closing.set()
        self.wake.set()
        self.done.wait(seconds)


def _to_callers_store(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    """Leave out the deliveries to other stores, and say so once for each store."""
    told: set[str] = set()
    for delivery in deliveries:
        if delivery.is_callers:
            yield delivery
            continue
        delivery.outbox.lock.release()
        if delivery.store not in told:
            told.add(delivery.store)
            log.warning(
                "Records in %s are for another MLflow store, %s, and are left there; if you trust it: MLFLOW_TRACKING_URI=%s %s",
                delivery.outbox.folder.parent,
                clean(delivery.store),
                shlex.quote(clean(delivery.store)),
                send_command(delivery.outbox.home),
            )


def _commit_tags() -> dict[str, str]:
    head = commit()
    return {"mlflow.source.git.commit": head[0], "git_dirty": plain(head[1])} if head else {}


def send(homes: Iterable[Path]) -> int:
    """Send the pending records of workspaces, except those of running processes, which send their own.

    Args:
        homes: The workspaces.

    Returns:
        Number of records that are still unsent.
    """
    unsent = 0
    for home in homes:
        deliveries = [Delivery(outbox) for outbox in abandoned(home)]
        callers = list(_to_callers_store(deliveries))
        for delivery in deliveries:
            if delivery not in callers or delivery.store in unreachable or delivery.attempt():
                unsent += len(delivery.outbox.pending())
            delivery.outbox.lock.release()
    return unsent
