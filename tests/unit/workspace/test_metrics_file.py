"""The few numbers of a score that `dvc metrics` shows."""

import json
from pathlib import Path

import pytest

from lethe._util import manifest
from lethe.evaluation.score import Score
from lethe.workspace import scores
from lethe.workspace.layout import Layout


@pytest.mark.parametrize("before", [b"", b"{", b'{"test": 1.0}', b"\xff"])
def test_whatever_is_there_is_replaced(before: bytes, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.state.mkdir()
    score, path = Score({"test": 91.234, "validation": 90.0}, {}), layout.metrics("model_1")
    scores._write_metrics(layout, "model_1", score)
    written = path.read_bytes()
    assert json.loads(written) == {"accuracy": {"test": 91.23}}
    path.write_bytes(before)  # as a copy from another workspace, or a kill, leaves it
    scores._write_metrics(layout, "model_1", score)
    assert (path.read_bytes(), manifest.state(path)) == (written, True)
    at = path.stat().st_mtime_ns
    scores._write_metrics(layout, "model_1", score)
    assert path.stat().st_mtime_ns == at
