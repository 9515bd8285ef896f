"""When a retrained model is no reference."""

from dataclasses import replace

import numpy as np
import pytest

from lethe.data.splits import SPLITS
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.reference import TrainedModel, clearly_fit, retain_shortfall, shortfall, trained, unfit
from lethe.testing.tables import drawn

ORIGINAL = TrainedModel(100.0, 600, 84.0, 500)


@pytest.mark.parametrize(
    ("own", "unseen", "words"),
    [
        (100.0, 84.0, ""),
        (96.0, 80.0, ""),
        (94.0, 84.0, "94.0 % of retain right, where the original gets 100.0 % of its training images"),
        (54.6, 30.0, "54.6 % of retain right, where the original gets 100.0 % of its training images"),
        (100.0, 73.9, ""),  # 16 % wrong by 600 images may be 17.5 % by 500, and 10 points more
        (100.0, 72.0, "72.0 % of validation right, where the original gets 84.0 %"),
        (100.0, None, ""),
    ],
)
def test_what_a_retrained_model_may_know_less(own: float, unseen: float | None, words: str) -> None:
    assert shortfall(ORIGINAL, TrainedModel(own, 500, unseen, 500)) == words


def test_training_on_far_fewer_images_may_cost_validation_but_not_retain() -> None:
    assert shortfall(ORIGINAL, TrainedModel(100.0, 100, 60.0, 500)) == ""  # at most 16 x sqrt(6) + 10 percent wrong
    assert shortfall(ORIGINAL, TrainedModel(100.0, 100, 50.0, 500)).startswith("50.0 % of validation")
    assert shortfall(ORIGINAL, TrainedModel(80.0, 100, 84.0, 500)).startswith("80.0 % of retain")


def test_what_may_be_chance_does_not_count() -> None:
    few = TrainedModel(60.0, 20, 50.0, 20)
    assert shortfall(few, TrainedModel(40.0, 20, 30.0, 20)) == ""
    assert shortfall(replace(few, images=2000), TrainedModel(40.0, 2000, 30.0, 20)).startswith("40.0 % of retain")


def test_chance_in_the_error_of_the_original_is_multiplied_as_that_error_is() -> None:
    original = TrainedModel(100.0, 200, 80.0, 50)
    fewer = TrainedModel(100.0, 50, 40.0, 50)  # 60 % wrong, where twice 20 % may be: 20 points more, of which 25.9 are chance
    assert shortfall(original, fewer) == ""
    assert shortfall(original, replace(fewer, unseen=34.0)) == "34.0 % of validation right, where the original gets 80.0 %"  # 26 points
    many = replace(original, unseen_images=5000)
    assert shortfall(many, replace(fewer, unseen_images=5000)).startswith("40.0 % of validation")


@pytest.mark.parametrize(
    ("own", "unseen", "clear"),
    [
        (100.0, 84.0, True),
        (98.5, 82.0, True),
        (96.0, 84.0, False),  # not short by all images, but a sample of 450 could say so of a model that is
        (100.0, 79.0, False),
        (100.0, None, True),
        (90.0, 84.0, False),
    ],
)
def test_a_sample_clears_what_is_far_from_the_limits(own: float, unseen: float | None, clear: bool) -> None:
    original, sampled = TrainedModel(99.5, 500, 84.0, 400), TrainedModel(own, 450, unseen, 400)
    assert clearly_fit(original, sampled) == clear
    assert not shortfall(original, sampled) or not clear
    assert not clearly_fit(original, replace(sampled, own=0.0, images=0))


def test_a_model_at_the_limit_hardly_ever_seems_far_from_it() -> None:
    """Of 20,000 samples of a retrained model that knows 5 points less than its original, one of thirty."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(20_000):
        ours, theirs = 100 * rng.binomial(500, 0.99) / 500, 100 * rng.binomial(450, 0.94) / 450
        passed += clearly_fit(TrainedModel(ours, 500), TrainedModel(theirs, 450))
    assert passed <= 20_000 / 25


def answering(correct: np.ndarray, like: LogitsTable) -> LogitsTable:
    """A table whose model is right exactly where `correct` is."""
    wrong = (like.labels + 1) % like.logits.shape[1]
    return replace(like, logits=10 * np.eye(like.logits.shape[1], dtype=np.float32)[np.where(correct, like.labels, wrong)], columns={})


def test_accuracies_are_those_of_the_training_images_and_of_the_classes_that_are_left() -> None:
    like = drawn(1)
    left = np.isin(like.labels, (0, 1))
    split = np.where((like.split == 0) & ~left, SPLITS.index("forget"), like.split).astype(np.uint8)  # retain holds two classes
    like = replace(like, split=split)
    in_retain, in_forget, in_validation = (like.split == SPLITS.index(name) for name in ("retain", "forget", "validation"))
    original = answering(in_retain | in_forget | in_validation, like)
    right = answering(in_retain | (in_validation & left), like)
    kept, all_, unseen = (int(rows.sum()) for rows in (in_retain, in_retain | in_forget, in_validation & left))
    assert trained("original", original) == TrainedModel(100.0, all_, 100.0, unseen)
    assert trained("retrained", right) == TrainedModel(100.0, kept, 100.0, unseen)
    wrong = answering(in_validation, like)
    assert trained("retrained", right, wrong).own == 50.0
    assert unfit(original, [right]) == unfit(original, []) == ""
    assert unfit(original, [right, wrong]) == "50.0 % of retain right, where the original gets 100.0 % of its training images"


def test_a_search_judges_by_accuracies_alone() -> None:
    sizes = {"retain": 300, "forget": 100}
    original = {"retain": 100.0, "forget": 96.0}  # 99 % of its training images
    assert retain_shortfall(original, {"retain": 95.0}, sizes) == ""
    assert (
        retain_shortfall(original, {"retain": 93.0}, sizes)
        == "93.0 % of retain right, where the original gets 99.0 % of its training images"
    )
