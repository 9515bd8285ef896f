"""Logits table: the logits of one model on every image, with labels and splits. All scores are computed from it, without the model.

N images, C classes. Rows are sorted by image id, so a seeded draw selects the same images in every table."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lethe._util import manifest
from lethe._util.errors import UserError
from lethe._util.files import digest
from lethe.data.splits import SPLITS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

REQUIRED = ("logits", "labels", "split")  # tensors of a file; all others are columns
SWAPPED = "swapped"  # column [N, C]: logits of the model that the SWAP test compares with this one
SHADOWS = ("shadow_phi", "shadow_role")  # columns [N, K]: phi by K models unlearned on other requests, and each model's role per image
RESIDUAL, DRAWS = "residual", "residual_draws"  # columns: perturbed copies that are classified correctly [N, radii], of how many [N]
COPIES = 16  # perturbed copies per image and radius where a table has no column DRAWS
FORGOT, NEVER_SAW = 1, 2  # roles; 0: the image plays no part for that model


@dataclass(frozen=True, eq=False)
class LogitsTable:
    """Logits of one model on N images. Rows are sorted by id on construction.

    Attributes:
        name: of the run or file, for error messages.
        ids: image ids, N unique strings.
        labels: true classes, int64 [N].
        split: index into SPLITS, uint8 [N].
        logits: float32 [N, C].
        columns: further per-image values that need the model to compute, each [N, ...].
        about: string metadata, as stored in the file.

    Raises:
        UserError: lengths differ, an id repeats, a label or split is out of range, or a value is NaN or infinite; names the table.
    """

    name: str
    ids: tuple[str, ...]
    labels: Ints
    split: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    columns: Mapping[str, Array] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.logits.ndim != 2:
            raise UserError(f"{self.name}: logits have {self.logits.ndim} dimensions; expected 2 (images x classes)")
        arrays: dict[str, Array] = {"labels": self.labels, "split": self.split, "logits": self.logits, **self.columns}
        for part, array in arrays.items():
            if len(array) != len(self.ids):
                raise UserError(f"{self.name}: {len(self.ids)} ids, but {part} of {len(array)} images")
        order = np.argsort(np.array(self.ids)) if self.ids else np.arange(0)
        ids = tuple(self.ids[i] for i in order)
        repeated = next((a for a, b in pairwise(ids) if a == b), None)
        if repeated is not None:
            raise UserError(f"{self.name}: id {repeated} occurs more than once")
        parts = {"ids": ids, "labels": self.labels[order].astype(np.int64), "split": self.split[order].astype(np.uint8)}
        parts |= {"logits": np.ascontiguousarray(self.logits[order], np.float32)}
        parts |= {"columns": {name: column[order] for name, column in self.columns.items()}}
        for part, value in parts.items():
            object.__setattr__(self, part, value)
        self._check_values()

    def _check_values(self) -> None:
        wrong = ~np.isfinite(self.logits).all(axis=1)
        for column in self.columns.values():
            wrong |= ~np.isfinite(column).reshape(len(column), -1).all(axis=1)
        if wrong.any():
            first = self.ids[int(wrong.argmax())]
            raise UserError(
                f"{self.name}: NaN or infinite for {int(wrong.sum())} of {len(self.ids)} images, first {first}: the model diverged"
            )
        classes = self.logits.shape[1]
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise UserError(f"{self.name}: labels from {self.labels.min()} to {self.labels.max()}, but logits of {classes} classes")
        if len(self.split) and self.split.max() >= len(SPLITS):
            raise UserError(f"{self.name}: split {self.split.max()}; expected 0 to {len(SPLITS) - 1} ({', '.join(SPLITS)})")

    def rows(self, split: str) -> Ints:
        """Row indices [n] of the images of a split, sorted by id."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that scores depend on: ids, labels, splits, logits, columns."""
        columns = [part for name in sorted(self.columns) for part in (name, self.columns[name].tobytes())]
        arrays = (self.labels.tobytes(), self.split.tobytes(), self.logits.tobytes())
        return digest(["\n".join(self.ids), str(self.logits.shape), *arrays, *columns])

    def cached(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return a value that is computed once per table: every measure of every method asks the same of a reference.

        Args:
            key: name of the value; it must name everything that the value depends on, apart from the table.
            compute: returns the value; called only if the key is new.

        Returns:
            The value, shared by all callers.
        """
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    # --- per-image values of the true class, float64 [N] ----------------------------------------------------------------

    @cached_property
    def log_p(self) -> Floats:
        """log p_y: log softmax probability of the true class, in nats."""
        from scipy.special import logsumexp

        return np.asarray(self._true - logsumexp(self.logits.astype(np.float64), axis=1))

    @property
    def loss(self) -> Floats:
        """Cross-entropy, in nats."""
        return -self.log_p

    @cached_property
    def phi(self) -> Floats:
        """Log odds of the true class: log p_y - log(sum of the other classes' p), Carlini et al., arXiv:2112.03570, section IV.

        Computed on logits: log(1 - p) would lose all precision for confident predictions."""
        from scipy.special import logsumexp

        others = self.logits.astype(np.float64)
        others[np.arange(len(others)), self.labels] = -np.inf
        return np.asarray(self._true - logsumexp(others, axis=1))

    @cached_property
    def correct(self) -> Bools:
        """Whether the true class has the largest logit (the first of equal ones counts)."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    @cached_property
    def percent_correct(self) -> Floats:
        """100 where the prediction is correct, else 0: its mean is the accuracy in percent."""
        return np.asarray(100.0 * self.correct)

    @property
    def _true(self) -> Floats:
        return self.logits[np.arange(len(self.logits)), self.labels].astype(np.float64)

    def log_softmax(self, rows: Ints) -> Floats:
        """Log probabilities [rows, C] of the given rows, in nats."""
        from scipy.special import log_softmax

        return np.asarray(log_softmax(self.logits[rows].astype(np.float64), axis=1))


def require_same_images(first: LogitsTable, *others: LogitsTable, split: bool = True) -> None:
    """Check that all tables hold the same images, labels and number of classes, and the same splits.

    Args:
        first: the table to compare the others with.
        others: the other tables.
        split: whether the splits must be equal too.

    Raises:
        UserError: they differ; names both tables.
    """
    for other in others:
        both = f"{first.name} and {other.name} do not match"
        if first.logits.shape[1] != other.logits.shape[1]:
            raise UserError(f"{both}: {first.logits.shape[1]} and {other.logits.shape[1]} classes")
        if first.ids != other.ids:
            unshared = sorted(set(first.ids) ^ set(other.ids))
            raise UserError(f"{both}: {len(unshared)} images occur in only one of them, first {unshared[0]}")
        for what, ours, theirs in (("labels", first.labels, other.labels), ("splits", first.split, other.split)):
            if (what == "labels" or split) and (ours != theirs).any():
                at = int((ours != theirs).argmax())
                number = int((ours != theirs).sum())
                raise UserError(f"{both}: {what} differ for {number} images, first {first.ids[at]} ({ours[at]} and {theirs[at]})")


def class_weights(forget: Ints, held_out: Ints) -> Floats:
    """Weights that give held-out images the class histogram of the forget set.

    One rule for every request: whether some class is absent from the forget set does not matter, so one stray image of a class can't
    change what the others are compared with. For a random request all weights are near 1.

    Args:
        forget: labels of the forget set.
        held_out: labels of the held-out images, [n].

    Returns:
        [n], mean 1; 0 for classes that the forget set does not contain. All 1 if the two have no class in common.
    """
    size = int(max(forget.max(initial=0), held_out.max(initial=0))) + 1
    wanted, available = (np.bincount(labels, minlength=size) for labels in (forget, held_out))
    ratio = (wanted / np.maximum(available, 1))[held_out]
    return np.asarray(ratio / ratio.mean() if ratio.any() else np.ones(len(held_out)))


# --- files ------------------------------------------------------------------------------------------------------------


def write(table: LogitsTable, path: Path) -> None:
    """Write one safetensors file: arrays and columns as tensors; `about` and the ids (a JSON list) as metadata.

    Args:
        table: the table; its name is not stored.
        path: the file; its folder is created.

    Raises:
        RunFailed: the file can't be written; names it.
    """
    import torch

    from lethe.models import checkpoint

    arrays = {"logits": table.logits, "labels": table.labels, "split": table.split, **table.columns}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    checkpoint.save(tensors, path, {**table.about, "ids": json.dumps(table.ids)})


def read(path: Path, name: str = "") -> LogitsTable:
    """Read a logits table from a safetensors file.

    Args:
        path: the file, as `write` makes it.
        name: the table's name, for error messages; the path if empty.

    Returns:
        The table, with its rows sorted by id.

    Raises:
        UserError: the file is missing, truncated, not a logits table, or contains a NaN; names it.
    """
    from lethe.models import checkpoint

    tensors, about = checkpoint.load(path)
    lacks = [part for part in REQUIRED if part not in tensors] + [part for part in ("ids",) if part not in about]
    if lacks:
        raise manifest.unreadable(path, f"lacks {', '.join(lacks)}: a logits table holds {', '.join(REQUIRED)} and, in its metadata, ids")
    arrays = {part: tensor.numpy() for part, tensor in tensors.items()}
    try:
        ids = tuple(json.loads(about.pop("ids")))
    except ValueError as error:
        raise manifest.unreadable(path, f"is no logits table: its ids are not a JSON list: {error}") from None
    columns = {part: array for part, array in arrays.items() if part not in REQUIRED}
    return LogitsTable(name or str(path), ids, arrays["labels"], arrays["split"], arrays["logits"], columns, about)
