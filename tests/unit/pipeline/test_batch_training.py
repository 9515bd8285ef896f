"""Into which stacks models are divided, and what their training leaves to the process."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from lethe.config import loader
from lethe.engine.engine import Epoch
from lethe.engine.resume import Resume
from lethe.pipeline.batch_training import MOST_STACKED, ModelSpec, stacks, train
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, Term
from lethe.workspace.prepare import prepare

DIGITS = ("--data.source", "digits", "--data.limit", "12", "--data.forget.fraction", "0.5", "--model.architecture", "convnet")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_no_stack(workers: int, tmp_path: Path) -> None:
    """In stacks of other sizes a model ends at other last digits, and `run.workers` is to change no result."""
    prepared = prepare(loader.load([*DIGITS, "--run.workspace", str(tmp_path), "--run.workers", str(workers)]))
    recipe = prepared.reference_recipe("retrained")
    assert [len(stack) for stack in stacks(prepared, recipe, range(MOST_STACKED + 6), "bank")] == [MOST_STACKED, 6]
    assert stacks(prepared, recipe, "abc", "bank") == [("a",), ("b",), ("c",)]


class Stopped(Resume):
    """The resume state of a process with 2 threads that is stopped after an epoch."""

    def record(self, epoch: Epoch, *given: Any) -> dict[str, Any]:
        torch.set_num_threads(2)  # only now: steps of two threads wait for each other on busy cores
        row = super().record(epoch, *given)
        torch.set_num_threads(1)
        if epoch.global_epoch:
            raise KeyboardInterrupt
        return row


def test_threads_of_a_resumed_training_end_with_it(tmp_path: Path) -> None:
    prepared = prepare(loader.load([*DIGITS, "--run.workspace", str(tmp_path)]))
    steps, models = (Phase("train", 1, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0)),), [ModelSpec(1, prepared.splits)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with pytest.raises(KeyboardInterrupt):
            next(train(prepared, steps, models, Stopped(tmp_path / "state"), "bank"))
        seen = [torch.get_num_threads() for _ in train(prepared, steps, models, Resume(tmp_path / "state"), "bank")]
        assert (seen, torch.get_num_threads()) == ([2], 1)
        with closing(train(prepared, steps, models, Resume(tmp_path / "state"), "bank")) as ends:
            next(ends)
        assert torch.get_num_threads() == 1  # whoever reads the models failed
    finally:
        torch.set_num_threads(threads)
