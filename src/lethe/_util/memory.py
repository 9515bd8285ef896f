"""The memory that the C library keeps after it was freed."""

import contextlib
import ctypes

MIB = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h


def keep() -> None:
    """Let the C library keep freed memory from the start as it does after a free of 32 MiB (glibc); elsewhere do nothing.

    It returns freed blocks to the system above a size that it learns from the blocks that are freed. With a small network these are so
    small that every step's tensors come from the system anew: a fifth of the time of such steps goes into page faults (docs/log.md)."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * MIB)  # the largest that it takes, and that it would learn
        library.mallopt(M_TRIM_THRESHOLD, 64 * MIB)


def give_back() -> None:
    """Give freed memory back to the system where the C library can (glibc); elsewhere do nothing.

    Tensors of a few megabytes that are freed between others that stay leave holes, in which the next, larger ones have no room: after an
    epoch of ResNet-18 a fifth of the process is such holes. It takes milliseconds, and what is used again is fetched again, so it is
    called between parts of a run and not between steps."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
