"""What of a recipe is checked against the drawn splits, before anything is written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lethe._util.errors import UserError
from lethe.config.loader import load
from lethe.data.images import Images
from lethe.pipeline.unlearn import check
from lethe.workspace.workspace import Prepared


def test_a_method_that_is_shaped_by_unseen_images_leaves_some_to_measure_it_by(tmp_path: Path) -> None:
    ids, labels = tuple(map(str, range(12))), np.arange(12) % 3
    images = Images(np.zeros((12, 8, 8, 3), np.uint8), labels, ids, ("a", "b", "c"), 6)
    parts = {"retain": np.arange(4), "forget": np.arange(4, 6), "validation": np.arange(6, 9), "test": np.arange(9, 12)}
    keys = [f"--run.workspace={tmp_path}", "--model.architecture=convnet", "--methods.lethe.batch_size=2", "--methods.model_1.batch_size=2"]
    drawn = Prepared(load([*keys, "--method=lethe"]), images, parts)
    with pytest.raises(UserError, match=r"^validation has 3 images, one of a class at most; "):
        check(drawn, drawn.config.recipe())
    check(replace(drawn, splits=parts | {"validation": np.arange(6, 10)}), drawn.config.recipe())
    other = replace(drawn, config=load([*keys, "--method=model_1"]))
    check(other, other.config.recipe())
