"""A logits table: what a model says of every image. The one artefact of a model, and all that its scores are made from.

N images, C classes. Rows stand in the order of their ids, whoever made the table: so draws among them are the same for all tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lethe._util.errors import UserError
from lethe._util.files import digest
from lethe.data.splits import SPLITS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

OWN = ("logits", "labels", "split")  # the other tensors of a file are columns
SWAPPED = "swapped"  # column [N, C]: logits of the model that SWAP holds this one against
SHADOWS = ("shadow_phi", "shadow_role")  # columns [N, K]: phi by K models unlearned on other requests; what each had to do with an image
FORGOT, NEVER_SAW = 1, 2  # roles; 0: the image is no matter of theirs


@dataclass(frozen=True, eq=False)
class LogitsTable:
    """logits float32 [N, C], labels int64 [N], split uint8 [N] (its number in SPLITS), ids; sorted by id when it is made.

    `columns`: what only a model can tell of an image beside its logits, [N, ...]; `about`: strings, as a file's metadata;
    `name`: of the run or file, for errors. Raises UserError, naming it, when parts do not fit or a logit is NaN or infinite."""

    name: str
    ids: tuple[str, ...]
    labels: Ints
    split: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    columns: Mapping[str, Array] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)  # what was worked out of this table and is asked again

    def __post_init__(self) -> None:
        if self.logits.ndim != 2:
            raise UserError(f"{self.name}: logits have {self.logits.ndim} dimensions; a table has images x classes")
        arrays: dict[str, Array] = {"labels": self.labels, "split": self.split, "logits": self.logits, **self.columns}
        for part, array in arrays.items():
            if len(array) != len(self.ids):
                raise UserError(f"{self.name}: {len(self.ids)} ids, but {part} of {len(array)} images")
        order = np.argsort(np.array(self.ids)) if self.ids else np.arange(0)
        ids = tuple(self.ids[i] for i in order)
        twice = next((a for a, b in pairwise(ids) if a == b), None)
        if twice is not None:
            raise UserError(f"{self.name}: {twice} stands in it more than once")
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
            raise UserError(f"{self.name}: split {self.split.max()}; it takes 0 to {len(SPLITS) - 1} ({', '.join(SPLITS)})")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def rows(self, split: str) -> Ints:
        """Where the images of a split stand, sorted by id."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all that scores depend on."""
        columns = [part for name in sorted(self.columns) for part in (name, self.columns[name].tobytes())]
        arrays = (self.labels.tobytes(), self.split.tobytes(), self.logits.tobytes())
        return digest(["\n".join(self.ids), str(self.logits.shape), *arrays, *columns])

    # --- what is said of the true class, float64 [N] --------------------------------------------------------------------

    @cached_property
    def log_p(self) -> Floats:
        """log p_y: the log softmax probability of the true class, in nats."""
        from scipy.special import logsumexp

        return np.asarray(self._true - logsumexp(self.logits.astype(np.float64), axis=1))

    @property
    def loss(self) -> Floats:
        """Cross-entropy, in nats."""
        return -self.log_p

    @cached_property
    def phi(self) -> Floats:
        """log p_y - log sum of the other classes' p, on logits: never log(1 - p) (Carlini et al., arXiv:2112.03570, section IV)."""
        from scipy.special import logsumexp

        others = self.logits.astype(np.float64)
        others[np.arange(len(others)), self.labels] = -np.inf
        return np.asarray(self._true - logsumexp(others, axis=1))

    @cached_property
    def correct(self) -> Bools:
        """Whether the true class has the largest logit (the first of equal ones counts)."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    @property
    def _true(self) -> Floats:
        return self.logits[np.arange(len(self.logits)), self.labels].astype(np.float64)

    def log_softmax(self, rows: Ints) -> Floats:
        """[rows, C], in nats."""
        from scipy.special import log_softmax

        return np.asarray(log_softmax(self.logits[rows].astype(np.float64), axis=1))


def together(first: LogitsTable, *others: LogitsTable, split: bool = True) -> None:
    """Raises UserError, naming both, unless all are of the same images, labels, classes and (unless told not to look) splits."""
    for other in others:
        both = f"{first.name} and {other.name}"
        if first.logits.shape[1] != other.logits.shape[1]:
            raise UserError(f"{both} do not belong together: {first.logits.shape[1]} classes, and {other.logits.shape[1]}")
        if first.ids != other.ids:
            apart = sorted(set(first.ids) ^ set(other.ids))
            raise UserError(f"{both} do not belong together: {len(apart)} images stand in one alone, first {apart[0]}")
        for what, ours, theirs in (("labels", first.labels, other.labels), ("splits", first.split, other.split)):
            if (what == "labels" or split) and (ours != theirs).any():
                at = int((ours != theirs).argmax())
                number = int((ours != theirs).sum())
                said = f"first {first.ids[at]} ({ours[at]}, and {theirs[at]})"
                raise UserError(f"{both} do not belong together: other {what} of {number} images, {said}")


def like(wanted: Ints, there: Ints) -> Floats:
    """Weights for held-out images with labels `there`, mean 1, that give them the class histogram of the forgotten, `wanted`.

    All 1 where the forgotten lack no class of theirs (random requests), and where they share none."""
    weights = np.ones(len(there))
    if set(there.tolist()) - set(wanted.tolist()):
        size = int(max(wanted.max(initial=0), there.max())) + 1
        asked, have = (np.bincount(labels, minlength=size) for labels in (wanted, there))
        own = (asked / np.maximum(have, 1))[there]
        weights = own / own.mean() if own.any() else weights
    return weights


# --- files ------------------------------------------------------------------------------------------------------------


def write(table: LogitsTable, path: Path) -> None:
    """One safetensors file: the arrays and columns as tensors, ids as a JSON list in the metadata beside `about`.

    Raises RunFailed, naming the file, when the disk refuses."""
    import torch

    from lethe.models import checkpoint

    arrays = {"logits": table.logits, "labels": table.labels, "split": table.split, **table.columns}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    checkpoint.save(tensors, path, {**table.about, "ids": json.dumps(table.ids)})


def read(path: Path, name: str = "") -> LogitsTable:
    """Raises UserError, naming the file, when it is missing, truncated, no logits table, or holds a NaN."""
    from lethe.models import checkpoint

    tensors, about = checkpoint.load(path)
    lacks = [part for part in OWN if part not in tensors] + [part for part in ("ids",) if part not in about]
    if lacks:
        raise UserError(f"{path} lacks {', '.join(lacks)}: a logits table holds {', '.join(OWN)} and, in its metadata, ids")
    arrays = {part: tensor.numpy() for part, tensor in tensors.items()}
    try:
        ids = tuple(json.loads(about.pop("ids")))
    except ValueError as error:
        raise UserError(f"{path}: its ids are no JSON list: {error}") from None
    columns = {part: array for part, array in arrays.items() if part not in OWN}
    return LogitsTable(name or str(path), ids, arrays["labels"], arrays["split"], arrays["logits"], columns, about)
