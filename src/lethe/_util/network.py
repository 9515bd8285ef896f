"""Errors of the network as messages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.error import HTTPError, URLError

from lethe._util.errors import UserError
from lethe._util.redact import clean


@contextmanager
def network(refusal: Callable[[str], UserError]) -> Iterator[None]:
    """Turn network errors into UserError; the disk's have to pass outside of it.

    Args:
        refusal: makes the error from its reason.

    Raises:
        UserError: the network, or whoever answers, refuses.
    """
    try:
        yield
    except HTTPError as error:
        error.close()
        raise refusal(_line(error)) from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: it is no address, or the proxy's is none
        raise refusal(_line(error.reason if type(error) is URLError else error)) from None


def _line(error: object) -> str:
    return clean(" ".join(str(error).split()))
