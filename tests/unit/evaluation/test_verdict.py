"""The verdict: each test against a plain loop, the six words on models made for them, and what can't be tested at all."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict import image_test, memory, model_test, usefulness, words
from lethe.evaluation.verdict.image_test import Strata
from lethe.evaluation.verdict.judge import FALSE_ALARMS, PARTS, SHARES, SIGNED, hellinger, judge
from lethe.evaluation.verdict.words import Verdict
from lethe.testing.tables import bank, drawn, of_phi

SIZES = (240, 200, 0, 600)
SMALL = Strata(np.arange(14), np.arange(14) < 6, np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]))
VALUES = np.random.default_rng(3).normal(size=(14, 2)) + np.where(SMALL.forget, 0.8, 0.0)[:, None]


def made(seed: int, leak: float = 0.0, sizes: tuple[int, ...] = SIZES) -> LogitsTable:
    return drawn(seed, leak, f"made {seed}", sizes)


ORIGINAL = made(2, 2.0)
REFERENCES = [made(100 + seed) for seed in range(12)]


# --- tests over images ----------------------------------------------------------------------------------------------------


def studentized(values: np.ndarray, forget: np.ndarray, classes: np.ndarray) -> float:
    """Mean difference within classes by its standard error, image by image."""
    total = forget.sum()
    weights = []
    for image in range(len(values)):
        same = classes == classes[image]
        ours = (same & forget).sum() / total
        weights.append(1 / total if forget[image] else -ours / (same & ~forget).sum())
    variance = 0.0
    for group in (forget, ~forget):
        own = np.abs(np.array(weights)[group])
        mean = (own * values[group]).sum() / own.sum()
        variance += sum((w * (v - mean)) ** 2 for w, v in zip(own, values[group], strict=True)) * len(own) / (len(own) - 1)
    return float((np.array(weights) * values).sum() / np.sqrt(variance))


def test_the_difference_within_classes_equals_a_plain_loop() -> None:
    observed, _ = image_test.permutation_test(VALUES, SMALL)
    expected = [studentized(column, SMALL.forget, SMALL.classes) for column in VALUES.T]
    assert observed == pytest.approx(expected)
    means, covariance = image_test.difference(VALUES, SMALL)
    assert means / np.sqrt(np.diag(covariance)) == pytest.approx(expected)
    both = image_test.difference(VALUES.sum(axis=1, keepdims=True), SMALL)[1][0, 0]
    assert both == pytest.approx(covariance.sum())  # the variance of a sum


def test_its_p_is_the_share_of_all_permutations_within_classes() -> None:
    _, p = image_test.permutation_test(VALUES, SMALL)
    members = [np.flatnonzero(SMALL.classes == one) for one in (0, 1)]
    largest = []
    for first in combinations(members[0], 3):
        for second in combinations(members[1], 3):
            forget = np.isin(np.arange(14), [*first, *second])
            largest.append(max(abs(studentized(column, forget, SMALL.classes)) for column in VALUES.T))
    expected = [np.mean(np.array(largest) >= abs(studentized(column, SMALL.forget, SMALL.classes)) - 1e-9) for column in VALUES.T]
    assert p == pytest.approx(expected, abs=0.03)  # 1,999 of 1,225 drawn with replacement


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_images_that_differ_by_their_class_alone_are_no_difference(seed: int) -> None:
    """Classes of any level and any share in forget: permutations are within classes."""
    draw = np.random.default_rng(seed)
    classes = np.repeat([0, 1, 2], [30, 40, 50])
    forget = draw.permuted(np.repeat([True, False], [40, 80]))
    strata = Strata(np.arange(120), forget, classes)
    values = 100.0 * classes + draw.normal(size=120)
    alone, _ = image_test.permutation_test(strata.centred(values[:, None]), strata, seed)
    without, _ = image_test.permutation_test(strata.centred((values - 100.0 * classes)[:, None]), strata, seed)
    assert alone == pytest.approx(without)


def test_classes_without_held_out_images_are_left_out() -> None:
    strata = Strata.of(np.array([0, 1, 2]), np.array([3, 4, 5, 6]), np.array([7, 7, 9, 7, 7, 8, 7]))
    assert strata.rows.tolist() == [0, 1, 3, 4, 6] and strata.sizes == (2, 3) and strata.number == 1
    assert Strata.of(np.array([0]), np.array([1]), np.array([0, 1])).sizes == (0, 0)


def test_values_without_any_spread_are_no_error() -> None:
    observed, p = image_test.permutation_test(np.zeros((14, 1)), SMALL)
    assert observed[0] == 0 and p[0] == 1
    apart = np.where(SMALL.forget, 1.0, 0.0)[:, None]
    assert image_test.permutation_test(apart, SMALL)[0][0] == image_test.HUGE


# --- tests over models ----------------------------------------------------------------------------------------------------


def test_one_model_is_ranked_among_the_references() -> None:
    values = np.random.default_rng(1).normal(size=(40, 1))
    values[0] = 4.0
    _, p = model_test.permutation_test(values, np.array([1e-9]), [], 1)
    assert p[0] == pytest.approx(1 / 40) == model_test.smallest_p(1, 39)
    values[0] = np.sort(values[1:, 0])[-2]  # all but two or three of 40 are nearer to the others' mean
    sizes = [abs(values[k, 0] - np.delete(values[:, 0], k).mean()) / np.delete(values[:, 0], k).std(ddof=1) for k in range(40)]
    _, p = model_test.permutation_test(values, np.array([1e-9]), [], 1)
    assert p[0] == pytest.approx(np.mean(np.array(sizes) >= sizes[0] - 1e-12))


def test_all_relabellings_where_there_are_few_and_drawn_ones_where_there_are_many() -> None:
    few = model_test.relabellings(2, 4)
    assert len({tuple(row) for row in few.tolist()}) == len(few) == 15 and few[0].tolist() == [True] * 2 + [False] * 4
    many = model_test.relabellings(8, 32)
    assert len(many) == model_test.RELABELLINGS + 1 and (many.sum(axis=1) == 8).all() and many[0, :8].all()


def test_distances_count_one_sided_and_equal_a_plain_loop() -> None:
    draw = np.random.default_rng(2)
    log_p = np.log(draw.dirichlet(np.ones(3), size=(4, 5)))
    matrix = hellinger(log_p)
    p = np.exp(log_p)
    for a in range(4):
        for b in range(4):
            each = [1 - sum(np.sqrt(x * y) for x, y in zip(p[a, n], p[b, n], strict=True)) for n in range(5)]
            assert matrix[a, b] == pytest.approx(np.mean(each), abs=1e-12)
    near = np.full((12, 12), 1.0) - np.eye(12)
    near[0, 1:] = near[1:, 0] = 0.1  # nearer to all others than they are to each other
    none = np.zeros((12, 0))
    assert model_test.permutation_test(none, np.zeros(0), [near], 1)[1][0] == 1
    assert model_test.permutation_test(none, np.zeros(0), [1 / (near + np.eye(12))], 1)[1][0] == pytest.approx(1 / 12)


def test_accuracies_of_two_models_are_compared_as_by_mcnemar() -> None:
    ours, theirs = (np.random.default_rng(seed).random((1, 500)) < share for seed, share in ((1, 0.7), (2, 0.8)))
    b, c = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    size, p = usefulness.paired(ours, theirs)
    assert size == pytest.approx((b - c) / np.sqrt(usefulness.OVERDISPERSION * (b + c + 2)))
    assert p == pytest.approx(2 * stats.norm.sf(abs(size)))
    assert usefulness.paired(ours, ours) == (0.0, 1.0)
    spread = np.random.default_rng(3).random((20, 500)) < np.random.default_rng(4).normal(0.8, 0.1, (20, 1))
    narrow = np.random.default_rng(3).random((20, 500)) < 0.8
    assert usefulness.paired(ours, spread)[1] > usefulness.paired(ours, narrow)[1]  # the bank's own spread counts


# --- memory left ----------------------------------------------------------------------------------------------------------


def test_memory_left_has_fiellers_interval() -> None:
    """Shares that are not rejected: model - share x original has no difference between forget and test."""
    draw = np.random.default_rng(5)
    strata = Strata(np.arange(150), np.arange(150) < 50, np.zeros(150, np.int64))
    original = draw.normal(size=150) + np.where(strata.forget, 2.0, 0.0)
    model = 0.4 * original + draw.normal(size=150)
    estimate = memory.memory_left(model, original, strata)
    assert estimate and estimate.low is not None and estimate.high is not None
    limit = stats.t.ppf(0.975, 49)

    def size(share: float) -> float:
        mean, variance = image_test.difference((model - share * original)[:, None], strata)
        return abs(float(mean[0])) / float(np.sqrt(variance[0, 0]))

    assert size(estimate.low / 100) == pytest.approx(limit) and size(estimate.high / 100) == pytest.approx(limit)
    assert size(estimate.value / 100) == pytest.approx(0, abs=1e-9)
    itself = memory.memory_left(original, original, strata)
    assert itself and (itself.value, *itself.ends()) == pytest.approx((100.0, 100.0, 100.0))
    assert memory.memory_left(model, draw.normal(size=150), strata) is None


def test_what_it_takes_follows_from_the_interval() -> None:
    wide = Estimate(0.0, -66.7, 66.7)
    text = memory.what_it_takes(wide, 100, 8, 1)
    assert "about 401 forget images" in text and "about 7 references" in text  # (1/8 + 1) / 4 - 1/8 = 1 / 6.4
    assert "more seeds of the method" in memory.what_it_takes(wide, 100, 1, 8)
    assert "between -33 and 33 %. It is short enough, but not centred on 0" in memory.what_it_takes(Estimate(10.0, -0.4, 35.0), 100, 1, 8)
    assert "the interval of 0 to 35 %" in memory.what_it_takes(Estimate(10.0, -0.4, 35.0), 100, 1, 8), "without a minus zero"
    assert memory.in_words(Estimate(10.0, -0.4, 35.0)) == "memory left 10 % of the original's (95 % interval 0 to 35)"
    assert "not centred on 0" in memory.what_it_takes(Estimate(20.0, 0.3, 40.0), 100, 1, 8), "it is shown as 0 to 40"
    apart = "has no 0 in it, and by itself would say that"
    assert f"{apart} some memory is left" in memory.what_it_takes(Estimate(20.0, 5.0, 35.0), 100, 1, 8)
    assert f"{apart} the model over-forgets" in memory.what_it_takes(Estimate(-20.0, -45.0, -5.0), 100, 1, 8)
    assert "no memory to measure" in memory.what_it_takes(None, 100, 1, 8)


def test_a_share_of_next_to_nothing_is_no_number() -> None:
    hidden, shown = (
        [Estimate(-80.0, -12364.0, 96.0), Estimate(5.0, -296.0, 306.0)],
        [Estimate(5.0, -295.0, 305.0), Estimate(-800.0, -1500.0, -1.0)],
    )
    for estimate in hidden:
        assert memory.in_words(estimate).startswith("memory left can't be measured: the original itself hardly differs")
        assert "hardly better" in memory.what_it_takes(estimate, 100, 8, 1)
    assert [memory.in_words(estimate) for estimate in shown] == [
        "memory left 5 % of the original's (95 % interval -295 to 305)",
        "memory left -800 % of the original's (95 % interval -1500 to -1)",
    ]


# --- the verdict ----------------------------------------------------------------------------------------------------------


def test_the_words() -> None:
    several = [made(500 + seed) for seed in range(4)]
    assert judge(several, REFERENCES[:8], ORIGINAL).word == "as_retrained"
    assert judge([made(3, 2.0)], REFERENCES[:1], ORIGINAL).word == "remembers"
    assert judge([made(3, -2.0)], REFERENCES[:1], ORIGINAL).word == "over_forgets"
    noise = np.random.default_rng(0).normal(size=several[0].logits.shape).astype(np.float32)
    broken = judge([replace(several[0], logits=noise)], REFERENCES[:1], ORIGINAL)
    assert broken.word == "different" and {part.id for part in broken.parts if part.differs} >= {"accuracy.retain", "accuracy.test"}
    few = judge([made(3, sizes=(240, 12, 0, 600))], [made(4, sizes=(240, 12, 0, 600))], made(2, 2.0, (240, 12, 0, 600)))
    assert few.word == "cannot_tell" and "forget images" in few.advice


def test_retrained_models_pass_and_models_that_remember_do_not() -> None:
    alarms = [judge([made(1000 + k)], [made(2000 + k)], ORIGINAL).word in ("remembers", "over_forgets", "different") for k in range(40)]
    assert sum(alarms) <= 4  # of 40, by 3 % each: more with a probability of 0.7 %
    missed = [judge([made(1000 + k, 1.5)], [made(2000 + k)], ORIGINAL).word != "remembers" for k in range(10)]
    assert not any(missed)


def test_forget_images_that_are_harder_than_test_images_are_no_alarm() -> None:
    """A request need not be a random draw; a regression on the reference alone calls nine of ten such models over-forgetting."""

    def hard(seed: int) -> LogitsTable:
        table = made(seed)
        phi = np.random.default_rng(0).normal(0, 1.5, sum(SIZES)) + np.repeat([3.0, -2.0, 0.0, 0.0], SIZES)
        return of_phi(phi + np.random.default_rng(seed).normal(0, 1, sum(SIZES)), table.name, SIZES)

    words_ = [judge([hard(1000 + k)], [hard(2000 + k)], ORIGINAL).word for k in range(20)]
    assert {*words_} <= {"as_retrained", "cannot_tell"}


@given(st.integers(0, 10_000), st.floats(0.5, 2.0))
@settings(max_examples=8, deadline=None)
def test_a_model_that_is_merely_more_certain_is_judged_alike(seed: int, scale: float) -> None:
    """Of forget images that are harder than test images a difference of scale would look like memory. Scaled logits scale phi here."""
    draw = np.random.default_rng(seed)
    sizes = (50, 40, 0, 120)
    hard = draw.normal(0, 1, sum(sizes)) + np.repeat([2.0, -1.5, 0.0, 0.0], sizes)
    model, reference, original = (of_phi((hard + draw.normal(0, 0.7, sum(sizes))).clip(-4, 4), name, sizes) for name in "mro")
    scaled = judge([replace(model, logits=np.float32(scale) * model.logits)], [reference], original)
    for one, other in zip(scaled.parts, judge([model], [reference], original).parts, strict=True):
        assert (one.size, one.p) == pytest.approx((other.size, other.p), rel=1e-3)


def test_wrong_labels_are_remembered_or_not() -> None:
    """Retrained models get such images wrong and test images right, which alone tells forget from test; it must not explain memory away."""
    sizes = (200, 24, 0, 60)

    def labelled(seed: int, forget: float) -> LogitsTable:
        draw = np.random.default_rng(seed)
        return of_phi(draw.normal(np.repeat([6.0, forget, 0.0, 5.0], sizes), np.repeat([1.0, 1.0, 1.0, 2.0], sizes)), f"made {seed}", sizes)

    original = labelled(1, 4.0)
    found = judge([labelled(2, 4.0)], [labelled(3, -6.0)], original)
    assert found.word == "remembers" and found.memory_left and found.memory_left.value == pytest.approx(100, abs=10)
    assert judge([labelled(4, -1.0)], [labelled(3, -6.0)], original).word == "remembers"
    assert judge([labelled(5, -9.5)], [labelled(3, -6.0)], original).word == "over_forgets"
    retrained = [judge([labelled(10 + k, -6.0)], [labelled(100 + k, -6.0)], original).word for k in range(40)]
    assert sum(word in ("remembers", "over_forgets") for word in retrained) <= 4
    several = judge([labelled(200 + k, 4.0) for k in range(8)], [labelled(300 + k, -6.0) for k in range(8)], original)
    assert several.word == "remembers"


def test_many_models_are_relabelled_together() -> None:
    references = bank(50)
    fine = judge([drawn(900)], references, drawn(2, 2.0))
    assert fine.word in ("as_retrained", "cannot_tell") and {"distance.forget", "distance.test"} <= {part.id for part in fine.parts}
    assert judge([drawn(901, 2.0)], references, drawn(2, 2.0)).word == "remembers"
    assert judge(bank(8, first=700), references[:8], drawn(2, 2.0)).word == "as_retrained"
    assert judge(bank(8, -1.0, first=700), references[:8], drawn(2, 2.0)).word == "over_forgets"


def test_the_order_of_references_and_seeds_is_no_matter() -> None:
    models = [made(3, 1.0), made(4, 1.0)]
    one = judge(models, REFERENCES[:3], ORIGINAL)
    assert judge(models[::-1], REFERENCES[2::-1], ORIGINAL) == one


def test_what_cannot_be_tested_is_its_own_case() -> None:
    assert judge([made(1)], []).word == "cannot_tell"
    same = judge([REFERENCES[0]], REFERENCES[:2], ORIGINAL)
    assert same.word == "cannot_tell" and "made 100" in same.because
    perfect = [of_phi(np.full(sum(SIZES), 50.0) + seed, "perfect", SIZES) for seed in range(3)]
    nothing = judge([perfect[0]], [perfect[1]], perfect[2])
    assert nothing.word == "cannot_tell" and "no memory to measure" in nothing.advice
    single = (240, 1, 0, 600)
    one = judge([made(3, 5.0, single)], [made(4, 0.0, single)], made(2, 5.0, single))
    assert one.word == "cannot_tell" and "at least 2 forget images" in one.advice
    unknown = judge([made(3)], REFERENCES[:1])
    assert unknown.word == "cannot_tell" and "Without the logits of the original" in unknown.advice
    alone = replace(made(3), split=np.full(sum(SIZES), 1, np.uint8))
    assert judge([alone], [replace(each, split=alone.split) for each in REFERENCES[:1]]).word == "cannot_tell"


def test_every_part_is_declared() -> None:
    few = judge([made(3)], REFERENCES[:1], ORIGINAL)
    many = judge([drawn(900)], bank(50), drawn(2, 2.0))
    assert {part.id for part in (*few.parts, *many.parts)} | {*SIGNED} == {*PARTS}
    assert sum(SHARES.values()) == pytest.approx(1) and {*SHARES} < {*PARTS} and FALSE_ALARMS < 0.05


def test_a_verdict_comes_back_from_its_json() -> None:
    for verdict in (judge([made(3, 1.0)], REFERENCES[:2], ORIGINAL), judge([made(1)], [])):
        stored = json.loads(json.dumps(verdict.to_json()))
        assert Verdict.from_json(verdict.word, stored) == verdict
    with pytest.raises(ValueError, match="verdict 'fine'; expected remembers, "):
        Verdict.from_json("fine", {})


@pytest.mark.parametrize("word", words.WORDS)
def test_every_word_is_said_in_whole_sentences(word: str) -> None:
    verdict = Verdict(word, "some reason")
    assert verdict.head and verdict.meaning.startswith(words.WORDS[word][1]) and verdict.meaning.endswith("Some reason.")


def test_a_request_drawn_at_random_is_judged_more_sharply() -> None:
    """With one reference, what it says of an image is taken out; models that never saw the images still pass."""
    pairs = [([made(1000 + k, 0.35)], [made(2000 + k)]) for k in range(12)]
    sharp, plain = (sum(judge(*pair, ORIGINAL, at_random).word == "remembers" for pair in pairs) for at_random in (True, False))
    assert sharp > plain
    alarms = [judge([made(1000 + k)], [made(2000 + k)], ORIGINAL, True).word for k in range(20)]
    assert sum(word in ("remembers", "over_forgets", "different") for word in alarms) <= 2
