"""What a search is resumed by."""

from pathlib import Path

from lethe.config.loader import load
from lethe.search.study import study_name
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
