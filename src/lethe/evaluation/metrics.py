"""Accuracy and loss of logits. N images, C classes: logits_NC float32, labels_N int64."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from lethe.recipes.forward import Table


def accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Compute the accuracy in percent; of equal logits, the first counts as the prediction.

    Args:
        logits_NC: logits, float32 [N, C].
        labels_N: true classes, int64 [N].

    Returns:
        Percent, 0 to 100.
    """
    return 100.0 * int((logits_NC.argmax(dim=1) == labels_N).sum()) / len(labels_N)


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Compute the mean cross-entropy, in float64.

    Args:
        logits_NC: logits, float32 [N, C].
        labels_N: true classes, int64 [N].

    Returns:
        Nats.
    """
    return float(functional.cross_entropy(logits_NC.double(), labels_N))


def cross_entropy_of(n: int, parts: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Compute the mean cross-entropy of images that come in parts, equal to `cross_entropy` of all of them at once to the bit.

    Args:
        n: number of images.
        parts: logits, float32 [n, C], and true classes, int64 [n]; on the CPU.

    Returns:
        Nats.
    """
    table = Table(n)  # small results that are kept one by one leave holes between the large tensors of each part
    for logits, labels in parts:
        table.add(functional.log_softmax(logits.double(), dim=1).gather(1, labels[:, None]))
    assert table.rows is not None
    return float(functional.nll_loss(table.rows, torch.zeros(n, dtype=torch.int64)))
