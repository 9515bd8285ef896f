"""Membership inference attacks: was an image part of the training set, given the model's outputs? Arithmetic on arrays.

F forget images, T held-out images, R retained images, Z a population, N any images, K models. Arrays are sorted by image id, so seeded
draws select the same images for every model. A higher score means that the image was more likely trained on."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lethe._util.errors import InsufficientData

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ASKED_AT_ONCE = 50  # images of which the kernel with all support vectors is in memory: 6 MB at 16,000 of them
# MiB of kernel rows that libsvm keeps. It seldom asks for a row again after many others: of 20,000 points 400 MiB take 8.7 s, 20 MiB 7.7,
# and the sums are the same (docs/log.md)
KERNEL_ROWS = 20


def equal_sized(forget: int, weights_T: Floats, seed: int = 0) -> tuple[Ints, Ints]:
    """Select equally many forget and held-out images: all of the smaller group, a random sample of the larger.

    Args:
        forget: number of forget images.
        weights_T: weights of the held-out images; each is first kept with a probability proportional to its weight.
        seed: of the sampling.

    Returns:
        Indices into the forget images and into the held-out images.
    """
    generator = np.random.default_rng(seed)
    kept = np.flatnonzero(generator.random(len(weights_T)) < weights_T / weights_T.max())
    size = min(forget, len(kept))
    drawn = [np.sort(generator.choice(n, size, replace=False)) for n in (forget, len(kept))]
    return drawn[0], kept[drawn[1]]


def by_loss(forget: Floats, held_out: Floats, rounds: int = 10) -> tuple[Floats, Floats]:
    """Attack by logistic regression on the loss, as in the starting kit of the NeurIPS 2023 unlearning competition.

    Stratified shuffle splits with a tenth as the test part, seed 0.

    Args:
        forget: losses of the forget images.
        held_out: losses of equally many held-out images.
        rounds: number of splits.

    Returns:
        For each image, [forget, held-out]: how often it was classified correctly, and in how many rounds it was in the test part.
        The accuracy is the sum of the first divided by the sum of the second.

    Raises:
        InsufficientData: there are fewer than 10 images of either.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    if min(len(forget), len(held_out)) < rounds:
        raise InsufficientData(f"needs at least {rounds} forget and {rounds} held-out images; {len(forget)} and {len(held_out)} available")
    losses = np.concatenate([forget, held_out])[:, None]
    member = np.repeat([1, 0], [len(forget), len(held_out)])
    right, asked = np.zeros(len(member)), np.zeros(len(member))
    with config_context(skip_parameter_validation=True):
        for train, test in StratifiedShuffleSplit(n_splits=rounds, random_state=0).split(losses, member):
            fitted = LogisticRegression().fit(losses[train], member[train])
            right[test] += fitted.predict(losses[test]) == member[test]
            asked[test] += 1
    return right, asked


def by_svc(retain: Floats, held_out: Floats, asked: Floats, seed: int = 0) -> Bools:
    """Attack by an RBF support vector classifier on p_y (C 3, gamma auto), trained on equally many retained and held-out images.

    The "SVC_MIA" of Fan et al., arXiv:2310.12508 (SalUn), on confidence; after Song and Mittal, arXiv:2003.10595.

    Args:
        retain: p_y of the retained images.
        held_out: p_y of the held-out images.
        asked: p_y of the images to classify, [N].
        seed: of the sampling of the larger training group.

    Returns:
        Whether each image is classified as a member, [N].
    """
    from sklearn import config_context
    from sklearn.svm import SVC
    from sklearn.utils import gen_batches

    size = min(len(retain), len(held_out))
    generator = np.random.default_rng(seed)
    learned = np.concatenate([each[np.sort(generator.choice(len(each), size, replace=False))] for each in (retain, held_out)])
    # four in five points become support vectors, so shrinking gains little: without it, the same optimum takes a fifth less time
    with config_context(skip_parameter_validation=True):  # a fit on few images takes less than checking ours again
        fitted = SVC(C=3, gamma="auto", shrinking=False, cache_size=KERNEL_ROWS).fit(learned[:, None], np.repeat([1, 0], size))
    # libsvm's predict loops over 8,000 support vectors, which takes longer than the fit
    decisions = [
        _rbf(asked[part], fitted.support_vectors_[:, 0]) @ fitted.dual_coef_[0] + fitted.intercept_[0]
        for part in gen_batches(len(asked), ASKED_AT_ONCE)
    ]
    return np.concatenate(decisions) > 0 if decisions else np.zeros(0, np.bool_)


def _rbf(x_N: Floats, y_M: Floats) -> Floats:
    """exp(-(x - y)^2), [N, M], to the bit as sklearn's rbf_kernel, which spends milliseconds on checks."""
    distances_NM = np.outer(x_N, y_M)  # every step in place: of thousands of support vectors each array takes 100 MB
    distances_NM *= -2
    distances_NM += (x_N**2)[:, None]
    distances_NM += y_M**2
    np.maximum(distances_NM, 0, out=distances_NM)
    np.negative(distances_NM, out=distances_NM)
    return np.asarray(np.exp(distances_NM, out=distances_NM))


def ahead(log_p_N: Floats, references_KN: Floats, a: float = 0.3) -> Floats:
    """log [p_y(x) / p(x)], RMIA's likelihood ratio of an image: how far the model is ahead of the references on it.

    p(x) is estimated from references that have not seen x, as if half of the models had: ((1 + a) mean p_y + (1 - a)) / 2.

    Args:
        log_p_N: log p_y of the model, natural logarithm.
        references_KN: the same of K retrained models.
        a: parameter of the offline estimate.

    Returns:
        [N], in nats.
    """
    unseen = np.exp(references_KN).mean(axis=0)
    return np.asarray(log_p_N - np.log(((1 + a) * unseen + (1 - a)) / 2))


def rmia(log_p_N: Floats, references_KN: Floats, population_Z: Ints, gamma: float, a: float = 0.3) -> Floats:
    """RMIA attack, offline: Zarifzadeh et al., arXiv:2312.03262, equations 4 and 10.

    Args:
        log_p_N: log p_y of the model, natural logarithm.
        references_KN: the same of K retrained models.
        population_Z: indices of the population images z.
        gamma: threshold of the likelihood ratio.
        a: parameter of the offline estimate of p, see `ahead`.

    Returns:
        [N]: the share of the population with [p_y(x) / p(x)] / [p_y(z) / p(z)] > gamma.
    """
    ratios = ahead(log_p_N, references_KN, a)
    beaten = np.sort(ratios[population_Z] + np.log(gamma))
    return np.asarray(np.searchsorted(beaten, ratios, side="left") / len(beaten))


def iam(log_p_N: Floats, references_KN: Floats, original_N: Floats, steps: int = 100) -> Floats:
    """IAM: how completely each image is unlearned. Wang et al., arXiv:2506.06112, section 5.

    The signal is interpolated in `steps` between each reference and the original. At each step a Gumbel distribution over models is
    fitted by moments: its mean per image, its deviation per step (as in the authors' code, so one reference is enough).

    Args:
        log_p_N: log p_y of the model, natural logarithm.
        references_KN: the same of K retrained models.
        original_N: the same of the original.
        steps: number of interpolations.

    Returns:
        [N], from 0 (as in the original) to 1 (unlearned). Unlike the membership scores, a higher value means more forgotten.
    """
    model, references, original = (_iam_signal(log_p) for log_p in (log_p_N, references_KN, original_N))
    a, apart_KN = np.linspace(0, 1, steps), original - references
    total = np.zeros(len(model))
    for here, after in pairwise(a):
        between_KN = references + here * apart_KN
        scale = np.sqrt(6) / np.pi * max(float(between_KN.std()), 1e-10)
        with np.errstate(over="ignore"):  # far below the others: exp(-inf) is 0
            total += after * np.exp(-np.exp(-(model - (between_KN.mean(axis=0) - np.euler_gamma * scale)) / scale))
    return np.asarray(1 - total / a[1:].sum())


def _iam_signal(log_p: Floats) -> Floats:
    low, high = (-np.log(0.01 - np.log(1e-5 + p)) for p in (0.0, 1.0))
    return np.asarray((-np.log(0.01 - np.log(1e-5 + np.exp(log_p))) - low) / (high - low))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Log likelihood ratios of (model, image) pairs, with the index of the image and of the model of each, [pairs]."""

    ratios: Floats
    images: Ints
    models: Ints


def ulira(phi_KN: Floats, forgotten_KN: Bools, unseen_KN: Bools) -> tuple[Pairs, Pairs]:
    """U-LiRA attack: Hayes et al., arXiv:2403.01218, algorithm 1; Carlini et al., arXiv:2112.03570.

    Each model is attacked in turn: the phi of an image is compared under Gaussians fitted to the other models that forgot it, and to
    those that never saw it. A model of the other kind is left out together with the attacked one, so that both fits use equally many
    models; otherwise the larger error of the smaller group would give it away. With fewer than 16 models in a group, its variance is
    pooled over images.

    Args:
        phi_KN: log odds of the true class, by K models unlearned on different requests.
        forgotten_KN: whether the model has unlearned the image.
        unseen_KN: whether the model never saw the image.

    Returns:
        The pairs that are forgotten, and those that are unseen.

    Raises:
        InsufficientData: some image has fewer than 3 models of a kind.
    """
    kinds = np.stack([forgotten_KN, unseen_KN])  # [2, K, N]
    counts = kinds.sum(axis=1)
    if counts.min() < 3:
        few = f"{counts[0].min()} and {counts[1].min()}"
        raise InsufficientData(f"needs at least 3 models that forgot an image and 3 that never saw it; {few} available for some image")
    phi = phi_KN - phi_KN.mean(axis=0)
    sums, squares = ((kinds * part).sum(axis=1) for part in (phi, phi**2))
    models = len(phi)
    ratios: list[list[Floats]] = [[], []]
    images: list[list[Ints]] = [[], []]
    attacks: list[list[Ints]] = [[], []]
    for kind in (0, 1):
        for attacked in range(models):
            own = np.flatnonzero(kinds[kind, attacked])
            if not len(own):
                continue
            partner = np.full(phi.shape[1], -1)
            for step in range(1, models):  # the next model of the other kind
                candidate = (attacked + step) % models
                partner = np.where((partner < 0) & kinds[1 - kind, candidate], candidate, partner)
                if (partner[own] >= 0).all():
                    break
            likelihood = {}
            for group, out in ((kind, np.full(len(own), attacked)), (1 - kind, partner[own])):
                left = phi[out, own]
                number = counts[group, own] - 1
                centre = (sums[group, own] - left) / number
                spread = np.maximum(squares[group, own] - left**2 - number * centre**2, 0.0)  # sum of squares about the mean
                pooled = counts[group].min() < 16
                variance = np.full(len(own), spread.sum() / (number - 1).sum()) if pooled else spread / (number - 1)
                variance = np.maximum(variance, 1e-12)
                likelihood[group] = -0.5 * (np.log(variance) + (phi[attacked, own] - centre) ** 2 / variance)
            ratios[kind].append(likelihood[0] - likelihood[1])
            images[kind].append(own)
            attacks[kind].append(np.full(len(own), attacked))
    forgotten, unseen = (
        Pairs(np.concatenate(ratios[kind]), np.concatenate(images[kind]), np.concatenate(attacks[kind])) for kind in (0, 1)
    )
    return forgotten, unseen


SIGNALS = ("loss", "entropy", "margin")


def swap(first_SF: Floats, first_SG: Floats, second_SF: Floats, second_SG: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """SWAP test of Xuan and Li, arXiv:2404.11577, section 4: can a threshold on one signal tell which request a model has unlearned?

    Model m1 has unlearned the request F, m2 the request G (F' in the paper). The threshold with the largest advantage on one half of the
    images is evaluated on the other half; the advantage is |mean over F - mean over G| / 2.

    Args:
        first_SF: S signals of m1 on the images of F.
        first_SG: S signals of m1 on the images of G.
        second_SF: S signals of m2 on F.
        second_SG: S signals of m2 on G.
        seed: of the division into halves.

    Returns:
        A(m1) - A(m2) for each image of the other half of F, and of G; A is 1 at or above the threshold, else 0.
    """
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(n), 2) for n in (first_SF.shape[1], first_SG.shape[1])]
    (fit_F, use_F), (fit_G, use_G) = ([np.sort(half) for half in pair] for pair in halves)
    best = (-1.0, 0, 0.0)
    for signal in range(len(first_SF)):
        groups = [first_SF[signal, fit_F], first_SG[signal, fit_G], second_SG[signal, fit_G], second_SF[signal, fit_F]]
        thresholds = np.unique(np.concatenate(groups))
        shares = [1 - np.searchsorted(np.sort(group), thresholds, side="left") / len(group) for group in groups]
        advantages = np.abs(shares[0] - shares[1] + shares[2] - shares[3]) / 2
        at = int(advantages.argmax())
        best = max(best, (float(advantages[at]), signal, float(thresholds[at])), key=lambda candidate: candidate[0])
    _, signal, threshold = best
    above = [(part[signal] >= threshold).astype(np.float64) for part in (first_SF, second_SF, first_SG, second_SG)]
    return (above[0] - above[1])[use_F], (above[2] - above[3])[use_G]
