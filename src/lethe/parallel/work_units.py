"""Running one unit of work in any process, and sending what it returns or raises to the process that waits for it."""

import pickle
import traceback
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import clean

Item = TypeVar("Item")
Outcome = tuple[Item, Any, Exception | None]  # the item, what the function returned, what it raised

MAX_ATTEMPTS = 3  # at a unit whose process dies
STOP_TIMEOUT = 60.0  # seconds that an interrupted unit may take to stop
MAX_NAME = 120  # characters of an item in a message


def run_here(fn: Callable[[Item], Any], items: Iterable[Item]) -> "Generator[Outcome[Item]]":
    """Run units one after the other in this process.

    Args:
        fn: Called with each item.
        items: The units.

    Yields:
        Outcomes, in the order of items. An error of a unit is yielded, a KeyboardInterrupt is raised.
    """
    for item in items:
        try:
            result = fn(item)
        except Exception as error:
            yield item, None, error
        else:
            yield item, result, None


def attempt(fn: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    """Run a unit in a worker, so that its error can be sent to the process that waits for it.

    Args:
        fn: Called with the item.
        item: The unit.

    Returns:
        What it returned and None, or None and what it raised: with the traceback as a note, or as RunFailed if it can't be pickled.
    """
    try:
        return fn(item), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RunFailed(f"{type(error).__name__}: {error}")
        return None, error


def pack(answer: tuple[Any, Exception | None]) -> bytes:
    """Pickle what `attempt` returned; RunFailed in place of a result that can't be pickled."""
    try:
        return pickle.dumps(answer)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        return pickle.dumps((None, RunFailed(f"its result can't be sent: {error}")))


def describe(item: Any) -> str:
    """Return an item on one line, in at most 120 characters, without passwords."""
    text = clean(" ".join(str(item).split()))
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 3]}..."


def naming_item(item: Any, error: Exception) -> Exception:
    """Add the item to a unit's error.

    Args:
        item: The unit.
        error: What it raised.

    Returns:
        A new UserError or RunFailed with the item in its message; an error of another type itself, with the item in a note.
    """
    if isinstance(error, UserError | RunFailed):
        return type(error)(f"{describe(item)}: {error}")
    error.add_note(f"in the unit {describe(item)}")
    return error
