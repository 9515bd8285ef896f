"""Logits tables: what they say of the true class, that they belong together, and that a file comes back as it was."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from lethe._util.errors import UserError
from lethe.evaluation import logits_table as table
from lethe.evaluation.logits_table import LogitsTable, class_weights, require_same_images
from lethe.models import checkpoint
from lethe.testing.tables import drawn, of_phi


@given(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=6), st.data())
def test_what_is_said_of_the_true_class_by_hand(logits: list[float], data: st.DataObject) -> None:
    y = data.draw(st.integers(0, len(logits) - 1))
    made = LogitsTable("one", ("a",), np.array([y]), np.array([0], np.uint8), np.array([logits], np.float32))
    p = [math.exp(z - max(logits)) for z in logits]
    true, others = p[y] / sum(p), sum(p[c] for c in range(len(p)) if c != y) / sum(p)
    if true > 1e-30 and others > 1e-30:
        assert made.log_p[0] == pytest.approx(math.log(true), rel=1e-6, abs=1e-12)
        assert made.phi[0] == pytest.approx(math.log(true) - math.log(others), rel=1e-6, abs=1e-6)
    assert made.correct[0] == (logits.index(max(logits)) == y)
    assert made.loss[0] == -made.log_p[0] >= 0


def test_phi_of_the_surest_is_finite() -> None:
    made = of_phi(np.array([2000.0, -2000.0, 40.0, 700.0]), sizes=(1, 1, 1, 1))
    assert made.phi == pytest.approx([2000.0, -2000.0, 40.0, 700.0], rel=1e-6)


def test_rows_stand_in_the_order_of_their_ids_whatever_the_order_given() -> None:
    made = drawn(0)
    order = np.random.default_rng(1).permutation(len(made.ids))
    mixed = LogitsTable("mixed", tuple(made.ids[i] for i in order), made.labels[order], made.split[order], made.logits[order])
    assert mixed.ids == tuple(sorted(made.ids))
    assert mixed.hash == made.hash
    assert (mixed.rows("test") == made.rows("test")).all()
    require_same_images(made, mixed)
    moved = made.logits.copy()
    moved[7, 1] += 1e-6
    assert replace(made, logits=moved).hash != made.hash


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    made = replace(drawn(0), columns={"probe": np.arange(840, dtype=np.uint8) % 2}, about={"model": "abc"})
    path = tmp_path / "logits" / "one.safetensors"
    table.write(made, path)
    back = table.read(path)
    assert (back.name, back.hash, back.about) == (str(path), made.hash, {"model": "abc"})
    assert {name: (array.dtype.name, array.shape) for name, array in load_file(path).items()} == {
        "logits": ("float32", (840, 4)),
        "labels": ("int64", (840,)),
        "split": ("uint8", (840,)),
        "probe": ("uint8", (840,)),
    }
    first = path.read_bytes()
    table.write(back, path)
    assert path.read_bytes() == first


def other(made: LogitsTable, **changes: Any) -> LogitsTable:
    return replace(made, name="other", **changes)


def test_tables_that_do_not_belong_together_are_refused_and_both_are_named() -> None:
    made = drawn(0, name="ours")
    labels, split = made.labels.copy(), made.split.copy()
    labels[3], split[839] = (labels[3] + 1) % 4, 2
    for said, table_ in {
        "2 images occur in only one of them, first image/00000": other(made, ids=("zebra", *made.ids[1:])),
        "4 and 5 classes": other(made, logits=np.pad(made.logits, ((0, 0), (0, 1)))),
        rf"labels differ for 1 images, first image/00003 \({made.labels[3]} and {labels[3]}\)": other(made, labels=labels),
        r"splits differ for 1 images, first image/00839 \(3 and 2\)": other(made, split=split),
    }.items():
        with pytest.raises(UserError, match=rf"^ours and other do not match: {said}$"):
            require_same_images(made, made, table_)
    require_same_images(made, other(made, split=split), split=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_names_the_run(value: float) -> None:
    made = drawn(0, name="hybrid_4")
    logits = made.logits.copy()
    logits[5, 0] = value
    with pytest.raises(UserError, match=r"hybrid_4: NaN or infinite for 1 of 840 images, first image/00005: the model diverged"):
        replace(made, logits=logits)
    with pytest.raises(UserError, match="NaN or infinite for 840 of 840"):
        replace(made, columns={"residual": np.full((840, 3), value)})


def test_parts_that_do_not_fit_are_refused() -> None:
    made = drawn(0, name="run")
    wrong: dict[str, dict[str, Any]] = {
        "840 ids, but labels of 839 images": {"labels": made.labels[:-1]},
        "840 ids, but probe of 3 images": {"columns": {"probe": np.zeros(3)}},
        "logits have 1 dimensions": {"logits": made.logits[:, 0]},
        "labels from 0 to 4, but logits of 4 classes": {"labels": made.labels + (made.labels == 3)},
        "split 4; expected 0 to 3": {"split": np.full(840, 4, np.uint8)},
        "id image/00001 occurs more than once": {"ids": (made.ids[1], *made.ids[1:])},
    }
    for said, changes in wrong.items():
        with pytest.raises(UserError, match=f"^run: {said}"):
            replace(made, **changes)


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(UserError, match=rf"{path} does not exist"):
        table.read(path)
    table.write(drawn(0), path)
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{path} can't be read as safetensors"):
            table.read(path)
    path.write_bytes(whole)
    tensors, about = checkpoint.load(path)
    checkpoint.save({"logits": tensors["logits"]}, path, about)
    with pytest.raises(UserError, match=rf"{path} lacks labels, split: a logits table holds"):
        table.read(path)
    checkpoint.save(tensors, path, {})
    with pytest.raises(UserError, match="lacks ids"):
        table.read(path)
    checkpoint.save(tensors, path, {"ids": "a, b"})
    with pytest.raises(UserError, match="its ids are not a JSON list"):
        table.read(path)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_held_out_images_are_weighted_to_the_classes_of_the_forgotten(forgotten: list[int], there: list[int]) -> None:
    weights = class_weights(np.array(forgotten), np.array(there))
    assert weights.mean() == pytest.approx(1.0)
    if not set(there) & set(forgotten):
        assert (weights == 1).all()
        return
    shared = [label for label in forgotten if label in there]
    for label in set(there):
        weight = sum(w for w, own in zip(weights, there, strict=True) if own == label) / len(there)
        assert weight == pytest.approx(shared.count(label) / len(shared))
