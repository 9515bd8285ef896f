"""Accuracy and loss of logits. N images, C classes: logits_NC float32, labels_N int64."""

from torch import Tensor
from torch.nn import functional


def accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Accuracy in percent (of equal logits, the first counts as the prediction)."""
    return 100.0 * int((logits_NC.argmax(dim=1) == labels_N).sum()) / len(labels_N)


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean cross-entropy in nats."""
    return float(functional.cross_entropy(logits_NC.double(), labels_N))
