"""The memory that the C library keeps after it was freed."""

import contextlib
import ctypes


def give_back() -> None:
    """Give freed memory back to the system where the C library can (glibc); elsewhere do nothing.

    Tensors of a few megabytes that are freed between others that stay leave holes, in which the next, larger ones have no room: after an
    epoch of ResNet-18 a fifth of the process is such holes. It takes milliseconds, and what is used again is fetched again, so it is
    called between parts of a run and not between steps."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
