"""What a run took is known of the weights that it made, and of no others under its name."""

from pathlib import Path

import torch

from lethe._util.files import short, write_json
from lethe.models import checkpoint
from lethe.workspace import timing
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId

HASH = "0123456789abcdef"


def clocked(layout: Layout, run: str, of: str) -> None:
    write_json(layout.clock(run), {"result": short(of), "seconds": 5.0, "flops": 1e9})


def test_only_the_time_of_these_weights_is_known(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert timing.recorded(layout, "ft.seed1", HASH) == {}
    clocked(layout, "ft.seed1", HASH)
    assert timing.recorded(layout, RunId("ft", 1), HASH) == timing.recorded(layout, "ft.seed1", short(HASH))
    assert timing.recorded(layout, "ft.seed1", HASH)["seconds"] == 5.0
    assert timing.recorded(layout, "ft.seed1", "f" * 16) == timing.recorded(layout, "ft.seed1", "") == {}
    write_json(layout.clock("ft"), {"seconds": 5.0})  # which does not say of what
    assert timing.recorded(layout, "ft", HASH) == timing.recorded(layout, "ft", "") == {}


def test_a_copy_keeps_the_time_of_its_own_weights_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    clocked(layout, "ft", HASH)
    timing.keep_cost(layout, "ft", "ft.seed0", "f" * 12)
    assert not layout.clock("ft.seed0").exists()
    timing.keep_cost(layout, "ft", "ft.seed0", short(HASH))
    assert timing.recorded(layout, "ft.seed0", HASH)["flops"] == 1e9


def test_retraining_took_what_the_model_that_exists_took(tmp_path: Path) -> None:
    """By its weights, or by its logits table where these are gone; not what the model took whose place a given one has."""
    layout = Layout(tmp_path)
    assert timing.retraining(layout) == {}
    checkpoint.save_model({"w": torch.ones(1)}, layout.weights("retrained"), {})
    hash_ = checkpoint.model_hash(layout.weights("retrained"))
    clocked(layout, "retrained", hash_)
    assert timing.retraining(layout)["seconds"] == 5.0
    checkpoint.save_model({"w": torch.zeros(1)}, layout.weights("retrained"), {"provenance": "unknown"})
    assert timing.retraining(layout) == {}
    layout.weights("retrained").unlink()
    assert timing.retraining(layout) == {}
    checkpoint.save({"logits": torch.ones(1)}, layout.logits("retrained"), {"model": hash_})
    assert timing.retraining(layout)["seconds"] == 5.0
