"""Several originals: the variance of a mean is split, and its interval has both parts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lethe.evaluation import uncertainty
from lethe.evaluation.replication import ORIGINALS, Replication, Spread, aggregate, mean, spread
from lethe.evaluation.score import MeasureResult, Score
from lethe.evaluation.uncertainty import Estimate

TRAIN, UNLEARN = 4.0, 9.0  # variances


def designs(number: int, originals: int, seeds: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    a = draw.normal(0, math.sqrt(TRAIN), (number, originals, 1))
    return 80.0 + a + draw.normal(0, math.sqrt(UNLEARN), (number, originals, seeds))


def test_both_variances_and_that_of_the_mean_are_those_that_were_drawn() -> None:
    drawn_ = designs(300, 12, 4)
    found = [spread(each.tolist()) for each in drawn_]
    assert np.mean([one.train for one in found]) == pytest.approx(TRAIN, rel=0.1)
    assert np.mean([one.unlearn for one in found]) == pytest.approx(UNLEARN, rel=0.05)
    of_mean = TRAIN / 12 + UNLEARN / (12 * 4)
    assert Spread(TRAIN, UNLEARN).of_mean(12, 4) == pytest.approx(of_mean)
    assert drawn_.mean(axis=(1, 2)).var() == pytest.approx(of_mean, rel=0.2)
    assert np.mean([one.of_mean(12, 4) for one in found]) == pytest.approx(of_mean, rel=0.05)


def test_the_interval_over_originals_covers_and_that_over_seeds_of_one_does_not() -> None:
    covered = [one.low <= 80 <= one.high for each in designs(300, 3, 4) if (one := mean(each.tolist())).low is not None and one.high]
    assert len(covered) == 300 and 0.92 <= np.mean(covered) <= 0.98
    of_one = [uncertainty.over_seeds(each[0].tolist()) for each in designs(300, 3, 8)]
    assert np.mean([one.low <= 80 <= one.high for one in of_one if one.low is not None and one.high is not None]) < 0.8


@settings(max_examples=20)
@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(st.floats(-9, 9), min_size=n, max_size=n), min_size=2, max_size=4)))
def test_it_is_the_table_of_an_analysis_of_variance(values: list[list[float]]) -> None:
    originals, seeds = len(values), len(values[0])
    means = [sum(each) / seeds for each in values]
    whole = sum(means) / originals
    between = seeds * sum((one - whole) ** 2 for one in means) / (originals - 1)
    within = sum((v - one) ** 2 for each, one in zip(values, means, strict=True) for v in each) / (originals * (seeds - 1))
    found = spread(values)
    assert found.unlearn == pytest.approx(within, abs=1e-9)
    assert found.train == pytest.approx(max(0.0, (between - within) / seeds), abs=1e-9)
    if between >= within:
        assert found.of_mean(originals, seeds) == pytest.approx(between / (originals * seeds), abs=1e-9)


def test_one_run_from_each_original_does_not_separate_the_two() -> None:
    assert spread([[1.0], [3.0]]) == Spread(2.0, None) and spread([[1.0], [3.0]]).of_mean(2, 1) == 1.0
    assert mean([[1.0, 3.0]]).low is None  # a single original
    assert mean([[1.0], [3.0]]).interval == ORIGINALS


def scored(forget: float) -> Score:
    lacking = "needs at least 8 retrained models; 1 available"
    results = {"accuracy.forget": MeasureResult(Estimate(forget)), "rmia.gamma_1": MeasureResult(None, lacking)}
    return Score({"forget": forget}, measures=results | {"klom.forget": MeasureResult(Estimate(1.0))})


def test_scores_of_all_runs_are_averaged_and_read_back() -> None:
    values = [[80.0, 82.0], [90.0, 96.0]]
    each = {original: {original + j: scored(value) for j, value in enumerate(values[original])} for original in (0, 1)}
    found = aggregate(each, None, "tables", "split")
    result = found.measures["accuracy.forget"].estimate
    assert result and (result.value, result.interval, result.models, result.high) == (87.0, ORIGINALS, 2, 100.0)  # nothing above 100
    assert found.spreads == {"accuracy.forget": spread(values)}
    assert found.measures["rmia.gamma_1"].missing and "klom.forget" not in found.measures
    assert found.size == "2 originals x 2 seeds"
    assert Replication.from_json(found.to_json()) == found
