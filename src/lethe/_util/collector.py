"""Python's garbage collector in the processes of commands."""

import atexit
import gc
import sys

THRESHOLDS = (50_000, 20, 20)


def spare() -> None:
    """Let the collector search less often, and not at the end of the process.

    Most objects are those of imported modules, which stay: searched at Python's own thresholds while modules are imported, and again
    when the interpreter ends, they take a quarter of the time of a small command."""
    gc.set_threshold(*THRESHOLDS)
    atexit.unregister(_end_without_search)
    atexit.register(_end_without_search)


def mark() -> None:
    """Let `collect` search only objects that are made from now on, not those of imported modules."""
    gc.freeze()


def collect() -> None:
    """Collect what became garbage since `mark`, such as the parts of a traced network, which reference each other and the network."""
    gc.collect()
    gc.unfreeze()


def _end_without_search() -> None:
    if "triton" not in sys.modules:  # its bindings report on stderr what is not collected
        gc.freeze()
