"""Whether a retrained model can be the reference that every other model is compared with.

A retrained model is a reference because it is what the original would be without the forget images. One that did not learn its own training
images is something else: the distance of a method from it shows how badly it was trained, and not whether anything was forgotten."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.uncertainty import margin_of_error

# Points that a retrained model may know its training images less well than the original knows its own. The averages of gaps that methods
# are ranked by are of one to ten points, so a reference that is off by five on retain alone decides them. Models of one recipe that were
# trained to the end differ by far less (docs/log.md, banks of digits with 100 retain images): by 1 point at most in 10,240 pairs after 18
# epochs, by 3 in 1,024 pairs after 10; after 6, when training is not finished, the median of the differences is 5.
RETAIN_LIMIT = 5.0
# The same for unseen images, after what training on fewer images costs
VALIDATION_LIMIT = 10.0


@dataclass(frozen=True)
class TrainedModel:
    """What a model knows of the images it was trained on, and of unseen ones.

    Attributes:
        own: accuracy on its training images, in percent: retain and forget of an original, retain of a retrained model.
        images: number of its training images.
        unseen: accuracy on validation images of the classes that retain holds, in percent; None without such images.
        unseen_images: number of these.
    """

    own: float
    images: int
    unseen: float | None = None
    unseen_images: int = 0


def shortfall(original: TrainedModel, retrained: TrainedModel) -> str:
    """Describe in what a retrained model falls short of what the original would be without the forget images.

    The rule: its accuracy on retain is not more than RETAIN_LIMIT points below the original's on its own training images; and its error
    on validation is not more than VALIDATION_LIMIT points above the original's times sqrt(n / m), for n training images of the original and
    m of its own. Error falls with the number of images as a power law whose exponent is at most 1/2 (Hestness et al., arXiv:1712.00409), so
    the root is the most that the missing images can cost. A difference within chance (95 %, Agresti and Caffo) never counts.

    Args:
        original: the model before unlearning.
        retrained: the candidate; for several models of one recipe their mean.

    Returns:
        The two accuracies in words; "" where the model can be the reference.
    """
    if loses_retain(original, retrained):
        return f"{retrained.own:.1f} % of retain right, where the original gets {original.own:.1f} % of its training images"
    if loses_validation(original, retrained):
        return f"{retrained.unseen:.1f} % of validation right, where the original gets {original.unseen:.1f} %"
    return ""


def loses_retain(original: TrainedModel, retrained: TrainedModel) -> bool:
    """Whether a model knows its training images less well than a retrained model can (the first half of the rule of `shortfall`).

    Args:
        original: the model before unlearning.
        retrained: the candidate.

    Returns:
        True if its accuracy on them is lower by more than RETAIN_LIMIT points, and by more than chance.
    """
    lost = original.own - retrained.own
    return lost > max(RETAIN_LIMIT, margin_of_error((original.own, original.images), (retrained.own, retrained.images)))


def loses_validation(original: TrainedModel, retrained: TrainedModel) -> bool:
    """Whether a model knows unseen images less well than a retrained model can (the second half of the rule of `shortfall`).

    Args:
        original: the model before unlearning.
        retrained: the candidate.

    Returns:
        False where there are no unseen images.
    """
    if original.unseen is None or retrained.unseen is None:
        return False
    fewer = math.sqrt(max(1.0, original.images / retrained.images))
    lost = (100 - retrained.unseen) - fewer * (100 - original.unseen)
    # the original's error is multiplied, and so is what chance is in it
    chance = (
        fewer * margin_of_error((original.unseen, original.unseen_images)),
        margin_of_error((retrained.unseen, retrained.unseen_images)),
    )
    return lost > max(VALIDATION_LIMIT, math.hypot(*chance))


def clearly_fit(original: TrainedModel, retrained: TrainedModel) -> bool:
    """Whether samples of images leave little doubt that all of them show no `shortfall`, whatever missing images may cost.

    Args:
        original: the model before unlearning, on samples of its training images and of validation.
        retrained: the candidate, the same.

    Returns:
        True if what it loses, and the margin of error of a 95 % interval more, is within both limits: by chance of one model in thirty that
        is at one limit, of hardly any that is far beyond it. Never without training images.
    """
    if not original.images or not retrained.images:
        return False
    pairs = [((original.own, original.images), (retrained.own, retrained.images), RETAIN_LIMIT)]
    if original.unseen is not None and retrained.unseen is not None:
        pairs.append(((original.unseen, original.unseen_images), (retrained.unseen, retrained.unseen_images), VALIDATION_LIMIT))
    return all(ours[0] - theirs[0] + margin_of_error(ours, theirs) <= limit for ours, theirs, limit in pairs)


def retain_shortfall(original: Mapping[str, float], retrained: Mapping[str, float], sizes: Mapping[str, int]) -> str:
    """Judge a retrained model by what it knows of its training images alone, where there are no logits tables.

    Args:
        original: accuracies of the original in percent, by split (retain, forget).
        retrained: accuracies of the retrained model in percent, by split (retain).
        sizes: numbers of images by split.

    Returns:
        As `shortfall`.
    """
    return shortfall(trained_on_all(original, sizes), TrainedModel(retrained["retain"], sizes["retain"]))


def trained_on_all(accuracy: Mapping[str, float], sizes: Mapping[str, int], unseen: float | None = None) -> TrainedModel:
    """Summarise an original from its accuracies.

    Args:
        accuracy: in percent, by split (retain, forget).
        sizes: numbers of images by split.
        unseen: its accuracy on validation images of the classes that retain holds, in percent; None: not known.

    Returns:
        Its accuracy over retain and forget together, each image counted once, with their number and that of validation.
    """
    retain, forget = sizes["retain"], sizes["forget"]
    own = (retain * accuracy["retain"] + forget * accuracy["forget"]) / (retain + forget)
    return TrainedModel(own, retain + forget, unseen, sizes.get("validation", 0))


def unfit(original: LogitsTable, references: Sequence[LogitsTable]) -> str:
    """Judge retrained models of one recipe by their mean accuracies.

    Args:
        original: logits table of the model before unlearning.
        references: logits tables of the retrained models, of the same images.

    Returns:
        In what they fall short (see `shortfall`); "" where they can be the reference, and without a model.
    """
    return shortfall(trained("original", original), trained("retrained", *references)) if references else ""


def trained(kind: str, *tables: LogitsTable) -> TrainedModel:
    """Summarise what models know of their training images and of validation, as means over the models.

    Args:
        kind: `original` or `retrained`.
        *tables: logits tables of one or more models, of the same images.

    Returns:
        Accuracies in percent, with the number of images of each; None for unseen images where there are none of retain's classes.
    """
    first = tables[0]
    retain, forget, validation = (first.rows(split) for split in ("retain", "forget", "validation"))
    own = retain if kind == "retrained" else np.concatenate([retain, forget])
    unseen = validation[np.isin(first.labels[validation], first.labels[retain])]  # a deleted class is lost by every retrained model
    on_own, on_unseen = ([float(table.percent_correct[rows].mean()) for table in tables] if len(rows) else [] for rows in (own, unseen))
    return TrainedModel(float(np.mean(on_own)) if on_own else 0.0, len(own), float(np.mean(on_unseen)) if on_unseen else None, len(unseen))
