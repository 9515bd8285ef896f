"""Whether a given model knows the images that it is said to be trained on, and if not, how it would: before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from lethe._util.errors import UserError
from lethe.data.device_data import Data
from lethe.evaluation import inference
from lethe.evaluation.logits_table import Ints
from lethe.evaluation.uncertainty import margin_of_error

Values: TypeAlias = Tensor | Sequence[float]

KNOWN = 90.0  # percent of its training images: from here on a model is read as it was trained
HARDLY = 50.0  # percent: below, it is logged that there is little to forget
GAIN = 10.0  # points by which another reading must be better
SURE = 80.0  # percent that it must reach to be what was meant: an untrained model of a few classes can gain by chance
SIMPLER = 2.0  # points that a reading may be worse which changes less
SAMPLE = 2000  # training images
FIRST, CLEARLY = 500, 95.0  # of the sample: of a model that knows KNOWN percent, one sample in 10,000 has so many right
AS_SET = "as set"
LISTED = 20  # classes that a message names
# What models are commonly trained with: mean and standard deviation of each channel, of pixels scaled to [0, 1]
NORMALISATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "[-1, 1]": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "none, pixels from 0 to 255": ((0.0, 0.0, 0.0), (0.00392157, 0.00392157, 0.00392157)),
}


@dataclass(frozen=True)
class Reading:
    """One way to read a model, and how much of its training images it then gets right.

    Attributes:
        name: of the normalisation; "as set" for that of the configuration.
        keys: the keys that would read it so; "" where nothing changes.
        accuracy: in percent.
        order: the outputs in the order of the data's classes; None: as they are.
    """

    name: str
    keys: str
    accuracy: float
    order: tuple[int, ...] | None = None

    @property
    def changes(self) -> int:
        """How many things it reads otherwise than set: normalisation, class order."""
        return (self.name != AS_SET) + (self.order is not None)


def readings(network: Module, data: Data, classes: Sequence[str]) -> list[Reading]:
    """Read a model by every normalisation, each with the classes in the data's order and in the order that fits the predictions best.

    The order comes from one half of the images (the assignment that maximises the trace of their confusion matrix), the accuracy from the
    other, so that an order that fits by chance gains nothing.

    Args:
        network: the model.
        data: with the split train, and the configured normalisation.
        classes: of the data, in the order of their labels.

    Returns:
        The reading as set first.
    """
    from scipy.optimize import linear_sum_assignment

    index = sample(data)
    labels = _labels(data, index)
    by_class = np.argsort(labels, kind="stable")
    fit, rest = by_class[::2], by_class[1::2]  # every class in both
    found = []
    every: dict[str, tuple[Values, Values]] = {AS_SET: (data.mean, data.std), **NORMALISATIONS}
    for name, (mean, std) in every.items():
        right = _predictions(network, data, index, mean, std)
        keys = "" if name == AS_SET else f"data.mean {_text(mean)} and data.std {_text(std)}"
        found.append(Reading(name, keys, 100 * float((right == labels).mean())))
        confusion = np.zeros((len(classes), len(classes)), np.int64)  # label x prediction
        np.add.at(confusion, (labels[fit], right[fit]), 1)
        order = linear_sum_assignment(confusion, maximize=True)[1]
        if len(rest) and not np.array_equal(order, np.arange(len(classes))):
            own = [classes[int(label)] for label in np.argsort(order)]
            named = ",".join(own) if len(own) <= LISTED else f"the order that begins with {','.join(own[:LISTED])}"
            accuracy = 100 * float((right[rest] == order[labels[rest]]).mean())
            found.append(Reading(name, " and ".join(filter(None, [keys, f"pretrain.classes {named}"])), accuracy, tuple(map(int, order))))
    return found


def check(network: Module, data: Data, classes: Sequence[str], spec: str) -> str:
    """Check that a given original knows its training images, as it is read by the configuration.

    Args:
        network: the model, with the given weights.
        data: with the split train, and the configured normalisation.
        classes: of the data, in the order of their labels.
        spec: the given checkpoint, for messages.

    Returns:
        A line for the log, with what was tried and the keys that would mend it, where another reading is better by more than GAIN points
        and more than chance, or where the model knows less than half of the images; else "".

    Raises:
        UserError: by another class order it knows at least SURE percent, better by more than GAIN points and more than chance: its labels
            are those of other classes, and whatever is made of it is meaningless. Or its logits are not finite.
    """
    index = sample(data)
    labels = _labels(data, index)
    first = _predictions(network, data, index[:FIRST], data.mean, data.std, spec)
    if is_clear(100 * float((first == labels[:FIRST]).mean()), len(first)):
        return ""
    predicted = _predictions(network, data, index, data.mean, data.std, spec)
    as_set = 100 * float((predicted == labels).mean())
    if as_set >= KNOWN:
        return ""
    tried = readings(network, data, classes)
    top = max(reading.accuracy for reading in tried)
    best = min(
        (reading for reading in tried if reading.accuracy >= top - SIMPLER), key=lambda reading: (reading.changes, -reading.accuracy)
    )
    text = "; ".join(f"{_tried(reading)} {reading.accuracy:.1f} %" for reading in tried)
    knows = f"{spec} gets {as_set:.1f} % of its own training images right as it is read here"
    better = best.accuracy - as_set > max(GAIN, margin_of_error((as_set, len(labels)), (best.accuracy, len(labels) // 2 or 1)))
    if better and best.accuracy >= SURE and best.order is not None:
        raise UserError(f"pretrain.checkpoint: {knows}, and {best.accuracy:.1f} % with {best.keys}: set that. Tried: {text}")
    if better:
        return f"{knows}, and {best.accuracy:.1f} % with {best.keys}: set that if it was trained so. Tried: {text}"
    return f"{knows}, so there is little that it could forget, and no other reading is better. Tried: {text}" if as_set < HARDLY else ""


def is_clear(accuracy: float, images: int) -> bool:
    """Return whether a model knows its training images, by the first of a sample alone.

    Args:
        accuracy: in percent.
        images: how many were read.
    """
    return images == FIRST and accuracy >= CLEARLY


def sample(data: Data) -> Tensor:
    """Return at most SAMPLE training images, drawn by a fixed seed.

    Args:
        data: with the split train.

    Returns:
        int64 indices on the data's device.
    """
    train = data.splits["train"]
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    return train[drawn.to(train.device)]


def _labels(data: Data, index: Tensor) -> Ints:
    labels: Ints = data.labels_N[index].cpu().numpy()
    return labels


def _predictions(network: Module, data: Data, index: Tensor, mean: Values, std: Values, spec: str = "") -> Ints:
    """Predicted classes by a normalisation; with `spec` a UserError where logits are not finite."""
    by_channel = (torch.as_tensor(values, device=data.device).view(1, -1, 1, 1) for values in (mean, std))
    read_by = replace(data, mean=next(by_channel), std=next(by_channel))
    logits_NC = inference.logits(network, read_by, index)
    if spec and not torch.isfinite(logits_NC).all():
        raise UserError(f"pretrain.checkpoint: the logits of {spec} are not all finite")
    predicted: Ints = torch.nan_to_num(logits_NC).argmax(dim=1).cpu().numpy()
    return predicted


def _text(values: Values) -> str:
    return ",".join(f"{float(value):g}" for value in values)


def _tried(reading: Reading) -> str:
    return f"normalisation {reading.name}{', classes reordered' if reading.order else ''}"
