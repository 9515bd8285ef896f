"""What `erase` plans for the files of a workspace: each is named once."""

from dataclasses import replace
from pathlib import Path

import pytest

from lethe._util.errors import RunFailed
from lethe.erasure.erase import _require_sent
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, REWRITE
from lethe.erasure.workspace_files import WorkspaceFiles
from lethe.models import checkpoint
from lethe.testing.tables import SIZES
from lethe.workspace.layout import Layout
from support.cards import asked, workspace
from support.erasures import ACCEPTED, HASHED, MODEL, erasure


def test_each_file_is_named_once(tmp_path: Path) -> None:
    home = workspace(tmp_path / "ws", scored=False)
    ids = tuple(f"image/{n:05d}" for n in range(SIZES[0], SIZES[0] + SIZES[1]))
    half = home / "logits" / ".model_2.safetensors.abcd1234"
    half.write_bytes((home / "logits" / "model_2.safetensors").read_bytes())
    one = erasure(ids, "image/")
    places = [*WorkspaceFiles(asked(home), Sought([one], HASHED, 8), one).find()]
    steps = {place.name.removeprefix(f"{home}/"): place.step for place in places}
    assert len(steps) == len(places)
    assert steps["logits/model_1.safetensors"] == DELETE  # the accepted result: it is not rewritten first
    assert steps["logits/model_2.safetensors"] == steps["logits/retrained.safetensors"] == REWRITE
    assert steps[f"logits/{half.name}"] == DELETE


def test_what_an_earlier_request_ended_in_is_deleted(tmp_path: Path) -> None:
    home = workspace(tmp_path / "ws", scored=False)
    (home / "models").mkdir()
    for name, tensors in (("first", MODEL), ("second", ACCEPTED)):
        checkpoint.save(tensors, home / "accepted" / f"{name}.safetensors", {"kind": "accepted"})
    earlier = replace(erasure(), request="first", accepted=checkpoint.weights_hash(MODEL), models=(), tensors=())
    later = replace(erasure(), models=(), tensors=())
    places = WorkspaceFiles(asked(home), Sought([earlier, later], HASHED, 8), later).find()
    assert [(Path(place.name).name, place.step) for place in places if "accepted/" in place.name] == [("first.safetensors", DELETE)]


def test_records_of_a_further_original_that_mlflow_does_not_have(tmp_path: Path) -> None:
    waits = Layout(Layout(tmp_path).original_runs(1)).outbox
    (waits / "a run").mkdir(parents=True)
    with pytest.raises(RunFailed, match=f"{waits} holds records that MLflow does not have yet"):
        _require_sent(Layout(tmp_path))
