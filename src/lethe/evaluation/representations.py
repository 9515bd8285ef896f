"""Representations: what the layer before the head still encodes about the forget set. N images, D features, C classes."""

import numpy as np
import numpy.typing as npt

from lethe._util.errors import InsufficientData

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

BATCH = 8192


def probe(features_ND: Array, labels_N: Ints, retain: Ints, classes: int) -> npt.NDArray[np.uint8]:
    """Fit a new linear head on the features of retain, and classify all images with it (linear probe, arXiv:2604.08271).

    A ridge regression of centred one-hot labels on features standardised by the mean and deviation of retain; lambda is a thousandth of
    the size of retain. Forget images that it classifies correctly more often than unseen images are remembered below the head.

    Args:
        features_ND: input of the last linear layer.
        labels_N: true classes.
        retain: row indices of the retained images.
        classes: number of classes.

    Returns:
        uint8 [N], 1 where the prediction is correct.
    """
    from scipy.linalg import solve

    dimensions = features_ND.shape[1]
    mean = features_ND[retain].mean(axis=0, dtype=np.float64)
    deviation = features_ND[retain].std(axis=0, dtype=np.float64, mean=mean[None])
    deviation[deviation == 0] = 1.0
    targets_RC = np.eye(classes)[labels_N[retain]]
    centre_C = targets_RC.mean(axis=0)
    gram_DD, cross_DC = 1e-3 * len(retain) * np.eye(dimensions), np.zeros((dimensions, classes))
    for part in _batches(len(retain)):  # 45,000 x 4,096 features are 1.5 GB in float64
        standard = (features_ND[retain[part]] - mean) / deviation
        gram_DD += standard.T @ standard
        cross_DC += standard.T @ (targets_RC[part] - centre_C)
    head_DC = solve(gram_DD, cross_DC, assume_a="pos")
    predicted = [((features_ND[part] - mean) / deviation @ head_DC + centre_C).argmax(axis=1) for part in _batches(len(labels_N))]
    return np.asarray(np.concatenate(predicted) == labels_N, np.uint8)


def _batches(rows: int) -> list[slice]:
    """Slices of BATCH rows."""
    return [slice(start, start + BATCH) for start in range(0, rows, BATCH)]


def cka(ours_ND: Array, theirs_ND: Array) -> float:
    """Debiased linear centred kernel alignment (CKA) of two models' features on the same images.

    HSIC1(K, L) / sqrt(HSIC1(K, K) HSIC1(L, L)); Song et al. 2012, equation 5; Nguyen et al., arXiv:2010.15327, section 3.
    The Gram matrices are never formed: n images cost n D^2.

    Args:
        ours_ND: features of one model.
        theirs_ND: features of the other; D may differ.

    Returns:
        1 if they are equal up to rotation and scale, around 0 if unrelated.

    Raises:
        InsufficientData: there are fewer than 4 images, or features of a model do not vary over them.
    """
    if len(ours_ND) < 4:
        raise InsufficientData(f"needs at least 4 images; {len(ours_ND)} available")
    x, y = (_centred(features) for features in (ours_ND, theirs_ND))
    sizes = [_hsic(part, part) for part in (x, y)]
    # 0 but for rounding: all images have the same features, or all but one; elsewhere n^2 HSIC1 is (trace K)^2 / D, roughly
    if any(len(part) ** 2 * size <= 1e-12 * np.square(part).sum() ** 2 for size, part in zip(sizes, (x, y), strict=True)):
        raise InsufficientData("needs features that vary over the images, of the model and of each reference")
    return _hsic(x, y) / float(np.sqrt(sizes[0] * sizes[1]))


def _centred(features_ND: Array) -> Floats:
    """Subtract the mean: HSIC1 does not depend on it, but its rounding error does."""
    features = features_ND.astype(np.float64)
    return np.asarray(features - features.mean(axis=0))


def _hsic(x_ND: Floats, y_ND: Floats) -> float:
    n = len(x_ND)
    diagonals = [np.einsum("nd,nd->n", part, part) for part in (x_ND, y_ND)]
    sums = [part @ part.sum(axis=0) - diagonal for part, diagonal in zip((x_ND, y_ND), diagonals, strict=True)]  # K 1, L 1
    trace = float(((x_ND.T @ y_ND) ** 2).sum() - diagonals[0] @ diagonals[1])
    whole = float(sums[0].sum() * sums[1].sum()) / ((n - 1) * (n - 2))
    return (trace + whole - 2 / (n - 2) * float(sums[0] @ sums[1])) / (n * (n - 3))
