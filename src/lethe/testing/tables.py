"""Synthetic logits tables: phi, the log odds of the true class, is drawn, and logits are constructed to have it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lethe.data.splits import SPLITS
from lethe.evaluation import catalogue, registry
from lethe.evaluation.logits_table import Array, LogitsTable
from lethe.workspace.run_names import RunId

CLASSES = 4
SIZES = (240, 200, 200, 200)  # retain, forget, validation, test


def of_phi(
    phi: Array, name: str = "made", sizes: Sequence[int] = SIZES, labels: Array | None = None, classes: int = CLASSES
) -> LogitsTable:
    """Construct a logits table: the true class' logit is phi plus the log of the number of others, theirs are 0.

    Args:
        phi: log odds of the true class [N], in the order of the splits.
        name: of the model.
        sizes: images of retain, forget, validation and test; N in sum.
        labels: int64 [N]; None: the classes in turn.
        classes: their number.

    Returns:
        The table, without further columns.
    """
    split = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), sizes)
    labels = np.arange(len(phi)) % classes if labels is None else labels
    logits = np.zeros((len(phi), classes), np.float32)
    logits[np.arange(len(phi)), labels] = np.asarray(phi) + np.log(classes - 1)
    return LogitsTable(name, tuple(f"image/{n:05d}" for n in range(len(phi))), labels, split, logits)


def drawn(seed: int, leak: float = 0.0, name: str = "made", sizes: Sequence[int] = SIZES) -> LogitsTable:
    """Draw a model that learned retain (phi 3 higher than unseen images'); some images are harder than others, the same for every seed.

    Args:
        seed: of the model's own noise.
        leak: what phi gains on forget.
        name: of the model.
        sizes: images of the splits.

    Returns:
        Its logits table.
    """
    hard = np.random.default_rng(0).normal(0.0, 1.5, sum(sizes))
    learned = np.repeat([3.0, leak, 0.0, 0.0], sizes)
    return of_phi(hard + learned + np.random.default_rng(seed + 1).normal(0.0, 1.0, sum(sizes)), name, sizes)


def bank(models: int, leak: float = 0.0, first: int = 100, name: str = "retrained") -> list[LogitsTable]:
    """Draw several models.

    Args:
        models: their number.
        leak: as `drawn` takes it.
        first: the first one's seed.
        name: of their runs.

    Returns:
        Their logits tables.
    """
    return [drawn(first + number, leak, str(RunId(name, number))) for number in range(models)]


def lower_tiers(patch: pytest.MonkeyPatch, second: int, third: int) -> None:
    """Let banks of a few models reach tiers 2 and 3.

    Args:
        patch: undoes it.
        second: models of tier 2, in place of 8.
        third: models of tier 3, in place of 64.
    """
    fewer = {8: second, 64: third}
    measures = [replace(each, min_references=fewer.get(each.min_references, each.min_references)) for each in catalogue.all_measures()]
    patch.setattr(registry, "_REGISTERED", {each.id: each for each in measures})
    patch.setattr(registry, "TIERS", {0: 0, 1: 1, 2: second, 3: third})
