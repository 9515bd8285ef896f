"""The resume state on disk: what a run takes from it, and what it leaves to the process."""

from pathlib import Path

import pytest
import torch

from lethe.engine import engine
from lethe.engine.resume import Resume
from lethe.engine.run_state import State
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, Term
from lethe.testing.small_runs import images, network

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
STEPS = (Phase("train", 2, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0)),)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that another process began with 2 threads."""
    resume, state, student = Resume(tmp_path), State(), network()
    for epoch in engine.run(STEPS, student, images(), state=state):
        torch.set_num_threads(2)  # only now: steps of two threads wait for each other on busy cores
        resume.record(epoch, state, student)
        torch.set_num_threads(1)
        if epoch.global_epoch == 1:
            break
    return tmp_path


def test_a_resumed_run_has_the_threads_it_began_with_and_the_next_one_the_commands(stopped: Path) -> None:
    resume = Resume(stopped)
    with resume.loaded(CPU) as state:
        assert (torch.get_num_threads(), state.global_epoch, resume.saved) == (2, 1, 1)
        for epoch in engine.run(STEPS, student := network(), images(), state=state):
            resume.record(epoch, state, student)
    assert torch.get_num_threads() == 1
    with Resume(stopped).loaded(CPU) as state:  # what is stopped once more is resumed with them too
        assert (torch.get_num_threads(), state.global_epoch) == (2, len(resume.history) - 1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_run_that_is_stopped_or_fails_leaves_no_threads(error: type[BaseException], stopped: Path) -> None:
    with pytest.raises(error), Resume(stopped).loaded(CPU):
        raise error
    assert torch.get_num_threads() == 1


def test_without_a_file_a_run_starts_and_threads_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", None)  # setting even the same number switches off what MKL decides by itself
    with (resume := Resume(tmp_path)).loaded(CPU) as state:
        assert (state, resume.saved, resume.history) == (State(), None, [])
