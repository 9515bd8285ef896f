"""The other side of the SWAP test: which images it forgets, what it is trained on, and what a real run makes of it."""

import json

import numpy as np
import pytest
import torch
from conftest import Project
from hypothesis import given
from hypothesis import strategies as st
from test_bank import prepared

from unlearning import checkpoint, engine, results, scratch, splits
from unlearning.errors import BadInput
from unlearning.sources import Images


@given(forget=st.integers(1, 12), validation=st.integers(1, 12), seed=st.integers(0, 99))
def test_as_many_validation_images_stand_in_forgets_place(forget: int, validation: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(40)
    cuts = np.split(order, [10, 10 + forget, 10 + forget + validation])
    mine = dict(zip(splits.SPLITS, cuts, strict=True))
    images = Images(np.zeros((40, 3, 8, 8), np.uint8), np.zeros(40, np.int64), tuple(f"image/{i:02d}" for i in range(40)), ("a",), 0)
    if validation < forget:
        with pytest.raises(BadInput, match=f"forget images, {forget}; there are {validation}"):
            splits.swapped(mine, images)
        return
    other = splits.swapped(mine, images)
    assert set(other["forget"]) <= set(mine["validation"]) and len(other["forget"]) == forget
    assert set(other["validation"]) == {*mine["validation"], *mine["forget"]} - {*other["forget"]}
    assert all((other[name] == mine[name]).all() for name in ("retain", "test"))
    again = splits.swapped({name: rows[::-1] for name, rows in mine.items()}, images)
    assert (again["forget"] == other["forget"]).all()


def test_a_real_run_has_the_second_side(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.ran("unlearn", "--method", "model_3")
    asked = ("--method", "original,model_3", "--evaluate.swap", "true")
    done = project.ran("evaluate", *asked)
    assert "original, swapped: training on retain" in done.stderr
    files, rows = project.files(), project.rows()
    found = {name: json.loads(files[f"scores/{name}.json"])["measures"]["swap.advantage"] for name in ("original", "model_3")}
    assert all(0 <= got["low"] <= got["value"] <= got["high"] <= 1 for got in found.values())
    again = project.ran("evaluate", *asked)
    assert "training" not in again.stderr and "into a logits table" not in again.stderr
    now = project.files()
    assert all(now[name] == text for name, text in files.items() if name.startswith(("scores", "logits", "swapped")))
    assert len(project.rows()) == len(rows)
    # by hand: the same training on a list of images that holds F' in forget's place, then the method from there
    here = prepared(project, monkeypatch)
    mine = splits.swapped(here.splits, here.images)
    index = {name: torch.from_numpy(np.sort(images)) for name, images in {**here.splits, **mine}.items()}
    index["train"] = torch.from_numpy(np.sort([*here.splits["retain"], *mine["forget"]]))
    network = here.network(0)
    data = type(here.data)(**(vars(here.data) | {"splits": here.data.splits | {"train": index["train"]}}))
    list(engine.run(scratch.recipe(here.config, "original"), network, data, seed=0))
    tensors, _ = checkpoint.load(project.root / "swapped" / "original.safetensors")
    assert all(torch.allclose(value, network.state_dict()[name], atol=1e-4) for name, value in tensors.items())
    table = results.swapped(here, results.logits(here, "model_3"))
    assert table is not None and table.about["kind"] == "model_3"
    assert {table.ids[row] for row in table.rows("forget")} == {here.images.ids[i] for i in mine["forget"]}
    # of another first model it is not taken
    tensors, known = checkpoint.load(project.root / "models" / "model_3.safetensors")
    name, value = next((name, value) for name, value in tensors.items() if value.is_floating_point())
    checkpoint.save(tensors | {name: value + 1e-3}, project.root / "models" / "model_3.safetensors", known)
    assert results.swapped(here, results.logits(here, "model_3")) is None
