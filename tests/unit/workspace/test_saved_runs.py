"""What runs left in a workspace, read back."""

import json
from pathlib import Path

import pytest
import torch

import lethe
from lethe.evaluation import logits_table
from lethe.evaluation.score import score_model
from lethe.models import checkpoint
from lethe.testing.tables import drawn
from lethe.workspace.layout import Layout


def test_runs_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in ("original", "hybrid_4.seed3", "as_run/model_1"):
        logits_table.write(drawn(1, name=name), layout.logits(name))
    score = score_model(drawn(1), [drawn(2)])
    layout.scores("hybrid_4.seed3").parent.mkdir()
    layout.scores("hybrid_4.seed3").write_text(json.dumps(score.to_json()))
    checkpoint.save({"fc.weight": torch.ones(2, 3)}, layout.weights("original"), {})
    layout.epochs("original").parent.mkdir()
    layout.epochs("original").write_text("step,phase\n0,start\n")
    saved = lethe.load(tmp_path)
    assert saved.runs == ("as_run/model_1", "hybrid_4.seed3", "original")
    assert saved.scores("hybrid_4.seed3") == score
    assert saved.logits("as_run/model_1").hash == drawn(1).hash
    assert saved.weights("original")["fc.weight"].shape == (2, 3)
    assert saved.epochs("original") == [{"step": "0", "phase": "start"}]


@pytest.mark.parametrize("what", ["folder", "empty folder", "run", "scores", "epochs"])
def test_what_is_not_there_is_named(tmp_path: Path, what: str) -> None:
    layout = Layout(tmp_path / "there")
    (tmp_path / "empty").mkdir()
    logits_table.write(drawn(1), layout.logits("original"))
    calls = {
        "folder": lambda: lethe.load(tmp_path / "gone"),
        "empty folder": lambda: lethe.load(tmp_path / "empty"),
        "run": lambda: lethe.load(layout.root).logits("model_9"),
        "scores": lambda: lethe.load(layout.root).scores("original"),
        "epochs": lambda: lethe.load(layout.root).epochs("original"),
    }
    with pytest.raises(lethe.UserError) as caught:
        calls[what]()
    words = {
        "folder": "is not a folder",
        "empty folder": "holds no runs",
        "run": "has no run model_9; it has original",
        "scores": "original.json",
        "epochs": "original.csv",
    }
    assert words[what] in str(caught.value) and "\n" not in str(caught.value)
