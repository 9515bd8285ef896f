"""An export on a machine without a GPU does without Triton, and what comes after it does not."""

import importlib
import importlib.util
import logging
import sys
from contextlib import nullcontext

import pytest
import torch

from lethe.models.without_triton import COUNTER, TRITON, without_triton


def test_triton_is_found_within_for_a_gpu_alone_and_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, TRITON, raising=False)
    installed, gpu = importlib.util.find_spec(TRITON) is not None, torch.accelerator.is_available()
    with without_triton():
        assert logging.getLogger(COUNTER).disabled is not gpu
        assert (importlib.util.find_spec(TRITON) is not None) == (installed and gpu)
        with nullcontext() if installed and gpu else pytest.raises(ImportError):
            importlib.import_module(TRITON)
    assert gpu or (TRITON not in sys.modules and not logging.getLogger(COUNTER).disabled)
    assert (importlib.util.find_spec(TRITON) is not None) == installed


def test_who_has_it_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, TRITON, logging)
    with without_triton():
        assert importlib.import_module(TRITON) is logging
    assert sys.modules[TRITON] is logging
