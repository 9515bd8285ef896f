"""An export on a machine without a GPU does without Triton, and what comes after it does not."""

import importlib
import importlib.util
import logging
import sys

import pytest
import torch

from lethe.models.without_triton import COUNTER, TRITON, without_triton


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU's compiler has Triton")
def test_triton_is_not_found_within_and_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, TRITON, raising=False)
    installed = importlib.util.find_spec(TRITON) is not None
    with without_triton():
        assert logging.getLogger(COUNTER).disabled
        with pytest.raises(ImportError):
            importlib.import_module(TRITON)
    assert TRITON not in sys.modules and not logging.getLogger(COUNTER).disabled
    assert (importlib.util.find_spec(TRITON) is not None) == installed


def test_who_has_it_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, TRITON, logging)
    with without_triton():
        assert importlib.import_module(TRITON) is logging
    assert sys.modules[TRITON] is logging
