"""Tables that stay in their file: what is computed a block of rows at a time equals what the whole gives, to the bit."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lethe._util.errors import UserError
from lethe.evaluation import logits_table, metrics, row_blocks
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import SWAPPED, LogitsTable
from lethe.evaluation.measures import kl_to_reference
from lethe.evaluation.score import accuracy_and_loss, score_model
from lethe.models import checkpoint
from lethe.testing.tables import drawn

MIB = 2**20


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files above 4 kB are large, and blocks are 400 bytes."""
    monkeypatch.setattr(row_blocks, "IN_MEMORY", 4096)
    monkeypatch.setattr(row_blocks, "AT_ONCE", 400)


def whole(seed: int) -> LogitsTable:
    made = drawn(seed)
    return replace(made, columns={SWAPPED: made.logits[::-1].copy(), "probe": (made.labels % 2).astype(np.uint8)}, about={"model": "abc"})


def test_a_table_in_its_file_says_what_one_in_memory_says(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, mapped = [whole(seed) for seed in range(4)], []
    for number, table in enumerate(tables):
        logits_table.write(table, path := tmp_path / f"{number}.safetensors")
        mapped.append(logits_table.read(path, table.name))
    monkeypatch.undo()
    model, *references = tables
    expected = score_model(model, references, references[0])
    monkeypatch.setattr(row_blocks, "IN_MEMORY", 4096)
    monkeypatch.setattr(row_blocks, "AT_ONCE", 400)
    own, *others = mapped
    assert not own.logits.flags.writeable and not own.columns[SWAPPED].flags.writeable and own.columns["probe"].flags.writeable
    assert len([*row_blocks.blocks(own.logits)]) > 20
    for name in ("log_p", "phi", "correct", "logits", "labels", "split"):
        assert np.array_equal(getattr(own, name), getattr(replace(model), name)), name
    assert (own.hash, own.ids, own.about) == (model.hash, model.ids, model.about)
    assert score_model(own, others, others[0]) == expected


@pytest.mark.usefixtures("small")
def test_the_file_has_the_bytes_that_the_library_writes(tmp_path: Path) -> None:
    table, kinds = whole(0), ("u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "?")
    table = replace(table, columns={**table.columns, **{f"column {kind}": table.labels.astype(kind) for kind in kinds}})
    logits_table.write(table, tmp_path / "by blocks")
    arrays = {"logits": table.logits, "labels": table.labels, "split": table.split, **table.columns}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    checkpoint.save(tensors, tmp_path / "all at once", {**table.about, "ids": json.dumps(table.ids)})
    assert (tmp_path / "by blocks").read_bytes() == (tmp_path / "all at once").read_bytes()


@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_mean_loss_of_parts_is_that_of_all(n: int, classes: int, size: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits, labels = 9 * torch.randn(n, classes, generator=draw), torch.randint(0, classes, (n,), generator=draw)
    assert metrics.cross_entropy_of(n, zip(logits.split(size), labels.split(size), strict=True)) == metrics.cross_entropy(logits, labels)


@given(st.integers(2, 1100), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_values_of_an_image_do_not_depend_on_its_block(classes: int, rows: int, seed: int) -> None:
    draw, n = np.random.default_rng(seed), 17
    labels = draw.integers(0, classes, n)
    table = LogitsTable(
        "one", tuple(f"{i:02}" for i in range(n)), labels, np.zeros(n, np.uint8), draw.normal(0, 9, (n, classes)).astype("f4")
    )
    at_once = replace(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_blocks, "AT_ONCE", 4 * classes * rows)
        in_parts = {name: getattr(table, name) for name in ("log_p", "phi", "correct", "hash")}
    for name, value in in_parts.items():
        assert np.array_equal(value, getattr(at_once, name)), name


def test_numpy_never_allocates_a_table_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "IN_MEMORY", MIB)
    monkeypatch.setattr(row_blocks, "AT_ONCE", MIB // 4)
    n, classes = 8000, 1000  # 32 MB
    logits = np.random.default_rng(0).normal(0, 3, (n, classes)).astype(np.float32)
    split = (np.arange(n) % 4).astype(np.uint8)
    logits_table.write(LogitsTable("", tuple(f"{i:05}" for i in range(n)), np.arange(n) % classes, split, logits), path := tmp_path / "one")
    del logits
    tracemalloc.start()
    try:
        table, reference = logits_table.read(path), logits_table.read(path)
        logits_table.write(table, tmp_path / "again")
        context = EvaluationContext(table, [reference], resample=False)
        assert len(table.hash) == 64 and np.isfinite([table.phi.sum(), table.correct.sum()]).all()
        assert accuracy_and_loss(table)[1]["retain"] == pytest.approx(-table.log_p[context.rows("retain")].mean(), abs=1e-3)
        assert kl_to_reference(context)["test"].value == 0.0 and row_blocks.equal(table.logits, reference.logits)
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB, "of 32 MB of logits"
    finally:
        tracemalloc.stop()
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.usefixtures("small")
def test_a_large_file_that_is_damaged_or_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    logits_table.write(whole(0), path)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:5000], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"one\.safetensors"):
            logits_table.read(path)
    checkpoint.save({"logits": torch.zeros(2000, 3)}, path, {})
    with pytest.raises(UserError, match="lacks labels, split, ids"):
        logits_table.read(path)
