"""What a command refuses is refused before it trains or writes anything."""

from pathlib import Path

import pytest

from lethe._util.errors import UserError
from lethe.config.loader import load
from lethe.pipeline.bank_training import train_bank
from lethe.pipeline.several_methods import unlearn_each

DIGITS = ["--data.source", "digits", "--data.limit", "10", "--run.threads", "1"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [("--pretrain.init notes.pth", "notes.pth"), ("--model.architecture alexnet", "model.architecture is alexnet")],
)
def test_a_bank_that_cannot_be_trained(keys: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("hello\n")
    words = keys.replace("notes.pth", str(tmp_path / "notes.pth")).split()
    with pytest.raises(UserError, match=says):
        train_bank(load([*DIGITS, *words, "--retrain.seeds", "1", "--run.workspace", str(tmp_path / "new")]))
    assert not (tmp_path / "new").exists()


def test_the_second_of_several_methods(tmp_path: Path) -> None:
    """Which takes a batch that is larger than retain: the first has not run either."""
    keys = ["--model.architecture", "convnet", "--methods.model_1.batch_size", "16", "--methods.ft.batch_size", "91"]
    keys += ["--run.workspace", str(tmp_path / "new")]
    with pytest.raises(UserError, match=r"methods.ft.batch_size is 91; it takes at most the 90 retain images"):
        unlearn_each(load([*DIGITS, *keys]), ["model_1", "ft"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["seeds", "originals"])
def test_a_chain_among_several_methods_that_run_more_than_once(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"run.{key} is 2; as_run is a chain of runs and takes 1"):
        unlearn_each(load([*DIGITS, f"--run.{key}", "2", "--run.workspace", str(tmp_path / "new")]), ["model_1", "as_run"])
    assert not (tmp_path / "new").exists()
