"""The lock of a run, and what a resumed run leaves to the process."""

import platform
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lethe._util.errors import RunFailed
from lethe.config import loader
from lethe.engine.resume import Resume
from lethe.engine.run_state import State
from lethe.models import checkpoint
from lethe.pipeline import run_logging
from lethe.pipeline.runner import held, resume_folder, start
from lethe.workspace.plan import plan_reference
from lethe.workspace.prepare import prepare


@pytest.mark.parametrize(("holder", "said"), [(f"17 {platform.node()}", "17"), ("17 elsewhere", "17 on elsewhere"), ("17", "17")])
def test_a_lock_says_who_holds_it_and_where(holder: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "locks" / "model_1.lock"
    with held(path, "model_1"):
        path.with_suffix(".pid").write_text(holder)
        with pytest.raises(RunFailed) as refused, held(path, "model_1"):
            pass
        assert str(refused.value) == f"model_1 is already running in this workspace (pid {said})"
    with held(path, "model_1"):
        pass


def test_a_resumed_run_has_its_threads_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds and methods that the same command runs next have those that the command began with, as without an interruption."""
    monkeypatch.setattr(run_logging, "open_run", lambda *given, **named: nullcontext())
    digits = ("--data.source", "digits", "--data.limit", "12", "--data.forget.fraction", "0.5", "--model.architecture", "convnet")
    prepared = prepare(loader.load([*digits, "--run.workspace", str(tmp_path)]))
    planned = plan_reference(prepared.config, "original", prepared.reference_recipe("original"))
    network = prepared.untrained(planned.seed)
    weights = checkpoint.weights_hash(network.state_dict())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Resume(resume_folder(prepared, str(planned), repr(planned.recipe), weights)).save(State(global_epoch=0), network)
        torch.set_num_threads(1)
        with pytest.raises(RunFailed, match="2 threads after epoch 0"), start(prepared, planned) as run:
            raise RunFailed(f"{torch.get_num_threads()} threads after epoch {run.resume.saved}")
        assert torch.get_num_threads() == 1
        with start(prepared, planned):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
