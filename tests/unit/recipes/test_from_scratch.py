"""How many optimizer steps a reference takes on few images."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lethe.config import loader
from lethe.recipes.from_scratch import SMALLEST_BATCH, enough_steps, from_scratch, optimizer_steps
from lethe.recipes.recipe import Phase

DEFAULT: dict[str, Any] = {"epochs": 24, "final_epochs": 8, "lr": 0.1, "final_lr": 0.01, "batch_size": 128}


def test_the_default_recipe_on_a_small_folder() -> None:
    assert optimizer_steps(DEFAULT, 600) == 160
    smaller = DEFAULT | {"batch_size": 16, "lr": 0.0125, "final_lr": 0.00125}
    assert enough_steps(DEFAULT, 600, 1200) == smaller and optimizer_steps(smaller, 600) == 1216
    assert enough_steps(DEFAULT, 300, 1200) == smaller | {"epochs": 48, "final_epochs": 16}
    assert enough_steps(DEFAULT, 50_000, 1200) == DEFAULT


@given(st.integers(1, 3000), st.integers(0, 3000), st.sampled_from([2, 16, 48, 128]), st.integers(0, 30), st.integers(0, 9))
def test_steps_are_reached_and_the_noise_of_a_step_is_kept(images: int, least: int, batch: int, epochs: int, final: int) -> None:
    numbers = DEFAULT | {"batch_size": batch, "epochs": epochs, "final_epochs": final}
    changed, before = enough_steps(numbers, images, least), optimizer_steps(numbers, images)
    if before >= least or not before:
        assert changed == numbers
        return
    assert optimizer_steps(changed, images) >= least
    assert math.isclose(changed["lr"] / changed["batch_size"], numbers["lr"] / batch)
    assert min(batch, SMALLEST_BATCH) <= changed["batch_size"] <= batch
    assert changed["epochs"] == epochs or changed["batch_size"] // 2 < SMALLEST_BATCH  # more epochs only where batches can't be smaller


def test_what_the_user_names_is_meant_as_it_is() -> None:
    def batch(*words: str) -> int:
        first = loader.load(["--data.source", "digits", *words]).reference_recipe("retrained", 600)[0]
        assert isinstance(first, Phase)
        return first.batch_size

    assert batch() == 16
    assert batch("--pretrain.epochs", "5") == batch("--pretrain.min_steps", "0") == 128
    assert batch("--pretrain.epochs", "5", "--pretrain.min_steps", "300") == 16
    assert batch("--retrain.epochs", "5") == 16
    config = loader.load([])
    assert config.reference_recipe("original", 50_000) == config.reference_recipe("original")
    numbers = config.pretrain.model_dump(exclude={"checkpoint", "classes", "seeds", "min_steps"})
    assert config.reference_recipe("original") == from_scratch("train", **numbers)
