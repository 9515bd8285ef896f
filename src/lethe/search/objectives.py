"""What a search wants: two objectives, read from a model's logits; and a workspace in which the test split is not."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import Module, functional

from lethe.data.device_data import Data
from lethe.engine.observers import MEASURED
from lethe.engine.options import Evaluate
from lethe.evaluation import inference as predict
from lethe.evaluation import metrics
from lethe.evaluation.logits_table import like
from lethe.search.pareto import Point
from lethe.workspace.workspace import Prepared

Measured = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """Names of the two objectives, the splits they read, whether they need the retrained model, and how to get them.

    `worst`: the first at the corner of the hypervolume; None: the original's."""

    names: tuple[str, str]
    splits: tuple[str, ...]
    oracle: bool
    worst: float | None
    point: Callable[[Measured, Measured], Point]
    note: str


def _oracle_free(measured: Measured, retrained: Measured) -> Point:
    return abs(measured["forget.auc"] - 0.5), measured["utility"]


def _oracle(measured: Measured, retrained: Measured) -> Point:
    apart = [abs(measured[f"{split}.accuracy"] - retrained[f"{split}.accuracy"]) for split in MEASURED]
    return sum(apart) / len(apart), measured["utility"]


def _report(measured: Measured, retrained: Measured) -> Point:
    return measured["forget.accuracy"], measured["retain.accuracy"]


OBJECTIVES = {
    "oracle_free": Objective(
        ("|AUC - 0.5| of forget's loss against validation's", "validation accuracy"),
        ("forget", "validation"),
        False,
        0.5,
        _oracle_free,
        "No retrained model is needed: the losses on forget should be spread as those on validation.",
    ),
    "oracle": Objective(
        ("mean |distance to retrained|", "validation accuracy"),
        MEASURED,
        True,
        None,
        _oracle,
        "Tuned on the retrained model's accuracies on retain, forget and validation.",
    ),
    "report": Objective(
        ("forget accuracy", "retain accuracy"),
        MEASURED,
        False,
        None,
        _report,
        "The report's own wish. **Over-forgets by construction**: a retrained model classifies most of forget correctly.",
    ),
}


def evaluator(data: Data, splits: Sequence[str], autocast: Any) -> Evaluate:
    """`<split>.accuracy`, `<split>.loss`; `forget.auc`: how well a low loss tells forget from validation (0.5: not at all);
    `utility`: validation accuracy on the classes that retain still holds.

    Where forget lacks a class of validation's (a class was asked to be forgotten), validation is weighted to forget's classes."""
    from sklearn.metrics import roc_auc_score

    index_N = torch.cat([data.splits[name] for name in splits])
    sizes = [len(data.splits[name]) for name in splits]
    labels = dict(zip(splits, data.labels_N[index_N].split(sizes), strict=True))
    useful_N = torch.isin(labels["validation"], data.labels_N[data.splits["retain"]])
    forget, validation = (labels[name].cpu().numpy() for name in ("forget", "validation"))
    weights = like(forget, validation)
    member = np.concatenate([np.ones(len(forget)), np.zeros(len(validation))])
    weight = np.concatenate([np.ones(len(forget)), weights])

    def evaluate(model: Module, source: Data = data) -> dict[str, float]:
        tables = dict(zip(splits, predict.logits(model, source, index_N, autocast).split(sizes), strict=True))
        measured: dict[str, float] = {}
        for name, logits_NC in tables.items():
            measured[f"{name}.accuracy"] = metrics.accuracy(logits_NC, labels[name])
            measured[f"{name}.loss"] = metrics.cross_entropy(logits_NC, labels[name])
        if "retain" in tables:
            measured["gap"] = measured["retain.accuracy"] - measured["forget.accuracy"]
        if all(map(math.isfinite, measured.values())):  # else the engine says so
            loss = [functional.cross_entropy(tables[n].double(), labels[n], reduction="none") for n in ("forget", "validation")]
            measured["forget.auc"] = float(roc_auc_score(member, -torch.cat(loss).cpu().numpy(), sample_weight=weight))
            kept = tables["validation"][useful_N], labels["validation"][useful_N]
            measured["utility"] = metrics.accuracy(*kept) if len(kept[1]) else measured["validation.accuracy"]
        return measured

    return evaluate


def without_test(prepared: Prepared) -> Prepared:
    """The same with no image, label or index of the test split in it; hashes and device are those of the whole."""
    test = np.zeros(len(prepared.images.ids), bool)
    test[prepared.splits["test"]] = True
    place = np.cumsum(~test) - 1
    whole = prepared.images
    images = replace(
        whole,
        pixels=whole.pixels[~test],
        labels=whole.labels[~test],
        ids=tuple(id_ for id_, hidden in zip(whole.ids, test, strict=True) if not hidden),
        held_out=whole.held_out - int(test.sum()),
    )
    splits = {name: place[index] for name, index in prepared.splits.items() if name != "test"}
    blind = Prepared(prepared.config, images, splits)
    vars(blind).update(hashes=prepared.hashes, compute=prepared.compute)  # cached properties
    return blind
