"""What `erase` plans for the files of a workspace: each is named once."""

from pathlib import Path

from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, REWRITE
from lethe.erasure.workspace_files import WorkspaceFiles
from lethe.testing.tables import SIZES
from support.cards import asked, workspace
from support.erasures import HASHED, erasure


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
