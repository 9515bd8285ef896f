"""Paired tests of several seeds, and their correction, against a second way to compute them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from lethe.data.splits import SPLITS
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.score import MeasureResult, Score
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import ResultSet, compare_neighbours

# --- the arithmetic -----------------------------------------------------------------------------------------------------

ACCURACY = st.floats(0, 100, allow_subnormal=False).map(lambda value: round(value, 2))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict[int, dict[str, float]]]:
    """Some rows of the six, each by some seeds."""
    return {
        name: {seed: {split: draw(ACCURACY) for split in SPLITS} for seed in draw(st.sets(st.integers(0, 4), min_size=1))}
        for name in sorted(draw(st.sets(st.sampled_from([f"model_{n}" for n in range(1, 7)]), min_size=1, max_size=4)))
    }


@given(tables())
def test_paired_tests_and_their_correction_against_a_second_way(by_seed: dict[str, dict[int, dict[str, float]]]) -> None:
    """p from the incomplete beta function; Holm's correction as the closed test of all intersections by Bonferroni."""
    rows = {name: {split: float(np.mean([one[split] for one in each.values()])) for split in SPLITS} for name, each in by_seed.items()}
    results = ResultSet(
        "", "", "", dict.fromkeys(SPLITS, 100), rows, by_seed={name: each for name, each in by_seed.items() if len(each) > 1}
    )
    found = compare_neighbours(results, [f"model_{n}" for n in range(1, 7)])
    pairs = [(a, b) for a, b in zip(by_seed, [*by_seed][1:], strict=False) if len({*by_seed[a]} & {*by_seed[b]}) > 1]
    assert [(one.first, one.second, one.split) for one in found] == [(*pair, split) for pair in pairs for split in ("forget", "test")]
    for one in found:
        common = sorted({*by_seed[one.first]} & {*by_seed[one.second]})
        apart = np.array([by_seed[one.first][seed][one.split] - by_seed[one.second][seed][one.split] for seed in common])
        assert one.seeds == len(common) and one.points == pytest.approx(apart.mean(), abs=1e-9)
        deviation = apart.std(ddof=1)
        if deviation < 1e-9:
            continue  # equal to rounding: t is 0/0 or infinite
        n, t = len(apart), apart.mean() / (deviation / np.sqrt(len(apart)))
        assert one.p == pytest.approx(special.betainc((n - 1) / 2, 0.5, (n - 1) / (n - 1 + t * t)), abs=1e-7)
        crosses = abs(one.points) < one.half_width
        assert crosses == (one.p > 0.05) or one.p == pytest.approx(0.05, abs=1e-6)
    for i, one in enumerate(found):
        others = [other.p for j, other in enumerate(found) if j != i]
        families = ([one.p, *some] for size in range(len(others) + 1) for some in combinations(others, size))
        assert one.adjusted == pytest.approx(max(min(1.0, len(family) * min(family)) for family in families))
        assert one.more_than_noise == (one.adjusted < 0.05)


@given(st.lists(ACCURACY, min_size=2, max_size=6), st.lists(ACCURACY, min_size=6, max_size=6))
def test_distances_are_paired_by_seed(values: list[float], theirs: list[float]) -> None:
    """What a seed and its own retrained model share does not widen the interval of their distance."""
    measures = {"accuracy.forget": MeasureResult(Estimate(0.0)), "rmia": MeasureResult(None, "needs more")}
    one = Score({}, {"forget": 1.0}, measures=measures)
    each = {k: replace(one, accuracy={"forget": value}) for k, value in enumerate(values)}
    found = seeds.aggregate(each, {k: {"forget": theirs[k]} for k in each})
    apart = np.array(values) - theirs[: len(values)]
    # at most as far as a difference of two percentages can be
    half = min(stats.sem(apart) * stats.t.ppf(0.975, len(apart) - 1), 100 + abs(apart.mean()))
    assert found.distance["forget"].value == pytest.approx(apart.mean(), abs=1e-5)
    if np.ptp(apart) > 1e-6:
        assert seeds.half_width(found.distance["forget"]) == pytest.approx(half, abs=1e-4)
    else:  # rounded, they are all equal: nothing is known of their spread
        assert seeds.half_width(found.distance["forget"]) in (None, pytest.approx(half, abs=1e-4))
    assert found.measures["rmia"].to_json() == {"missing": "needs more"}
    shifted = {k: {"forget": theirs[k] + 5} for k in each}
    moved = seeds.aggregate({k: replace(one, accuracy={"forget": v + 5}) for k, v in enumerate(values)}, shifted)
    assert moved.distance["forget"].value == pytest.approx(apart.mean(), abs=1e-5)
    assert "distance" not in seeds.aggregate(each, {}).to_json()
