"""A bank of models that nobody trained."""

import numpy as np
import pytest

from lethe.config import loader as config
from lethe.data.splits import SPLITS
from lethe.evaluation.logits_table import LogitsTable
from lethe.workspace import bank
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared
from support.project import Project


def prepared(project: Project, monkeypatch: pytest.MonkeyPatch, *said: str) -> Prepared:
    monkeypatch.setenv("DVC_ROOT", str(project.root))
    return prepare(config.load(said, params=project.root / "params.yaml"))


def fake(here: Prepared, seed: int, kind: str = "retrained", leak: float = 0.0) -> LogitsTable:
    """A table as the bank's, of a model that nobody trained."""
    ids, labels = here.images.ids, here.images.labels.astype(np.int64)
    split = np.zeros(len(ids), np.uint8)
    for number, part in enumerate(SPLITS):
        split[here.splits[part]] = number
    logits = np.random.default_rng(seed).normal(size=(len(ids), len(here.images.classes))).astype(np.float32)
    logits[np.arange(len(ids)), labels] += 2 + leak * (split == 1)
    about = bank.metadata(here, kind, seed) | {"model": f"{seed:064x}"}
    return LogitsTable("fake", ids, labels, split, logits, {}, about)
