"""The keys that a workspace records."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lethe._util.errors import UserError
from lethe.config import loader
from lethe.workspace import settings


def test_two_commands_at_once_lose_no_key(tmp_path: Path) -> None:
    """The second records its key between the moment at which the first has read those recorded, and the moment at which it writes."""
    config = loader.load(["--run.workspace", str(tmp_path / "ws")])

    def second(was: Mapping[str, str]) -> dict[str, str]:
        return {**was, "retrain.seeds": "3"}

    def first(was: Mapping[str, str]) -> dict[str, str]:
        if "retrain.seeds" not in was:
            settings.update(config, "hash", second)
        return {**was, "pretrain.epochs": "7"}

    settings.update(config, "hash", first)
    layer = settings.layer(config.workspace)
    assert layer.values == {"retrain.seeds": "3", "pretrain.epochs": "7"}


@pytest.mark.parametrize(
    ("typed", "missing"),
    [
        ("--data.image_size 16 --data.forget.ids {}/next.csv", "data.forget.ids"),
        ("--data.image_size 16 --pretrain.checkpoint {}/model.pth#key=ema", "pretrain.checkpoint"),
        ("--pretrain.checkpoint {}/here.pth --data.root {}/nowhere", "data.root"),
    ],
)
def test_a_missing_file_is_said_before_what_the_workspace_was_made_with(typed: str, missing: str, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    (ws / "data").mkdir(parents=True)
    (ws / "models").mkdir()
    for made in ("data/train.json", "models/original.safetensors"):
        (ws / made).touch()
    (tmp_path / "here.pth").touch()
    (ws / "settings.yaml").write_text("data: {image_size: 8, root: old, forget: {ids: old.csv}}\npretrain: {checkpoint: old.pth}\n")
    words = ["--run.workspace", str(ws), *typed.format(tmp_path, tmp_path).split()]
    with pytest.raises(UserError, match=rf"^{missing} is {tmp_path}/\S+ \(command line\), which does not exist$"):
        settings.check(loader.load(words, settings=settings.layer), "unlearn")
    (tmp_path / "next.csv").touch()
    (tmp_path / "model.pth").touch()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(UserError, match=" was made with "):
        settings.check(loader.load(words, settings=settings.layer), "unlearn")
