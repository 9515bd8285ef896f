"""torch's compiler without Triton, on machines without a GPU."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TRITON, COUNTER = "triton", "torch.utils.flop_counter"  # which warns that it can't count what Triton computes


@contextmanager
def without_triton() -> Iterator[None]:
    """Context in which torch's compiler, which traces a network that is exported, finds no Triton where there is no accelerator.

    It imports Triton if it is installed, 70 MiB of code that only a GPU runs. Afterwards an import of Triton finds it."""
    modules: dict[str, Any] = sys.modules
    if TRITON in modules or torch.accelerator.is_available():
        yield
        return
    modules[TRITON], logger = None, logging.getLogger(COUNTER)  # an import of it fails
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        modules.pop(TRITON, None)
        logger.disabled = was
