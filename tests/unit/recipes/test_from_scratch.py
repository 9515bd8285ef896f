"""How references are trained: the keys of pretrain, a function of one's own, and how many optimizer steps few images get."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe._util.errors import UserError
from lethe.config import loader
from lethe.recipes.from_scratch import SMALLEST_BATCH, enough_steps, from_scratch, optimizer_steps
from lethe.recipes.losses import BalancedCrossEntropy
from lethe.recipes.optimizers import AdamW
from lethe.recipes.recipe import Augment, Phase, Term, parse
from lethe.recipes.schedules import Cosine, Drops, WarmUp

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
    numbers = config.pretrain.model_dump(exclude={"checkpoint", "classes", "init", "recipe", "seeds", "min_steps"})
    assert config.reference_recipe("original") == from_scratch("train", **numbers)


def test_what_the_keys_of_pretrain_change() -> None:
    words = ["optimizer", "adamw", "lr", "0.001", "final_lr", "0.0001", "lr_schedule", "step", "warmup", "0.1", "label_smoothing", "0.1"]
    words += ["class_weights", "balanced", "augment", "resized_crop0.5,flip"]
    config = loader.load([word if number % 2 else f"--pretrain.{word}" for number, word in enumerate(words)])
    first, second = config.reference_recipe("retrained", 60)
    assert isinstance(first, Phase) and isinstance(second, Phase)
    assert first.optimizer == AdamW(0.0005) and second.optimizer is None
    assert first.lr == WarmUp(0.1, Drops(0.001)) and first.lr_steps == "batch" and first.batch_size == 128
    assert first.terms == second.terms == (Term("retain", BalancedCrossEntropy("retain", 0.1)),)
    assert (first.augment, second.augment) == (Augment(flip=True, resized=0.5), Augment(flip=True))
    assert parse(repr((first, second))) == (first, second)
    plain = loader.load(["--pretrain.augment", "[]"]).reference_recipe("original")[0]
    assert isinstance(plain, Phase) and plain.augment is None
    assert "label_smoothing" not in repr(plain), "a recipe of before keeps its repr"


def test_adam_has_its_rates_divided_by_the_square_root() -> None:
    changed = enough_steps(DEFAULT | {"optimizer": "adam", "lr": 0.004}, 600, 1200)
    assert changed["batch_size"] == 16 and math.isclose(changed["lr"], 0.004 / math.sqrt(8))


def test_fine_tuning_that_is_described_is_not_lengthened() -> None:
    first = loader.load(["--pretrain.init", "model.pth", "--pretrain.epochs", "3"]).reference_recipe("original", 60)[0]
    assert isinstance(first, Phase) and (first.epochs, first.batch_size) == (3, 128)


def test_a_start_alone_does_not_say_how_a_model_was_trained() -> None:
    """With it and nothing else 32 epochs of few images were too few steps to be a reference of anything."""
    first = loader.load(["--pretrain.init", "model.pth"]).reference_recipe("original", 60)[0]
    assert isinstance(first, Phase) and first.batch_size == 16 and first.epochs > 24


OWN = """
import lethe
from lethe.recipes.losses import CrossEntropy

def train(stream, *, epochs, lr, patience=3):
    terms = (lethe.Term(stream, CrossEntropy(class_weights=(1.0, 2.0))),)
    return (lethe.Phase("own", epochs, terms, 8, lethe.Cosine(lr), optimizer=lethe.SGD(0.9, 0.0)),)

def nothing(): return ()
def other(stream): return (lethe.Phase("own", 1, (lethe.Term("forget"),), 8, optimizer=lethe.SGD(0.9, 0.0)),)
def unknown(stream, depth): return ()
def fails(stream): raise KeyError("a key")
def number(stream): return 3
def short(stream): return (lethe.Phase("own", 0, (lethe.Term(stream),), 8),)
value = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return module


def test_a_recipe_of_ones_own(own: str) -> None:
    config = loader.load(["--pretrain.recipe", f"{own}:train", "--pretrain.epochs", "5", "--retrain.epochs", "7"])
    (original,), (retrained,) = (config.reference_recipe(kind, 40) for kind in ("original", "retrained"))
    assert isinstance(original, Phase) and isinstance(retrained, Phase)
    assert (original.epochs, original.lr, original.terms[0].stream) == (5, Cosine(0.1), "train")
    assert (retrained.epochs, retrained.lr, retrained.terms[0].stream) == (7, Cosine(0.1), "retain")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("nothing", "it takes no argument; the first is the stream"),
        ("other", "it trains on forget, called with 'train'; its terms are lethe.Term(stream)"),
        ("unknown", "its argument depth has no default and is no key of pretrain"),
        ("fails", "KeyError: 'a key'"),
        ("number", "it returned a int; it returns a tuple of lethe.Phase"),
        ("short", "its recipe has no epoch"),
        ("value", "a int, not a function"),
    ],
)
def test_a_recipe_that_is_none_is_one_line(function: str, says: str, own: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"pretrain.recipe is {own}:{function}: {says}")) as caught:
        loader.load(["--pretrain.recipe", f"{own}:{function}"]).reference_recipe("original")
    assert "\n" not in str(caught.value)
