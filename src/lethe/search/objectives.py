"""The objectives of a search, computed from logits, and a workspace without its test split."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import Module, functional

from lethe.data.device_data import Data
from lethe.data.pixel_store import take
from lethe.engine.epoch_table import MEASURED
from lethe.engine.options import Evaluate
from lethe.evaluation import inference, metrics, reference, uncertainty
from lethe.evaluation.logits_table import class_weights
from lethe.evaluation.roc import Roc
from lethe.search.pareto import Point
from lethe.workspace.workspace import Prepared

Measurements = Mapping[str, float]
Sizes = Mapping[str, int]  # split -> number of images; DELETED: of how many validation images
DELETED = "validation of deleted classes"  # images of classes of which retain has none
# Measured at a trial's end: the 95 % interval of forget.auc, bootstrapped over images, and accuracy on validation, weighted to forget's
# class histogram
AUC_ENDS = ("forget.auc.low", "forget.auc.high")
UNSEEN = "unseen.accuracy"
CHANCE = 0.5


@dataclass(frozen=True)
class Objective:
    """A pair of objectives.

    Attributes:
        names: What the two are called on figures and in Optuna.
        labels: Short names, for numbers in messages.
        splits: The splits that are measured for it.
        oracle: Whether it needs the retrained model.
        worst: The first objective at the hypervolume's reference point; None: that of the original model.
        point: Computes (unlearning, utility) from the measurements of a model and of the retrained model.
        note: A sentence for the description of an MLflow run.
        unseen: Tests whether a model can't be told from one that never saw the forget images: from its measurements, those of the
            retrained model, and the numbers of images.
        within: What `unseen` tests, for messages.
        distance: How far a model is from that, 0 at best, where `unseen` holds for no trial.
        cost: Of the models that `unseen` holds for the one with the least is best: from its measurements and the original's.
        best: What has the least cost, for messages.
    """

    names: tuple[str, str]
    labels: tuple[str, str]
    splits: tuple[str, ...]
    oracle: bool
    worst: float | None
    point: Callable[[Measurements, Measurements], Point]
    note: str
    unseen: Callable[[Measurements, Measurements, Sizes], bool]
    within: str
    distance: Callable[[Measurements, Measurements], float]
    cost: Callable[[Measurements, Measurements], float]
    best: str

    def describe(self, point: Sequence[float]) -> str:
        """Format (unlearning, utility) with their labels.

        >>> OBJECTIVES["report"].describe((93.25, 98.0))
        'forget accuracy 93.25, retain accuracy 98'
        """
        return ", ".join(f"{label} {value:.4g}" for label, value in zip(self.labels, point, strict=True))

    def rank(self, measured: Measurements, retrained: Measurements, images: Sizes, original: Measurements) -> tuple[float, ...]:
        """Key by which the best of several models is the least.

        Forgetting comes first, within its interval: a smaller distance than chance allows is luck. Among the models that pass, those that
        keep retain as a retrained model does come before the others, then the least `cost` wins; where none passes, the
        least distance. A model that lost more of validation than retraining can cost (`is_ruined`) is behind all others, for one that
        knows nothing any more can't be told from one that never saw the forget images.

        Args:
            measured: of the model.
            retrained: of the retrained model; empty if the objective needs none.
            images: numbers of images by split.
            original: of the original model.

        Returns:
            (ruined, can be told from unseen, has lost retain, cost, -utility, distance) of a model that can't be told; -utility in place of
            the cost of one that is ruined; of one that can be told, distance and -utility in place of the last four.
        """
        if is_ruined(measured, original, images):
            return True, True, True, -measured["utility"], self.distance(measured, retrained)
        if not self.unseen(measured, retrained, images):
            return False, True, self.distance(measured, retrained), -measured["utility"]
        lost, distance = _has_lost_retain(measured, original, images), self.distance(measured, retrained)
        return False, False, lost, self.cost(measured, original), -measured["utility"], distance


def is_ruined(measured: Measurements, original: Measurements, images: Sizes) -> bool:
    """Test whether a model lost more of validation than retraining can cost: what a retrained model must keep to be a reference
    (`reference.shortfall`). So the floor is as low as the request demands, and needs no retrained model.

    A retrained model knows no image of a class that is deleted whole, so those of validation count neither for the utility that is measured
    (`evaluator`) nor, here, for what chance may do.

    Args:
        measured: of the model.
        original: of the original model.
        images: numbers of images by split.

    Returns:
        True if the error on validation is larger than that of a retrained model may be, and by more than chance.
    """
    return reference.loses_validation(*_as_trained(measured, original, images))


def _has_lost_retain(measured: Measurements, original: Measurements, images: Sizes) -> bool:
    return reference.loses_retain(*_as_trained(measured, original, images))


def _as_trained(measured: Measurements, original: Measurements, images: Sizes) -> tuple[reference.TrainedModel, reference.TrainedModel]:
    kept = images["validation"] - images.get(DELETED, 0)
    known = {split: original[f"{split}.accuracy"] for split in ("retain", "forget")}
    whole = reference.trained_on_all(known, {**images, "validation": kept}, original["utility"])
    return whole, reference.TrainedModel(measured["retain.accuracy"], images["retain"], measured["utility"], kept)


def expected_gap(measured: Measurements, original: Measurements) -> float:
    """Estimate how far a model is from a retrained one, with none in view (docs/search.md).

    The mean of four distances from what a retrained model is expected to be: it knows retain as well as the original does, forget as well
    as validation images of forget's classes, and validation not worse than the original; and its losses don't tell forget from them.
    Retrained models differ from it by what forget is harder than validation by chance, and by what fewer training images cost.

    Args:
        measured: of the model.
        original: of the original model.

    Returns:
        Points, on the scale of `avg_gap.svc`.
    """
    unseen = measured.get(UNSEEN, measured["validation.accuracy"])  # trials of earlier versions lack UNSEEN
    retain = abs(measured["retain.accuracy"] - original["retain.accuracy"])
    lost = max(0.0, original["utility"] - measured["utility"])
    return (retain + abs(measured["forget.accuracy"] - unseen) + lost + 100 * abs(measured["forget.auc"] - CHANCE)) / 4


def sizes(selection: Data) -> Sizes:
    """Count the images that trials see.

    Args:
        selection: their data (`Data.for_selection`).

    Returns:
        Numbers of images by split, and DELETED where there are such and others.
    """
    count = {split: len(selection.splits[split]) for split in MEASURED}
    retain, validation = (selection.labels_N[selection.splits[split]] for split in ("retain", "validation"))
    deleted = int((~torch.isin(validation, retain)).sum())
    return count | ({DELETED: deleted} if 0 < deleted < count["validation"] else {})  # where it is all, utility is measured on all


def _oracle_free(measured: Measurements, retrained: Measurements) -> Point:
    return abs(measured["forget.auc"] - CHANCE), measured["utility"]


def _oracle(measured: Measurements, retrained: Measurements) -> Point:
    distances = [abs(measured[f"{split}.accuracy"] - retrained[f"{split}.accuracy"]) for split in MEASURED]
    return sum(distances) / len(distances), measured["utility"]


def _report(measured: Measurements, retrained: Measurements) -> Point:
    return measured["forget.accuracy"], measured["retain.accuracy"]


def _at_chance(measured: Measurements, retrained: Measurements, images: Sizes) -> bool:
    """Whether the interval of the AUC contains chance. Trials of earlier versions have none: then by the variance that the AUC has at
    chance (Mann and Whitney 1947)."""
    if AUC_ENDS[0] in measured:
        return measured[AUC_ENDS[0]] <= CHANCE <= measured[AUC_ENDS[1]]
    forget, validation = images["forget"], images["validation"]
    return abs(measured["forget.auc"] - CHANCE) <= 1.96 * math.sqrt((forget + validation + 1) / (12 * forget * validation))


def _as_retrained(measured: Measurements, retrained: Measurements, images: Sizes) -> bool:
    """Whether each distance is within the interval of a difference of two accuracies of so many images. The interval is that of two
    independent samples: the images are the same, which narrows it, but another seed alone moves accuracies, too."""
    pairs = {split: [(each[f"{split}.accuracy"], images[split]) for each in (measured, retrained)] for split in MEASURED}
    return all(abs(ours[0] - theirs[0]) <= uncertainty.margin_of_error(ours, theirs) for ours, theirs in pairs.values())


def _from_chance(measured: Measurements, retrained: Measurements) -> float:
    return _oracle_free(measured, retrained)[0]


def _from_retrained(measured: Measurements, retrained: Measurements) -> float:
    return _oracle(measured, retrained)[0]


def _uselessness(measured: Measurements, original: Measurements) -> float:
    return -measured["utility"]


_CHANCE_WITHIN = "the 95 % interval of the AUC contains 0.5"
_NEAREST = "the least expected gap to a retrained model"


OBJECTIVES = {
    "oracle_free": Objective(
        ("|AUC - 0.5| of forget's loss against validation's", "validation accuracy"),
        ("|AUC - 0.5|", "validation accuracy"),
        ("forget", "validation"),
        False,
        0.5,
        _oracle_free,
        "No retrained model is needed: the losses on forget should be distributed like those on validation.",
        _at_chance,
        _CHANCE_WITHIN,
        _from_chance,
        expected_gap,
        _NEAREST,
    ),
    "oracle": Objective(
        ("mean |distance to retrained|", "validation accuracy"),
        ("mean distance", "validation accuracy"),
        MEASURED,
        True,
        None,
        _oracle,
        "Tuned on the retrained model's accuracies on retain, forget and validation.",
        _as_retrained,
        "each of the three distances to the retrained model is within the 95 % interval of a difference",
        _from_retrained,
        _uselessness,
        "the highest validation accuracy",
    ),
    "report": Objective(
        ("forget accuracy", "retain accuracy"),
        ("forget accuracy", "retain accuracy"),
        MEASURED,
        False,
        None,
        _report,
        "The report's own objectives. **Over-forgets by construction**: a retrained model classifies most of forget correctly.",
        _at_chance,
        _CHANCE_WITHIN,
        _from_chance,
        expected_gap,
        _NEAREST,
    ),
}


def evaluator(data: Data, splits: Sequence[str], autocast: Any, intervals: bool = False) -> Evaluate:
    """Make the function that measures a model during a search.

    It returns `<split>.accuracy` (percent) and `<split>.loss` (nats) of each split; `gap` (retain minus forget accuracy) where both
    are measured; `forget.auc`, how well a low loss separates forget from validation (0.5: not at all); and `utility`, the validation
    accuracy on the classes that retain still contains.

    For `forget.auc`, validation is weighted to forget's class histogram.

    Args:
        data: Images and splits on the device.
        splits: The splits to measure; forget and validation are among them.
        autocast: Makes the context of the forward pass, as `Compute.autocast`.
        intervals: Whether to measure what is measured at a trial's end, too (AUC_ENDS, UNSEEN).

    Returns:
        `(model, data) -> measurements`, as the engine takes it.
    """
    from sklearn.metrics import roc_auc_score

    index_N = torch.cat([data.splits[name] for name in splits])
    sizes = [len(data.splits[name]) for name in splits]
    labels = dict(zip(splits, data.labels_N[index_N].split(sizes), strict=True))
    useful_N = torch.isin(labels["validation"], data.labels_N[data.splits["retain"]])
    forget, validation = (labels[name].cpu().numpy() for name in ("forget", "validation"))
    member = np.concatenate([np.ones(len(forget)), np.zeros(len(validation))])
    weight = np.concatenate([np.ones(len(forget)), class_weights(forget, validation)])

    def evaluate(model: Module, source: Data = data) -> dict[str, float]:
        tables = dict(zip(splits, inference.logits(model, source, index_N, autocast).split(sizes), strict=True))
        measured: dict[str, float] = {}
        for name, logits_NC in tables.items():
            measured[f"{name}.accuracy"] = metrics.accuracy(logits_NC, labels[name])
            measured[f"{name}.loss"] = metrics.cross_entropy(logits_NC, labels[name])
        if "retain" in tables:
            measured["gap"] = measured["retain.accuracy"] - measured["forget.accuracy"]
        if all(map(math.isfinite, measured.values())):  # otherwise the engine raises Diverged
            loss = [functional.cross_entropy(tables[n].double(), labels[n], reduction="none") for n in ("forget", "validation")]
            score = -torch.cat(loss).cpu().numpy()
            measured["forget.auc"] = float(roc_auc_score(member, score, sample_weight=weight))
            if intervals:
                same = np.flatnonzero((member == 0) & (weight > 0))
                roc = Roc(score[member == 1], score[same], weight[same])
                measured |= dict(zip(AUC_ENDS, roc.estimates(uncertainty.bootstrap)["auc"].ends(), strict=True))
                correct = (tables["validation"].argmax(1) == labels["validation"]).cpu().numpy()
                measured[UNSEEN] = 100 * float(np.average(correct, weights=weight[len(forget) :]))
            kept = tables["validation"][useful_N], labels["validation"][useful_N]
            measured["utility"] = metrics.accuracy(*kept) if len(kept[1]) else measured["validation.accuracy"]
        return measured

    return evaluate


def without_test(prepared: Prepared) -> Prepared:
    """Copy a workspace's data without any image, label or index of the test split; hashes and device stay those of the whole."""
    test = np.zeros(len(prepared.images.ids), bool)
    test[prepared.splits["test"]] = True
    position = np.cumsum(~test) - 1
    whole = prepared.images
    images = replace(
        whole,
        pixels=take(whole.pixels, np.flatnonzero(~test), prepared.layout.data),
        labels=whole.labels[~test],
        ids=tuple(id_ for id_, hidden in zip(whole.ids, test, strict=True) if not hidden),
        held_out=whole.held_out - int(test.sum()),
    )
    splits = {name: position[index] for name, index in prepared.splits.items() if name != "test"}
    blind = Prepared(prepared.config, images, splits)
    vars(blind).update(hashes=prepared.hashes, compute=prepared.compute)  # cached properties
    return blind
