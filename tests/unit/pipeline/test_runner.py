"""The lock of a run."""

import platform
from pathlib import Path

import pytest

from lethe._util.errors import RunFailed
from lethe.pipeline.runner import held


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
