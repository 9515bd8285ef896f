"""What a search is resumed by, and what it refuses before it writes anything."""

from pathlib import Path

import pytest

from lethe._util.errors import UserError
from lethe.config.loader import load
from lethe.search.study import search, study_name
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared

DIGITS = ["--data.source", "digits", "--data.limit", "10", "--model.architecture", "convnet", "--run.threads", "1"]


def test_trials_of_a_given_model_with_other_normalisation_are_of_another_search(tmp_path: Path) -> None:
    """Its weights are the same, and what they give is not."""

    def name(*keys: str) -> str:
        config = load([*DIGITS, "--run.workspace", str(tmp_path), *keys])
        return study_name(Prepared(config, prepared.images, prepared.splits), {}, ["the given weights"])

    prepared = prepare(load([*DIGITS, "--run.workspace", str(tmp_path)]))
    given = ("--pretrain.checkpoint", "model.pth")
    assert name(*given) != name(*given, "--data.mean", "0.5,0.5,0.5")
    assert name(*given) == name(*given, "--data.mean", "0.4914,0.4822,0.4465")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("--retrain.checkpoint notes.pth", "retrain.checkpoint: .*notes.pth"),
        ("--pretrain.checkpoint notes.pth", "pretrain.checkpoint: .*notes.pth"),
        ("--pretrain.init notes.pth", "notes.pth"),
        ("--model.architecture alexnet", "model.architecture is alexnet"),
        ("--run.device cuda:99", "run.device"),
    ],
)
def test_a_search_that_is_refused_has_written_nothing(keys: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("hello\n")
    words = keys.replace("notes.pth", str(tmp_path / "notes.pth")).split()
    given = [word for word in DIGITS if "--model.architecture" not in words or word not in ("--model.architecture", "convnet")]
    with pytest.raises(UserError, match=says):
        search(load([*given, *words, "--search.method", "ft", "--methods.ft.batch_size", "16", "--run.workspace", str(tmp_path / "new")]))
    assert not (tmp_path / "new").exists()
