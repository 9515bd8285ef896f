"""By which recipe a workspace's references are trained: what earlier versions trained on few images stays valid."""

from pathlib import Path

import numpy as np
import torch

from lethe.config import loader
from lethe.data.images import Images
from lethe.models import checkpoint
from lethe.recipes.recipe import Phase
from lethe.workspace import bank
from lethe.workspace.workspace import Prepared


def prepared(folder: Path, *words: str) -> Prepared:
    pixels, labels = np.zeros((40, 3, 8, 8), np.uint8), np.arange(40, dtype=np.int64) % 2
    ids = tuple(f"train/{n}" if n < 30 else f"test/{n}" for n in range(40))
    index = {"retain": range(20), "forget": range(20, 30), "validation": range(30, 35), "test": range(35, 40)}
    splits = {name: np.array(rows) for name, rows in index.items()}
    config = loader.load(["--data.source", "digits", "--run.workspace", str(folder), *words])
    return Prepared(config, Images(pixels, labels, ids, ("a", "b"), 10), splits)


def batch(here: Prepared) -> int:
    first = here.reference_recipe("retrained")[0]
    assert isinstance(first, Phase)
    return first.batch_size


def test_an_original_of_an_earlier_version_stays_valid_and_others_follow_it(tmp_path: Path) -> None:
    new = prepared(tmp_path)
    assert batch(new) == 16
    as_set = repr(new.config.reference_recipe("original"))
    checkpoint.save({"weight": torch.zeros(1)}, new.layout.weights("original"), {"recipe": as_set})
    earlier = prepared(tmp_path)
    assert batch(earlier) == 128 and repr(earlier.reference_recipe("original")) == as_set
    assert bank.key(earlier) == bank.key(prepared(tmp_path, "--pretrain.batch_size", "128")) != bank.key(new)
    assert batch(prepared(tmp_path, "--pretrain.min_steps", "1000")) == 16  # said for this workspace: made again
    checkpoint.save({"weight": torch.zeros(1)}, new.layout.weights("original"), {"recipe": repr(new.reference_recipe("original"))})
    assert batch(prepared(tmp_path)) == 16


def test_a_given_original_decides_nothing(tmp_path: Path) -> None:
    here = prepared(tmp_path)
    checkpoint.save({"weight": torch.zeros(1)}, here.layout.weights("original"), {"provenance": "unknown"})
    assert batch(prepared(tmp_path)) == 16
