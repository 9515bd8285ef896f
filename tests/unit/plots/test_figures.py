"""Figures."""

import sys
import types
import warnings

import pytest

from lethe.plots import training_curves

# --- a crash that was there once -------------------------------------------------------------------------------------


def test_a_figure_while_another_thread_imports_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    class Half(types.ModuleType):
        asked = 0

        def __getattr__(self, name: str) -> object:
            self.asked += name == "version_info"
            if name != "version_info" or self.asked == 1:
                raise AttributeError(name)
            return (9, 0)

    half = Half("IPython")
    monkeypatch.setitem(sys.modules, "IPython", half)
    FigureCanvasBase._fix_ipython_backend2gui.cache_clear()  # type: ignore[attr-defined]
    assert training_curves.accuracy_curves([{"step": 0, "phase": "start", "retain.accuracy": 10.0}], "a").startswith(b"\x89PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's on a layout that does not fit
        assert training_curves.accuracy_curves(
            [{"step": 0, "phase": "start", "retain.accuracy": 10.0}, {"step": 1, "phase": "alternate"}], "a"
        )
    assert half.asked > 1
