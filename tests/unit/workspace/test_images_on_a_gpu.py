"""What was computed from images before their file was written, and is kept once it is."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lethe.data.images import load_images
from lethe.workspace import prepare
from lethe.workspace.workspace import Prepared
from support.cards import asked, workspace


@pytest.mark.parametrize(("place", "kept"), [("meta", True), ("cpu", False)])
def test_a_copy_on_a_gpu_stays_and_one_in_memory_does_not(place: str, kept: bool, tmp_path: Path) -> None:
    """It is not sent twice; what is in memory is the images as they were read, which the file replaces."""
    config = asked(workspace(tmp_path / "ws", scored=False))
    path = tmp_path / "ws" / "data" / "images.safetensors"
    drawn = Prepared(config, load_images(path)[0], {})
    vars(drawn)["data"] = SimpleNamespace(images_NCHW=torch.empty(1, device=place))
    assert ("data" in vars(prepare._from_file(drawn, path))) is kept
