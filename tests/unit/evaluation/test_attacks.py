"""Each attack against a second way to compute it: by brute force on a few images, and in closed form on Gaussians."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gumbel_r, norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lethe._util.errors import InsufficientData
from lethe.evaluation import attacks
from lethe.evaluation import model_distributions as distributions
from lethe.evaluation import representations as features
from lethe.evaluation.attacks import Floats
from lethe.evaluation.roc import RATES, Roc

M1, M2, S = 1.6, 0.7, 1.3
D = (M1 - M2) / S
AUC = norm.cdf(D / math.sqrt(2))  # of phi ~ N(M1, S) against N(M2, S)
few = st.lists(st.integers(0, 6), min_size=2, max_size=12)


def gaussians(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    return generator.normal(M1, S, n), generator.normal(M2, S, n)


def log_p(phi: Floats) -> Floats:
    return -np.logaddexp(0.0, -phi)


def auc(positives: Floats, negatives: Floats) -> float:
    roc = Roc(positives, negatives)
    return float(roc(*map(np.arange, roc.sizes))[0])


# --- one score, two groups ----------------------------------------------------------------------------------------------


@given(few, few, st.data())
def test_the_curve_is_scikit_learns_also_of_resamples_and_of_weights(positive: list[int], negative: list[int], data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(1, 5), min_size=len(negative), max_size=len(negative))), np.float64)
    roc = Roc(np.array(positive, np.float64), np.array(negative, np.float64), weights)
    drawn = [np.array([data.draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)) for _ in range(2)]) for n in roc.sizes]
    found = roc(*drawn)
    assert found.shape == (1 + len(RATES), 2)
    for resample in range(2):
        p, n = (np.array(values)[index[resample]] for values, index in zip((positive, negative), drawn, strict=True))
        member, score, weight = (
            np.repeat([1, 0], roc.sizes),
            np.concatenate([p, n]),
            np.append(np.ones(len(p)), weights[drawn[1][resample]]),
        )
        assert found[0, resample] == pytest.approx(roc_auc_score(member, score, sample_weight=weight))
        rates, powers, _ = roc_curve(member, score, sample_weight=weight, drop_intermediate=False)
        for rate, power in zip(RATES, found[1:, resample], strict=True):
            assert power == pytest.approx(powers[rates <= rate + 1e-9].max())


def test_auc_is_the_chance_that_the_positive_is_higher_ties_half() -> None:
    positives, negatives = np.array([3.0, 1.0, 1.0, 0.0]), np.array([2.0, 1.0, 0.0])
    pairs = [(p > n) + 0.5 * (p == n) for p, n in product(positives, negatives)]
    assert auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


def test_on_gaussians_the_auc_is_the_normal_integral() -> None:
    assert auc(*gaussians(40_000)) == pytest.approx(AUC, abs=0.004)
    roc = Roc(*gaussians(40_000))
    power = roc(*map(np.arange, roc.sizes))[1]
    assert power == pytest.approx(norm.sf(norm.isf(0.01) - D), abs=0.01)


# --- attacks by loss and by confidence ------------------------------------------------------------------------------------


def test_by_loss_is_as_accurate_as_the_best_threshold() -> None:
    low, high = gaussians(3000)
    right, asked = attacks.by_loss(-low, -high)
    assert asked.sum() == 10 * 600
    assert right.sum() / asked.sum() == pytest.approx(norm.cdf(D / 2), abs=0.02)
    right, asked = attacks.by_loss(*np.random.default_rng(3).normal(0, 1, (2, 3000)))
    assert right.sum() / asked.sum() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(InsufficientData, match="at least 10 forget and 10 held-out images; 9 and 40 available"):
        attacks.by_loss(np.zeros(9), np.zeros(40))


def test_equally_many_of_both_are_drawn_and_weights_are_kept() -> None:
    forget, held_out = attacks.equal_sized(30, np.ones(50))
    assert len(set(forget)) == len(set(held_out)) == 30
    assert [len(part) for part in attacks.equal_sized(50, np.ones(30))] == [30, 30]
    _, drawn = attacks.equal_sized(5000, np.repeat([0.5, 1.5], 2000))
    assert np.mean(drawn < 2000) == pytest.approx(0.25, abs=0.03)


def test_the_kernel_is_scikit_learns_to_the_bit() -> None:
    x, y = np.random.default_rng(0).random(40), np.random.default_rng(1).random(30)
    assert (attacks._rbf(x, y) == rbf_kernel(x[:, None], y[:, None], gamma=1.0)).all()


def test_by_svc_is_scikit_learns_own_decision() -> None:
    member, other = (1 / (1 + np.exp(-phi)) for phi in gaussians(300))
    asked = np.linspace(0, 1, 1201)
    svc = SVC(C=3, gamma="auto").fit(np.concatenate([member, other])[:, None], np.repeat([1, 0], 300))
    decided = np.abs(svc.decision_function(asked[:, None])) > 1e-2
    assert (attacks.by_svc(member, other, asked) == svc.predict(asked[:, None]))[decided].all()
    assert decided.mean() > 0.9


def test_by_svc_keeps_few_kernel_rows_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    member, other = (1 / (1 + np.exp(-phi)) for phi in gaussians(1500))  # a kernel of 36 MB
    best = 1 / (1 + np.exp(-(M1 + M2) / 2))  # where the densities cross: above it a member is likelier
    asked = np.linspace(0, 1, 1201)
    few = attacks.by_svc(member, other, asked)
    monkeypatch.setattr(attacks, "KERNEL_ROWS", 400)
    assert (few == attacks.by_svc(member, other, asked)).all()
    assert (few == (asked > best)).mean() > 0.85


# --- attacks with references ----------------------------------------------------------------------------------------------


def test_rmia_by_hand() -> None:
    generator = np.random.default_rng(0)
    ours, references = log_p(generator.normal(1, 2, 30)), log_p(generator.normal(1, 2, (3, 30)))
    population = np.array([3, 8, 9, 20])
    for gamma in (1.0, 2.0):
        found = attacks.rmia(ours, references, population, gamma)
        for x in range(30):
            ratios = []
            for at in (x, *population):
                seen = 1.3 * np.mean([math.exp(reference[at]) for reference in references]) + 0.7
                ratios.append(math.exp(ours[at]) / (seen / 2))
            assert found[x] == np.mean([ratios[0] / z > gamma for z in ratios[1:]])


def test_rmia_on_gaussians() -> None:
    positives, negatives = gaussians(20_000)
    unseen = np.full((1, 60_000), log_p(np.array([M2]))[0])  # equally hard images: the ratio orders them as phi does
    population = np.random.default_rng(5).normal(M2, S, 20_000)
    scores = attacks.rmia(log_p(np.concatenate([positives, negatives, population])), unseen, np.arange(40_000, 60_000), 1.0)
    assert auc(scores[:20_000], scores[20_000:40_000]) == pytest.approx(AUC, abs=0.01)


def test_iam_by_hand() -> None:
    generator = np.random.default_rng(0)
    ours, original, references = (log_p(generator.normal(mean, 1, shape)) for mean, shape in ((1, 5), (4, 5), (0, (3, 5))))

    def signal(log_p: float) -> float:
        low, high = -math.log(0.01 - math.log(1e-5)), -math.log(0.01 - math.log(1e-5 + 1))
        return (-math.log(0.01 - math.log(1e-5 + math.exp(log_p))) - low) / (high - low)

    found = attacks.iam(ours, references, original)
    a = [j / 99 for j in range(100)]
    for x in range(5):
        weighed = 0.0
        for j in range(99):
            between = [[signal(r[n]) + a[j] * (signal(original[n]) - signal(r[n])) for n in range(5)] for r in references]
            scale = math.sqrt(6) / math.pi * float(np.std(between))
            centre = float(np.mean([row[x] for row in between])) - 0.5772156649 * scale
            weighed += a[j + 1] * float(gumbel_r.cdf(signal(ours[x]), centre, scale))
        assert found[x] == pytest.approx(1 - weighed / sum(a[1:]), rel=1e-6)
    assert attacks.iam(original, references, original).mean() < attacks.iam(ours, references, original).mean()
    assert attacks.iam(ours, references, original).mean() < attacks.iam(references[0], references, original).mean()


# --- attacks with several models of each kind ---------------------------------------------------------------------------


def split_ulira(forgotten: Floats, unseen: Floats) -> tuple[Floats, Floats]:
    phi = np.concatenate([forgotten, unseen])
    mask = np.repeat([True, False], [len(forgotten), len(unseen)])[:, None] & np.ones(phi.shape, bool)
    positive, negative = (pairs.ratios for pairs in attacks.ulira(phi, mask, ~mask))
    return positive, negative


def test_ulira_on_gaussians() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 3, 800)  # every image by its own mean: no single threshold would do
    positive, negative = split_ulira(*(generator.normal(hard + mean, S, (24, 800)) for mean in (M1, M2)))
    assert auc(positive, negative) == pytest.approx(AUC, abs=0.03)
    assert (np.mean(positive > 0) + np.mean(negative <= 0)) / 2 == pytest.approx(norm.cdf(D / 2), abs=0.03)


@pytest.mark.parametrize("models", [3, 6, 20])
def test_ulira_sees_nothing_between_two_halves_of_a_bank(models: int) -> None:
    halves = np.random.default_rng(models).normal(0, 1, (2, models, 2000))
    assert auc(*split_ulira(*halves)) == pytest.approx(0.5, abs=0.012)


def test_ulira_by_hand() -> None:
    generator = np.random.default_rng(0)
    phi = generator.normal(0, 1, (7, 4))
    forgotten = np.array([1, 1, 1, 0, 0, 0, 0], bool)[:, None] & np.ones((7, 4), bool)
    unseen = np.array([0, 0, 0, 0, 1, 1, 1], bool)[:, None] & np.ones((7, 4), bool)  # the fourth retained it
    first, second = attacks.ulira(phi, forgotten, unseen)
    positive, images, negative = first.ratios, first.images, second.ratios
    assert images.tolist() == [0, 1, 2, 3] * 3
    groups = {"in": [phi[[1, 2]], phi[[5, 6]]], "out": [phi[[1, 2]], phi[[4, 6]]]}
    for kind, attacked, found in (("in", phi[0], positive[:4]), ("out", phi[5], negative[4:8])):
        if kind == "out":  # the next model behind the sixth that forgot is the first
            groups[kind] = [phi[[1, 2]], phi[[4, 6]]]
        likelihoods = [norm.logpdf(attacked, part.mean(0), math.sqrt(part.var(0, ddof=1).mean())) for part in groups[kind]]
        assert found == pytest.approx(likelihoods[0] - likelihoods[1])
    with pytest.raises(InsufficientData, match="3 models that forgot an image and 3 that never saw it; 2 and 3 available for some image"):
        attacks.ulira(phi, forgotten & (np.arange(7) < 2)[:, None], unseen)


def test_swap_on_gaussians() -> None:
    (first_F, first_G), (second_G, second_F) = gaussians(20_000), gaussians(20_000, 1)  # each model remembers its own request
    noise = np.random.default_rng(2).normal(0, 1, (4, 20_000))  # a signal that tells nothing
    one, two, three, four = (np.stack([other, own]) for other, own in zip(noise, (first_F, first_G, second_F, second_G), strict=True))
    forget, other = attacks.swap(one, two, three, four)
    assert (len(forget), len(other)) == (10_000, 10_000)
    assert abs(forget.mean() - other.mean()) / 2 == pytest.approx(2 * norm.cdf(D / 2) - 1, abs=0.02)
    forget, other = attacks.swap(*(part[None] for part in noise))
    assert abs(forget.mean() - other.mean()) / 2 < 0.02


# --- distributions --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.5, 5.0, 300.0]))
def test_klom_by_hand(seed: int, unlearned: int, retrained: int, spread: float) -> None:
    generator = np.random.default_rng(seed)
    p, q = (generator.normal(0, spread, (n, 3)) for n in (unlearned, retrained))
    for image, found in enumerate(distributions.klom(p, q)):
        ours, theirs = (np.clip(group[:, image], -100, 100) for group in (p, q))
        ends = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
        if ends[0] == ends[1]:  # all are clipped alike
            assert found == 0
            continue
        shares = [np.histogram(group, 20, ends)[0] / len(group) for group in (ours, theirs)]
        summed = sum(a * math.log(a / max(b, 1e-5)) for a, b in zip(*shares, strict=True) if a)
        assert found == pytest.approx(summed, abs=1e-9)
    assert distributions.klom(p, p) == pytest.approx(0, abs=1e-12)


def epsilon_by_hand(unlearned: list[float], retrained: list[float], delta: float = 1e-5) -> float:
    spans = [max(group) - min(group) for group in (unlearned, retrained)]
    if min(spans) < 0.01 * max(spans):
        return 50.0
    positive, negative = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    narrow, wide = (unlearned, retrained) if spans[0] < spans[1] else (retrained, unlearned)
    values = sorted({*unlearned, *retrained})
    rates = [(sum(v >= t for v in negative) / len(negative), sum(v < t for v in positive) / len(positive)) for t in values]
    for right, wider in product(np.arange(-2, 2.5, 0.5), repeat=2):  # all are whole numbers, so steps of a half miss no division
        high = max(narrow) + right
        low = high - (max(narrow) - min(narrow)) - wider
        inside = [sum(low <= v <= high for v in group) / len(group) for group in (wide, narrow)]
        rates.append((inside[0], 1 - inside[1]))
    found = [0.0]
    for fpr, fnr in rates:
        if fpr == fnr == 0:
            found.append(math.inf)
        elif fpr and fnr:
            found += [math.log(1 - delta - a) - math.log(b) for a, b in ((fpr, fnr), (fnr, fpr)) if a < 1 - delta]
    return min(50.0, max(found))


small = st.lists(st.integers(0, 12).map(float), min_size=2, max_size=8)


@given(small, small)
def test_epsilon_by_hand(unlearned: list[float], retrained: list[float]) -> None:
    if len(set(unlearned)) == len(set(retrained)) == 1:
        return  # no range to compare
    if np.ptp(unlearned) == np.ptp(retrained):
        unlearned = [*unlearned, max(unlearned) + 1]  # else either group may be called the narrower
    (found,) = distributions.epsilons(np.array(unlearned)[:, None], np.array(retrained)[:, None])
    assert found == pytest.approx(epsilon_by_hand(unlearned, retrained))


def test_the_forgetting_quality_halves_every_half_epsilon() -> None:
    found = distributions.forgetting_quality(np.array([0.0, 0.49, 0.5, 1.2, 4.9, 4.99, 5.0, 50.0]), 64)  # ceil(ln 63) is 5
    assert found.tolist() == [1, 1, 0.5, 0.25, 2**-9, 2**-9, 0, 0]
    assert distributions.largest_shown(64, 64) == pytest.approx(math.log(63), abs=0.001)
    assert distributions.epsilons(*np.full((2, 5, 3), 2.0)) == pytest.approx(0.0)  # no range, no difference
    apart = distributions.epsilons(np.arange(5.0)[:, None], 10 + np.arange(5.0)[:, None])
    assert apart == pytest.approx(50.0)


def test_two_halves_of_a_bank_and_the_original() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 2, 300)
    one, two, third = (generator.normal(hard, 1, (16, 300)) for _ in range(3))
    remembered = generator.normal(hard + 3, 1, (16, 300))
    for measure in (distributions.klom, distributions.epsilons):
        floor, again, leak = (measure(group, two).mean() for group in (one, third, remembered))
        assert floor == pytest.approx(again, rel=0.1)
        assert leak > 1.5 * floor
    quality = [distributions.forgetting_quality(distributions.epsilons(group, two), 16).mean() for group in (one, third, remembered)]
    assert quality[0] == pytest.approx(quality[1], rel=0.15)
    assert quality[2] < quality[0] / 3


# --- features -------------------------------------------------------------------------------------------------------------


def test_the_probe_is_scikit_learns_ridge() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 3
    values = (generator.normal(0, 1, (400, 5)) * [1, 2, 3, 4, 0] + np.eye(5)[labels]).astype(np.float32)
    retain = np.arange(0, 300)
    scale = StandardScaler().fit(values[retain])
    ridge = Ridge(alpha=0.3).fit(scale.transform(values[retain]), np.eye(3)[labels[retain]])
    expected = ridge.predict(scale.transform(values)).argmax(1) == labels
    found = features.probe(values, labels, retain, 3)
    assert (found.dtype, found.tolist()) == (np.uint8, expected.astype(int).tolist())
    assert 0.4 < found[300:].mean() < 0.9
    assert features.probe(values, (labels + 1) % 3, retain, 3)[300:].mean() == pytest.approx(found[300:].mean())
    shifted = np.where(np.arange(400) < 300, labels, (labels + 1) % 3)
    assert features.probe(values, shifted, retain, 3)[300:].mean() < 0.3


def test_cka_by_gram_matrices() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(3, 1, (40, 6)), generator.normal(0, 1, (40, 9))
    y[:, :6] += x

    def hsic(a: Floats, b: Floats) -> float:
        n, ones = len(a), np.ones(len(a))
        K, L = (part @ part.T * (1 - np.eye(n)) for part in (a, b))
        return float(np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * ones @ K @ L @ ones) / (n * (n - 3))

    assert features.cka(x, y) == pytest.approx(hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y)))
    rotated = x @ np.linalg.qr(generator.normal(0, 1, (6, 6)))[0]
    assert features.cka(x, 7 * rotated + 5) == pytest.approx(1.0)
    assert abs(features.cka(*generator.normal(0, 1, (2, 200, 150)))) < 0.05  # biased CKA says 0.4
    with pytest.raises(InsufficientData, match="at least 4 images; 3 available"):
        features.cka(x[:3], y[:3])


@pytest.mark.parametrize("images", [4, 7, 5000])
def test_features_that_do_not_vary_have_no_similarity(images: int) -> None:
    generator = np.random.default_rng(0)
    varied, constant = generator.normal(0, 1, (images, 6)), np.full((images, 9), 0.1)
    one = constant.copy()
    one[0] += generator.normal(0, 1, 9)  # in all pairs of other images it is constant
    for pair in ((varied, constant), (constant, varied), (constant, constant), (varied, one), (varied, 0 * constant)):
        with pytest.raises(InsufficientData, match="needs features that vary"):
            features.cka(*pair)
    assert features.cka(varied, 1e-6 * varied) == pytest.approx(1.0)
