"""What every measure promises."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest

from lethe.evaluation import registry
from lethe.evaluation.context import Estimates, EvaluationContext
from lethe.evaluation.registry import Measure
from lethe.testing.contexts import LEAK, context
from lethe.testing.tables import drawn

FEWER = {8: 3, 64: 6}  # references in place of as many: six tables take seconds


class MeasureContract:
    """Tests that hold for every measure: subclass it, name the measure, and say what a remembered forget set does to it.

        class TestConfidence(lethe.testing.MeasureContract):
            id = "confidence.forget"
            moves = {"": 1}

    `moves`: part ("" for a measure of one number) -> 1 where its value is higher when the forget set is remembered, -1 where lower.
    The tables are synthetic: 240 retain and 200 images in each other split, with every column that measures can need."""

    id: ClassVar[str] = ""
    moves: ClassVar[Mapping[str, int]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def measure(cls) -> Measure:
        """The measure under contract. Override it, with params, to test several."""
        return next(each for each in registry.registered() if each.id == cls.id)

    @pytest.fixture(scope="class")
    @classmethod
    def moved(cls, measure: Measure) -> Mapping[str, int]:
        """The parts that a remembered forget set moves, and which way."""
        return cls.moves

    @pytest.fixture(scope="class")
    @classmethod
    def forgotten(cls, measure: Measure) -> Estimates:
        """Estimates of a model that has forgotten."""
        return _estimates(measure, context(0.0))

    @pytest.fixture(scope="class")
    @classmethod
    def remembered(cls, measure: Measure) -> Estimates:
        """Estimates of a model that still remembers the forget set."""
        return _estimates(measure, context(LEAK))

    def test_a_remembered_forget_set_moves_it_beyond_its_interval(
        self, measure: Measure, moved: Mapping[str, int], forgotten: Estimates, remembered: Estimates
    ) -> None:
        """In the stated direction, with finite intervals that do not overlap."""
        assert moved
        for part, way in moved.items():
            clean, leaking = forgotten[part], remembered[part]
            assert math.copysign(1, leaking.value - clean.value) == way
            assert not leaking.overlaps(clean), (clean, leaking)
            for estimate in (clean, leaking):
                low, high = estimate.ends()
                assert math.isfinite(estimate.value) and low <= high
                assert estimate.interval == measure.interval or part not in ("", "forget")

    def test_its_parts_are_declared(self, measure: Measure, forgotten: Estimates, remembered: Estimates) -> None:
        """It returns the parts that it declares, and no others."""
        assert set(forgotten) == set(remembered) == set(measure.parts or ("",))

    def test_it_gives_the_same_again(self, measure: Measure, forgotten: Estimates) -> None:
        """Equal tables give equal values and intervals."""
        assert _estimates(measure, context(0.0)) == forgotten

    def test_it_says_what_it_lacks(self, measure: Measure) -> None:
        """Without the references and columns that it needs it returns a sentence that begins with *needs*."""
        alone = EvaluationContext(drawn(1), resample=False)
        result = measure(alone)
        if measure.min_references or measure.needs:
            assert isinstance(result, str) and result.startswith("needs ")
        else:
            assert not isinstance(result, str)

    def test_its_declaration_is_complete(self, measure: Measure) -> None:
        """An id, one line about it, and a target."""
        assert measure.id and measure.about and "\n" not in measure.about
        assert measure in registry.registered() or measure.id in {each.id for each in registry.registered()}
        assert isinstance(measure.target, str) or math.isfinite(measure.target)


def _estimates(measure: Measure, of: EvaluationContext) -> Estimates:
    result = replace(measure, min_references=FEWER.get(measure.min_references, measure.min_references))(of)
    assert not isinstance(result, str), f"{measure.id} gives no number: {result}"
    return result
