"""Which logits table of a workspace is used as it is, and which is read from its model again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lethe.config import loader
from lethe.data.images import Images
from lethe.evaluation.logits_table import DRAWS, RESIDUAL
from lethe.models import checkpoint
from lethe.workspace import artifacts
from lethe.workspace.read_model import PERTURBED
from lethe.workspace.workspace import Prepared

Open = Callable[..., Prepared]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """A workspace with the weights of one result: 10 of 40 images are to be forgotten."""
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8), np.arange(40, dtype=np.int64) % 2
    images = Images(pixels, labels, tuple(f"train/{n}" if n < 30 else f"test/{n}" for n in range(40)), ("a", "b"), 10)
    splits = dict(zip(("retain", "forget", "validation", "test"), np.split(np.arange(40), [20, 30, 35]), strict=True))

    def open_workspace(*words: str) -> Prepared:
        keys = ["--data.source", "digits", "--run.workspace", str(tmp_path), "--model.architecture", "convnet", *words]
        return Prepared(loader.load(keys), images, splits)

    here = open_workspace()
    checkpoint.save_model(here.network(0).state_dict(), here.layout.weights("model_4"), here.hashes)
    return open_workspace


def test_a_table_with_more_perturbed_copies_is_used_and_one_with_fewer_or_none_is_completed(opened: Open) -> None:
    path = opened().layout.logits("model_4")
    whole = artifacts.logits(opened(), "model_4")  # 16 copies of 10 images are fewer than the default
    assert PERTURBED not in whole.about and DRAWS not in whole.columns
    assert artifacts.logits(opened("--evaluate.perturbed", "25"), "model_4") is whole
    path.unlink()
    sampled = artifacts.logits(opened("--evaluate.perturbed", "25"), "model_4")
    assert sampled.about[PERTURBED] == "25"
    assert sampled.columns[DRAWS][sampled.rows("forget")].tolist() == [2] * 10
    assert artifacts.logits(opened("--evaluate.perturbed", "7"), "model_4") is sampled
    more = artifacts.logits(opened("--evaluate.perturbed", "40"), "model_4")
    assert more.about[PERTURBED] == "40" and (more.logits == sampled.logits).all()
    again = artifacts.logits(opened("--evaluate.perturbed", "null"), "model_4")
    assert again.hash == whole.hash and again.about == whole.about
    path.unlink()
    first = artifacts.logits(opened(), "model_4", perturbed=False)
    assert first.about[PERTURBED] == "0" and RESIDUAL not in first.columns
    assert artifacts.current_logits(opened(), "model_4") is first
    completed = artifacts.logits(opened(), "model_4")
    assert completed.hash == whole.hash and completed.about == whole.about
