"""The keys that a workspace records."""

from collections.abc import Mapping
from pathlib import Path

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
