"""What someone with a model's outputs can tell of an image: was it trained on? Arithmetic on what logits tables say.

F forget images, T held-out ones, R retained ones, Z a population, N any, K models. Arrays come in the order of ids, so that draws are
the same for every model. Of all scores the higher speaks for having been trained on."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lethe._util.errors import InsufficientData

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

RATES = (0.01, 0.001)  # false-positive rates at which true-positive rates are read


class Roc:
    """How a score tells positives P from negatives N, which may be weighted: the area under its curve, and its power at low error rates.

    AUC is the chance that the positive has the higher score, ties half; TPR at a rate is the largest with at most that FPR. It is
    scikit-learn's roc_curve, for a thousand resamples at once: values are ranked once, and a resample is counts of ranks."""

    def __init__(self, positives: Floats, negatives: Floats, weights_N: Floats | None = None) -> None:
        self.sizes = len(positives), len(negatives)
        values, ranks = np.unique(np.concatenate([-positives, -negatives]), return_inverse=True)  # the highest score first
        self._values, self._positives, self._negatives = len(values), ranks[: len(positives)], ranks[len(positives) :]
        self._weights = np.ones(len(negatives)) if weights_N is None else weights_N

    def __call__(self, drawn_P: Ints, drawn_N: Ints) -> Floats:
        """[1 + rates, ...]: AUC and the TPRs on images drawn by index, [..., P] and [..., N]."""
        true = self._shares(self._positives[drawn_P], np.ones(drawn_P.shape))
        false = self._shares(self._negatives[drawn_N], self._weights[drawn_N])
        above, rates = np.cumsum(true, axis=-1), np.cumsum(false, axis=-1)
        auc = (false * (above - true / 2)).sum(-1)
        # 1e-9: a cumulative sum that means 0.01 may be 0.010000000000000002
        return np.stack([auc, *(np.where(rates <= rate + 1e-9, above, 0.0).max(-1) for rate in RATES)])

    def point(self) -> Floats:
        """[1 + rates]: the same on all images, without resampling."""
        return self(*map(np.arange, self.sizes))

    def _shares(self, ranks: Ints, weights: Floats) -> Floats:
        """[..., values]: the share of images at each value."""
        rows = ranks.reshape(-1, ranks.shape[-1])
        places = (rows + np.arange(len(rows))[:, None] * self._values).ravel()
        counts = np.bincount(places, weights.ravel(), len(rows) * self._values).reshape(*ranks.shape[:-1], self._values)
        return np.asarray(counts / counts.sum(-1, keepdims=True))


def equal_sized(forget: int, weights_T: Floats, seed: int = 0) -> tuple[Ints, Ints]:
    """Indices of equally many forget and held-out images: all of the fewer, a draw from the more.

    Where held-out images are weighted, each is first kept with a chance in proportion to its weight."""
    generator = np.random.default_rng(seed)
    kept = np.flatnonzero(generator.random(len(weights_T)) < weights_T / weights_T.max())
    size = min(forget, len(kept))
    drawn = [np.sort(generator.choice(n, size, replace=False)) for n in (forget, len(kept))]
    return drawn[0], kept[drawn[1]]


def by_loss(forget: Floats, held_out: Floats, rounds: int = 10) -> tuple[Floats, Floats]:
    """Logistic regression on one loss each, equally many of both: how often each image, [forget, held-out], was told rightly, and in
    how many of the rounds it was asked. Accuracy is the sum of the one by the sum of the other.

    The attack of the NeurIPS 2023 unlearning competition's starting kit: stratified shuffle splits, a tenth to test on, seed 0.
    Raises InsufficientData below 10 images of each."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    if min(len(forget), len(held_out)) < rounds:
        raise InsufficientData(f"needs at least {rounds} forget and {rounds} held-out images; {len(forget)} and {len(held_out)} available")
    losses = np.concatenate([forget, held_out])[:, None]
    member = np.repeat([1, 0], [len(forget), len(held_out)])
    right, asked = np.zeros(len(member)), np.zeros(len(member))
    for train, test in StratifiedShuffleSplit(n_splits=rounds, random_state=0).split(losses, member):
        fitted = LogisticRegression().fit(losses[train], member[train])
        right[test] += fitted.predict(losses[test]) == member[test]
        asked[test] += 1
    return right, asked


def by_svc(retain: Floats, held_out: Floats, asked: Floats, seed: int = 0) -> Bools:
    """Which images an RBF SVC on p_y (C 3, gamma auto) calls members, having learned equally many retained and held-out ones.

    The "SVC_MIA" of Fan et al., arXiv:2310.12508 (SalUn), on confidence; after Song and Mittal, arXiv:2003.10595."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVC
    from sklearn.utils import gen_batches

    size = min(len(retain), len(held_out))
    generator = np.random.default_rng(seed)
    learned = np.concatenate([each[np.sort(generator.choice(len(each), size, replace=False))] for each in (retain, held_out)])
    # four points in five become support vectors, so there is little to shrink: a fifth less time without, for the same optimum
    fitted = SVC(C=3, gamma="auto", shrinking=False, cache_size=400).fit(learned[:, None], np.repeat([1, 0], size))
    # libsvm's own predict goes over 8,000 support vectors one by one, which takes longer than the fit
    decisions = [
        rbf_kernel(asked[part, None], fitted.support_vectors_, gamma=1.0) @ fitted.dual_coef_[0] + fitted.intercept_[0]
        for part in gen_batches(len(asked), 500)
    ]
    return np.concatenate(decisions) > 0 if decisions else np.zeros(0, np.bool_)


def rmia(log_p_N: Floats, references_KN: Floats, population_Z: Ints, gamma: float, a: float = 0.3) -> Floats:
    """[N]: the share of the population z over which x is ahead, [p_y(x) / p(x)] / [p_y(z) / p(z)] > gamma; natural logs of p_y in.

    p(x) is what would be said of x had half the models seen it; from K references that have not: ((1 + a) mean p_y + (1 - a)) / 2.
    Zarifzadeh et al., arXiv:2312.03262, equations 4 and 10 (offline)."""
    unseen = np.exp(references_KN).mean(axis=0)
    ahead = log_p_N - np.log(((1 + a) * unseen + (1 - a)) / 2)
    beaten = np.sort(ahead[population_Z] + np.log(gamma))
    return np.asarray(np.searchsorted(beaten, ahead, side="left") / len(beaten))


def iam(log_p_N: Floats, references_KN: Floats, original_N: Floats, steps: int = 100) -> Floats:
    """[N]: how completely an image is unlearned, 0 (as the original says of it) to 1; natural logs of p_y in.

    Between each reference's signal and the original's lie `steps` interpolations; over models a Gumbel distribution is fitted to each
    by moments, its mean for the image, its deviation for the step (as the authors' code does, so that one reference is enough).
    Wang et al., arXiv:2506.06112, section 5; not a membership score: here the higher speaks for having been forgotten."""
    from scipy.stats import gumbel_r

    model, references, original = (_iam_signal(log_p) for log_p in (log_p_N, references_KN, original_N))
    a = np.linspace(0, 1, steps)
    total = np.zeros(len(model))
    for here, ahead in pairwise(a):
        between_KN = references + here * (original - references)
        scale = np.sqrt(6) / np.pi * max(float(between_KN.std()), 1e-10)
        total += ahead * gumbel_r.cdf(model, between_KN.mean(axis=0) - np.euler_gamma * scale, scale)
    return np.asarray(1 - total / a[1:].sum())


def _iam_signal(log_p: Floats) -> Floats:
    low, high = (-np.log(0.01 - np.log(1e-5 + p)) for p in (0.0, 1.0))
    return np.asarray((-np.log(0.01 - np.log(1e-5 + np.exp(log_p))) - low) / (high - low))


def ulira(phi_KN: Floats, forgotten_KN: Bools, unseen_KN: Bools) -> tuple[tuple[Floats, Ints], tuple[Floats, Ints]]:
    """Log likelihood ratios, and the images they are of: of all that models forgot, and of all that models never saw (the same
    unlearning was run on others).

    Each model in turn is attacked: an image's phi under Gaussians that are fitted to the other models which forgot it, and to those
    which never saw it. One model of the other kind is left out with the attacked one, so that both fits have as many: else the smaller
    group's wider error alone would tell. Below 16 models in a group its variance is pooled over images.
    Hayes et al., arXiv:2403.01218, algorithm 1; Carlini et al., arXiv:2112.03570. Raises InsufficientData below 3 models of a kind."""
    kinds = np.stack([forgotten_KN, unseen_KN])  # [2, K, N]
    counts = kinds.sum(axis=1)
    if counts.min() < 3:
        few = f"{counts[0].min()} and {counts[1].min()}"
        raise InsufficientData(f"takes at least 3 models that forgot an image and 3 that never saw it; of some image there are {few}")
    phi = phi_KN - phi_KN.mean(axis=0)
    sums, squares = ((kinds * part).sum(axis=1) for part in (phi, phi**2))
    models = len(phi)
    found: list[list[Floats]] = [[], []]
    images: list[list[Ints]] = [[], []]
    for kind in (0, 1):
        for attacked in range(models):
            mine = np.flatnonzero(kinds[kind, attacked])
            if not len(mine):
                continue
            partner = np.full(phi.shape[1], -1)
            for step in range(1, models):  # the next model of the other kind
                there = (attacked + step) % models
                partner = np.where((partner < 0) & kinds[1 - kind, there], there, partner)
                if (partner[mine] >= 0).all():
                    break
            likelihood = {}
            for group, out in ((kind, np.full(len(mine), attacked)), (1 - kind, partner[mine])):
                left = phi[out, mine]
                number = counts[group, mine] - 1
                centre = (sums[group, mine] - left) / number
                spread = np.maximum(squares[group, mine] - left**2 - number * centre**2, 0.0)  # sum of squares about the mean
                pooled = counts[group].min() < 16
                variance = np.full(len(mine), spread.sum() / (number - 1).sum()) if pooled else spread / (number - 1)
                variance = np.maximum(variance, 1e-12)
                likelihood[group] = -0.5 * (np.log(variance) + (phi[attacked, mine] - centre) ** 2 / variance)
            found[kind].append(likelihood[0] - likelihood[1])
            images[kind].append(mine)
    forgotten, unseen = ((np.concatenate(found[kind]), np.concatenate(images[kind])) for kind in (0, 1))
    return forgotten, unseen


SIGNALS = ("loss", "entropy", "margin")


def swap(first_SF: Floats, first_SG: Floats, second_SF: Floats, second_SG: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """What the best single threshold on one of S signals says of each image: A(m1) - A(m2), on half of F and half of F' (G).

    m1 was to forget F, m2 to forget F'. The threshold is the one with the largest advantage on the other halves; the advantage is
    |mean over F - mean over F'| / 2. Xuan and Li's SWAP test, arXiv:2404.11577, section 4."""
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(n), 2) for n in (first_SF.shape[1], first_SG.shape[1])]
    (fit_F, use_F), (fit_G, use_G) = ([np.sort(half) for half in pair] for pair in halves)
    best = (-1.0, 0, 0.0)
    for signal in range(len(first_SF)):
        groups = [first_SF[signal, fit_F], first_SG[signal, fit_G], second_SG[signal, fit_G], second_SF[signal, fit_F]]
        thresholds = np.unique(np.concatenate(groups))
        above = [1 - np.searchsorted(np.sort(group), thresholds, side="left") / len(group) for group in groups]
        advantages = np.abs(above[0] - above[1] + above[2] - above[3]) / 2
        at = int(advantages.argmax())
        best = max(best, (float(advantages[at]), signal, float(thresholds[at])), key=lambda found: found[0])
    _, signal, threshold = best
    said = [(part[signal] >= threshold).astype(np.float64) for part in (first_SF, second_SF, first_SG, second_SG)]
    return (said[0] - said[1])[use_F], (said[2] - said[3])[use_G]
