"""Intervals and tests against their closed forms."""

import numpy as np
import pytest
from scipy import stats

from lethe.evaluation import uncertainty
from lethe.evaluation.chance import chance_range, differs
from lethe.evaluation.significance import holm, paired
from lethe.evaluation.uncertainty import EXAMPLES, SEEDS, Estimate, Floats, Ints, bootstrap, over_seeds


def test_a_bootstrap_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 2000)
    (found,) = bootstrap(lambda index: values[index].mean(-1)[None], 2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (found.value, found.interval) == (values.mean(), EXAMPLES)
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)
    assert bootstrap(lambda index: values[index].mean(-1)[None], 2000) == [found]
    assert bootstrap(lambda index: values[index].mean(-1)[None], 2000, seed=1) != [found]


@pytest.mark.parametrize("sizes", [[60], [31, 60], [900, 700]])
def test_resamples_are_those_of_scipy(sizes: list[int]) -> None:
    """Drawn once and kept, or batch by batch where they are many."""
    values = [np.random.default_rng(n).random(n) for n in sizes]

    def means(*drawn: Ints) -> Floats:
        return np.stack([each[index].mean(-1) for each, index in zip(values, drawn, strict=True)])

    assert (uncertainty.RESAMPLES * sum(sizes) > uncertainty.KEPT) == (sum(sizes) > 1000)
    theirs = stats.bootstrap(
        [np.arange(n) for n in sizes],
        lambda *drawn, axis: means(*drawn),
        n_resamples=uncertainty.RESAMPLES,
        batch=uncertainty.BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    tails = np.array([1 - uncertainty._expanded(min(sizes)), 1 + uncertainty._expanded(min(sizes))]) / 2
    ends = np.quantile(theirs.bootstrap_distribution, tails, axis=1).T
    assert [estimate.ends() for estimate in bootstrap(means, *sizes)] == [tuple(each) for each in ends.tolist()]


def test_arrays_cut_by_one_index_stay_paired_and_samples_are_drawn_apart() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 300)
    both = bootstrap(lambda i, j: np.stack([(values[i] - values[i]).mean(-1), values[i].mean(-1) - values[j].mean(-1)]), 300, 300)
    assert (both[0].low, both[0].high) == (0.0, 0.0)
    low, high = both[1].ends()
    assert low < -0.1 < 0.1 < high


def test_without_resamples_or_with_one_image_there_is_but_the_number() -> None:
    values = np.array([3.0, 5.0])
    assert bootstrap(lambda index: values[index].mean(-1)[None], 2, resample=False) == [Estimate(4.0)]
    assert bootstrap(lambda index: values[index].mean(-1)[None], 1) == [Estimate(3.0)]


def test_students_t_over_seeds_by_hand() -> None:
    found = over_seeds([1.0, 2.0, 6.0])
    half = 4.302653 * np.sqrt(7.0) / np.sqrt(3)  # t of 2 degrees of freedom; the squared deviations from 3 are 4, 1 and 9
    assert (found.value, found.interval, found.models) == (3.0, SEEDS, 3)
    assert (found.low, found.high) == (pytest.approx(3 - half, rel=1e-6), pytest.approx(3 + half, rel=1e-6))
    assert over_seeds([2.0]) == Estimate(2.0)
    assert over_seeds([2.0, 2.0]) == Estimate(2.0, models=2)  # of whose spread nothing is known
    assert over_seeds([99.0, 99.8], (0.0, 100.0)).ends() == (pytest.approx(99.4 - 12.7062 * 0.4, rel=1e-4), 100.0)


def test_a_paired_test_sees_what_seeds_share() -> None:
    generator = np.random.default_rng(0)
    seeds = generator.normal(80, 5, 8)
    ours, theirs = seeds + generator.normal(0.5, 0.2, 8), seeds
    assert paired(list(ours), list(theirs)) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert paired(list(ours), list(theirs)) < 0.01 < stats.ttest_ind(ours, theirs).pvalue
    assert paired([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert paired([1.0, 2.0], [2.0, 3.0]) == 0.5  # all that is known of the spread is that both have one sign
    assert paired([1.0] * 8, [2.0] * 8) == 2**-7
    assert paired([98.1, 97.3], [97.4, 96.6]) == 0.5  # equal differences but for their last bits
    with pytest.raises(ValueError, match="at least 2 seeds, not 1"):
        paired([1.0], [2.0])


def test_holms_correction_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9}) == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_one_rule_of_chance() -> None:
    """Beside one model both intervals count; beside several, where one more of them is expected."""
    a = Estimate(10.0, 8.0, 13.0)
    assert not differs("accuracy.test", a, Estimate(15.0, 11.0, 90.0))  # 5 <= hypot(3, 4)
    assert differs("accuracy.test", a, Estimate(15.1, 11.1, 90.0))
    assert differs("accuracy.test", Estimate(0.1), Estimate(0.2)) and not differs("accuracy.test", Estimate(0.2), Estimate(0.2))
    bank = Estimate(90.0, 89.0, 91.0, SEEDS, 8)
    assert chance_range(Estimate(92.9), bank) == (87.0, 93.0)  # sqrt(1 + 8) half-widths
    assert chance_range(Estimate(92.9, models=8), bank) == pytest.approx((90 - 2**0.5, 90 + 2**0.5))
    assert differs("kl_to_reference.forget", Estimate(95.0), bank) and not differs("kl_to_reference.forget", Estimate(80.0), bank)
    assert differs("accuracy.test", Estimate(80.0), bank)
    assert differs("epsilon.largest_shown", Estimate(80.0), bank) is None and differs("accuracy.test", None, bank) is None
    near = Estimate(0.95, 0.94, 0.96, models=8)  # of a product that is 1 at the target, smaller values alone are worse
    assert differs("tow", Estimate(0.999), near) is False and differs("tow", Estimate(0.8), near) is True
