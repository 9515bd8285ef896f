"""Other requests: which images they forget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe._util.errors import UserError
from lethe.data import shadow_splits
from lethe.data.images import Images
from lethe.data.splits import SPLITS, Splits


def drawn(forget: int, validation: int, seed: int, classes: int = 1) -> tuple[Splits, Images]:
    order = np.random.default_rng(seed).permutation(40)
    cuts = np.split(order, [10, 10 + forget, 10 + forget + validation])
    names = tuple(f"image/{i:02d}" for i in range(40))
    images = Images(np.zeros((40, 3, 8, 8), np.uint8), np.arange(40) % classes, names, ("a", "b", "c")[:classes], 0)
    return dict(zip(SPLITS, cuts, strict=True)), images


@given(forget=st.integers(1, 12), validation=st.integers(1, 12), seed=st.integers(0, 99))
def test_as_many_validation_images_stand_in_forgets_place(forget: int, validation: int, seed: int) -> None:
    mine, images = drawn(forget, validation, seed)
    if validation < forget:
        with pytest.raises(UserError, match=f"as forget images, {forget}; there are {validation}"):
            shadow_splits.swapped(mine, images)
        return
    other = shadow_splits.swapped(mine, images)
    assert set(other["forget"]) <= set(mine["validation"]) and len(other["forget"]) == forget
    assert set(other["validation"]) == {*mine["validation"], *mine["forget"]} - {*other["forget"]}
    assert all((other[name] == mine[name]).all() for name in ("retain", "test"))
    again = shadow_splits.swapped({name: rows[::-1] for name, rows in mine.items()}, images)
    assert (again["forget"] == other["forget"]).all()


@given(forget=st.integers(1, 10), seed=st.integers(0, 99), pairs=st.integers(1, 4))
def test_halves_come_in_pairs(forget: int, seed: int, pairs: int) -> None:
    mine, images = drawn(forget, 12, seed)
    pool = {*mine["forget"], *shadow_splits.swapped(mine, images)["forget"]}
    forgotten = np.zeros(40, int)
    for number in range(2 * pairs):
        first, second = shadow_splits.halved(mine, images, number)
        assert len(first) == len(second) == forget and {*first, *second} == pool
        forgotten[first] += 1
    assert {*forgotten[[*pool]]} == {pairs}


def test_a_request_that_leaves_classes_out_is_swapped_for_images_of_its_own() -> None:
    mine, images = drawn(12, 12, 3, classes=3)
    of_one = np.flatnonzero(images.labels[mine["forget"]] == 1)[:2]
    mine = {**mine, "forget": mine["forget"][of_one]}
    assert {*images.labels[shadow_splits.swapped(mine, images)["forget"]]} == {1}
    few = {**mine, "validation": mine["validation"][images.labels[mine["validation"]] != 1]}
    with pytest.raises(UserError, match="of the forgotten classes as forget images, 2; there are 0"):
        shadow_splits.swapped(few, images)
