"""Every interval holds its estimate, lies in the range of its measure and is finite: for one image, perfect models, identical models."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lethe.evaluation import significance, uncertainty
from lethe.evaluation.catalogue import all_measures, measure_model, measure_references
from lethe.evaluation.context import Cost, EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.roc import PARTS, PopulationRoc, Roc
from lethe.evaluation.uncertainty import FRACTION, PERCENT, POINTS, Estimate
from lethe.testing.contexts import of_others, with_columns
from lethe.testing.tables import bank, drawn, lower_tiers, of_phi

BOUNDS = {each.part_id(part): each.bounds_of(part) for each in all_measures() for part in each.parts or ("",)}
numbers = st.lists(st.floats(0, 100), min_size=1, max_size=8)


def check(id_: str, estimate: Estimate, bounds: tuple[float, float]) -> None:
    low, high = estimate.ends()
    assert math.isfinite(low) and math.isfinite(high), (id_, estimate)
    assert low <= estimate.value <= high, (id_, estimate)
    assert bounds[0] - 1e-9 <= low and high <= bounds[1] + 1e-9, (id_, estimate)


# --- all measures -----------------------------------------------------------------------------------------------------------


def table(phi: np.ndarray, sizes: tuple[int, ...], name: str, own: int) -> LogitsTable:
    made = with_columns(of_phi(phi, name, sizes), 0.0, own)
    return replace(made, columns={**made.columns, **{k: v[: len(phi)] for k, v in of_others(drawn(1, sizes=sizes), 0.0).items()}})


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        *((kind, images) for images in (1, 2) for kind in ("random", "perfect", "identical", "wrong")),
        ("random", 12),
        *(pytest.param(kind, 12, marks=pytest.mark.slow) for kind in ("perfect", "identical", "wrong")),
    ],
)
def test_every_interval_holds_its_estimate_and_is_possible(images: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lower_tiers(monkeypatch, 3, 6)
    sizes = (images,) * 4
    shared = np.random.default_rng(0).normal(0, 2, 4 * images)
    each = {
        "random": [np.random.default_rng(k).normal(0, 2, 4 * images) for k in range(14)],
        "perfect": [np.full(4 * images, 20.0)] * 14,
        "identical": [shared] * 14,
        "wrong": [np.full(4 * images, -20.0)] * 14,
    }[kind]
    model, original, *others = (table(phi, sizes, f"model {k}", k if kind == "random" else 0) for k, phi in enumerate(each))
    context = EvaluationContext(model, others[:6], original, [model, *others[6:11]], Cost(1.0, 2.0, 3))
    found = measure_model(context)
    assert sum(isinstance(one, Estimate) for one in found.values()) > 20
    for id_, one in [*found.items(), *measure_references(context).items()]:
        if isinstance(one, Estimate):
            check(id_, one, BOUNDS[id_])
    for id_ in ("accuracy.forget", "distance.retain", "tow", "avg_gap.svc", "mia.over"):  # no certainty from so few images
        estimate = found[id_]
        assert isinstance(estimate, Estimate) and np.ptp(estimate.ends()) > 0


def test_references_that_all_agree_have_the_interval_of_the_images() -> None:
    perfect = [of_phi(np.full(840, 20.0), f"retrained {k}") for k in range(8)]
    one = measure_references(EvaluationContext(drawn(1), perfect, resample=False))["accuracy.retain"]
    assert (one.value, one.high, one.models) == (100.0, 100.0, 8) and one.low == pytest.approx(100 * 0.025 ** (1 / 240))


def test_rates_of_a_bank_stay_in_range() -> None:
    """Eight retrained models, most with a rate of 0: Student's t alone reaches below it."""
    found = measure_references(EvaluationContext(drawn(1), bank(8), resample=False))
    for part in PARTS:
        check(part, found[f"rmia.gamma_1.{part}"], FRACTION)


def test_the_95th_percentile_of_klom_moves_beyond_its_interval() -> None:
    klom = replace(next(each for each in all_measures() if each.id == "klom"), min_references=2)
    clean, leaking = (klom(EvaluationContext(drawn(1, leak), bank(24), unlearned=bank(24, leak, 300))) for leak in (0.0, 3.0))
    assert not isinstance(clean, str) and not isinstance(leaking, str)
    assert leaking["forget.p95"].value > clean["forget.p95"].value and not leaking["forget.p95"].overlaps(clean["forget.p95"])


# --- shares -----------------------------------------------------------------------------------------------------------------


def test_an_exact_interval_is_scipys_and_holds_its_share_at_both_ends() -> None:
    for successes, number in ((0, 7), (3, 7), (7, 7), (1, 1), (99, 100)):
        low, high = stats.binomtest(successes, number).proportion_ci(method="exact")
        assert uncertainty.share(successes, number).ends() == (pytest.approx(low), pytest.approx(high))
    for number in range(1, 4001, 7):  # Wilson's intervals of statsmodels leave 1,053 of these shares out by rounding
        assert uncertainty.share(0, number, 100).ends()[0] == 0 and uncertainty.share(number, number, 100).ends()[1] == 100


@pytest.mark.parametrize("number", [1, 20, 100])
def test_an_exact_interval_covers_every_share(number: int) -> None:
    shares = np.concatenate([np.linspace(0.001, 0.999, 200), [0.0, 1.0]])
    low, high = uncertainty.exact_ends(np.arange(number + 1), number)
    held = (low <= shares[:, None]) & (shares[:, None] <= high)
    covered = (stats.binom.pmf(np.arange(number + 1), number, shares[:, None]) * held).sum(axis=1)
    assert covered.min() >= 0.95


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_difference_of_paired_shares_stays_possible(only_first: int, only_second: int, both: int) -> None:
    number = only_first + only_second + both
    if number:
        low, high = uncertainty.paired_ends(only_first, only_second, number)
        assert -1 <= low < high <= 1 and low <= (only_first - only_second) / number <= high


# --- rates and AUCs ---------------------------------------------------------------------------------------------------------

few = st.lists(st.integers(-1000, 1000), min_size=1, max_size=12)


def estimates(roc: Roc) -> dict[str, Estimate]:
    return roc.estimates(EvaluationContext(drawn(1)).bootstrap)


@settings(max_examples=10)
@given(few, few, few)
def test_a_curve_of_any_scores_has_possible_intervals(positive: list[int], negative: list[int], population: list[int]) -> None:
    p, n, z = (np.array(each, np.float64) for each in (positive, negative, population))
    for roc in (Roc(p, n), PopulationRoc(p, n, z, np.ones(len(n)))):
        for part, estimate in estimates(roc).items():
            check(part, estimate, FRACTION)


def test_scores_outside_of_0_to_1_are_compared_as_they_are() -> None:
    """torchmetrics passes them through a sigmoid, which ties large ones: .9401 for two groups that are wholly apart."""
    found = estimates(Roc(np.arange(1000.0, 1100.0), np.arange(900.0, 1000.0)))
    assert found["auc"].value == found["tpr_at_1"].value == 1.0
    assert 0.9 < found["auc"].ends()[0] < 1.0  # and a perfect AUC of so few images is not certain


def test_a_rate_at_a_low_fpr_needs_many_held_out_images() -> None:
    generator = np.random.default_rng(0)
    low, high = Roc(generator.normal(1, 1, 50), generator.normal(0, 1, 50)).rate_ends(0.001)
    assert low == 0 and high > 0.2  # any threshold above the second largest of 50 may be that of 0.1 %
    low, high = Roc(generator.normal(1, 1, 20_000), generator.normal(0, 1, 20_000)).rate_ends(0.01)
    assert low < stats.norm.sf(stats.norm.isf(0.01) - 1) < high and high - low < 0.05


@settings(max_examples=20)
@given(few, few, few, st.data())
def test_a_resampled_population_is_a_smaller_population(a: list[int], b: list[int], z: list[int], data: st.DataObject) -> None:
    p, n, population = (np.array(each, np.float64) for each in (a, b, z))
    drawn_Z = np.array(data.draw(st.lists(st.integers(0, len(z) - 1), min_size=len(z), max_size=len(z))))
    roc = PopulationRoc(p, n, population, np.ones(len(n)))
    found = roc(np.arange(len(p))[None], np.arange(len(n))[None], drawn_Z[None])[:, 0]
    smaller = np.sort(population)[drawn_Z]
    scores = [np.mean(smaller[None] < each[:, None], axis=1) for each in (p, n)]
    assert found == pytest.approx(Roc(*scores).point())


# --- means, gaps, quantiles, seeds ------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(numbers)
def test_means_and_seeds_have_possible_intervals(values: list[float]) -> None:
    check("mean", uncertainty.mean(values, bounds=PERCENT), PERCENT)
    check("seeds", uncertainty.over_seeds(values, PERCENT), PERCENT)
    check("quantile", uncertainty.quantile(values, 0.95, PERCENT), PERCENT)


def test_absolute_gaps_that_are_truly_0_are_held() -> None:
    """The percentiles of absolute gaps never hold 0; here every gap is 0 but for the draw of the images."""
    held = 0
    for seed in range(40):
        values = np.append(
            np.random.default_rng(seed).choice([-100.0, 0.0, 100.0], (3, 80), p=[0.1, 0.8, 0.1]), [[-100.0, 100.0]] * 3, axis=1
        )
        gaps = uncertainty.of_gaps(
            lambda *drawn, v=values: np.stack([v[k][one].mean(-1) for k, one in enumerate(drawn)]),
            lambda each: each.mean(axis=0),
            1 / 3,
            *[80] * 3,
            bounds=PERCENT,
        )
        held += gaps.ends()[0] <= 1e-9
        check("gaps", gaps, PERCENT)
    assert held >= 36


@pytest.mark.parametrize("number", [100, 400])
def test_a_quantiles_interval_is_scipys(number: int) -> None:
    values = np.random.default_rng(0).normal(0, 1, number)
    theirs = stats.quantile_test(values, p=0.9).confidence_interval(0.95)
    found = uncertainty.quantile(values, 0.9)
    assert found.ends() == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert uncertainty.quantile(values[:10], 0.99).low is None  # no order statistic lies above
    assert uncertainty.quantile(values[:10], 0.99, POINTS).high == 100.0


def test_a_p_that_is_not_a_number_is_refused() -> None:
    """statsmodels' Benjamini-Hochberg makes all of them NaN and still rejects."""
    with pytest.raises(ValueError, match="p of second is not a number"):
        significance.holm({"first": 0.01, "second": math.nan})
