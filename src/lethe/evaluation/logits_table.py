"""Logits table: the logits of one model on every image, with labels and splits. All scores are computed from it, without the model.

N images, C classes. Rows are sorted by image id, so a seeded draw selects the same images in every table. The logits of a large table stay
in its file; what is computed from them is computed a block of rows at a time (`row_blocks`)."""

import json
import struct
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
from lethe.evaluation import row_blocks

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
        if not all(a < b for a, b in pairwise(self.ids)):  # tables that were written are sorted: they need no copy
            self._sort()
        kinds = {"labels": self.labels.astype(np.int64), "split": self.split.astype(np.uint8)}
        for part, value in {**kinds, "logits": np.ascontiguousarray(self.logits, np.float32)}.items():
            object.__setattr__(self, part, value)
        self._check_values()

    def _sort(self) -> None:
        order = np.argsort(np.array(self.ids))
        ids = tuple(self.ids[i] for i in order)
        repeated = next((a for a, b in pairwise(ids) if a == b), None)
        if repeated is not None:
            raise UserError(f"{self.name}: id {repeated} occurs more than once")
        sorted_ = {"ids": ids, "labels": self.labels[order], "split": self.split[order], "logits": self.logits[order]}
        for part, value in {**sorted_, "columns": {name: column[order] for name, column in self.columns.items()}}.items():
            object.__setattr__(self, part, value)

    def _check_values(self) -> None:
        wrong = ~row_blocks.finite(self.logits)
        for column in self.columns.values():
            wrong |= ~row_blocks.finite(column)
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
        columns = [part for name in sorted(self.columns) for part in (name, row_blocks.as_pieces(self.columns[name]))]
        own: tuple[Array, ...] = (self.labels, self.split, self.logits)
        arrays = map(row_blocks.as_pieces, own)
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

        def log_p(logits_BC: Array, labels_B: Ints) -> Floats:
            all_BC = logits_BC.astype(np.float64)
            return np.asarray(_of(all_BC, labels_B) - logsumexp(all_BC, axis=1))

        return self._of_each_image(log_p)

    @property
    def loss(self) -> Floats:
        """Cross-entropy, in nats."""
        return -self.log_p

    @cached_property
    def phi(self) -> Floats:
        """Log odds of the true class: log p_y - log(sum of the other classes' p), Carlini et al., arXiv:2112.03570, section IV.

        Computed on logits: log(1 - p) would lose all precision for confident predictions."""
        from scipy.special import logsumexp

        def phi(logits_BC: Array, labels_B: Ints) -> Floats:
            others_BC = logits_BC.astype(np.float64)
            true_B = _of(others_BC, labels_B)
            others_BC[np.arange(len(others_BC)), labels_B] = -np.inf
            return np.asarray(true_B - logsumexp(others_BC, axis=1))

        return self._of_each_image(phi)

    @cached_property
    def correct(self) -> Bools:
        """Whether the true class has the largest logit (the first of equal ones counts)."""
        return self._of_each_image(lambda logits_BC, labels_B: logits_BC.argmax(axis=1) == labels_B)

    @cached_property
    def percent_correct(self) -> Floats:
        """100 where the prediction is correct, else 0: its mean is the accuracy in percent."""
        return np.asarray(100.0 * self.correct)

    def _of_each_image(self, compute: Callable[[Array, Ints], Array]) -> Array:
        """Values [N] of images, from some of their logits [B, C] and labels [B] at a time."""
        return np.concatenate([compute(self.logits[part], self.labels[part]) for part in row_blocks.blocks(self.logits)])

    def log_softmax(self, rows: Ints) -> Floats:
        """Log probabilities [rows, C] of the given rows, in nats: of many with many classes for some at a time (`row_blocks.over`)."""
        from scipy.special import log_softmax

        return np.asarray(log_softmax(row_blocks.gather(self.logits, rows).astype(np.float64), axis=1))


def _of(values_BC: Floats, labels_B: Ints) -> Floats:
    """The value of each row's label, [B]."""
    return values_BC[np.arange(len(values_BC)), labels_B]


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
    arrays: dict[str, Array] = {"logits": table.logits, "labels": table.labels, "split": table.split, **table.columns}
    row_blocks.write(arrays, path, {**table.about, "ids": json.dumps(table.ids)})


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
    arrays, about = _stored(path)
    lacks = [part for part in REQUIRED if part not in arrays] + [part for part in ("ids",) if part not in about]
    if lacks:
        raise manifest.unreadable(path, f"lacks {', '.join(lacks)}: a logits table holds {', '.join(REQUIRED)} and, in its metadata, ids")
    try:
        ids = tuple(json.loads(about.pop("ids")))
    except ValueError as error:
        raise manifest.unreadable(path, f"is no logits table: its ids are not a JSON list: {error}") from None
    columns = {part: array for part, array in arrays.items() if part not in REQUIRED}
    return LogitsTable(name or str(path), ids, arrays["labels"], arrays["split"], arrays["logits"], columns, about)


def _stored(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a file; where it is large, its arrays stay in it."""
    from safetensors import SafetensorError

    from lethe.models import checkpoint

    if not path.exists() or path.stat().st_size <= row_blocks.IN_MEMORY:
        tensors, about = checkpoint.load(path)
        return {part: tensor.numpy() for part, tensor in tensors.items()}, about
    try:
        return row_blocks.read(path)
    except (SafetensorError, OSError, ValueError, KeyError, struct.error) as error:
        raise manifest.unreadable(path, f"can't be read as safetensors: {error}") from None
