"""Into which stacks models are divided."""

from pathlib import Path

import pytest

from lethe.config import loader
from lethe.pipeline.batch_training import MOST_STACKED, stacks
from lethe.workspace.prepare import prepare

DIGITS = ("--data.source", "digits", "--data.limit", "12", "--data.forget.fraction", "0.5", "--model.architecture", "convnet")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_no_stack(workers: int, tmp_path: Path) -> None:
    """In stacks of other sizes a model ends at other last digits, and `run.workers` is to change no result."""
    prepared = prepare(loader.load([*DIGITS, "--run.workspace", str(tmp_path), "--run.workers", str(workers)]))
    recipe = prepared.reference_recipe("retrained")
    assert [len(stack) for stack in stacks(prepared, recipe, range(MOST_STACKED + 6), "bank")] == [MOST_STACKED, 6]
    assert stacks(prepared, recipe, "abc", "bank") == [("a",), ("b",), ("c",)]
