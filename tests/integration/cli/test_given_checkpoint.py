"""Models that are given: what they cost and where they come from."""

import hashlib

import pytest
import torch
from torch import Tensor

from lethe.models import architectures as model
from lethe.models import checkpoint
from support.project import Project

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return model.build("convnet", 10, 7).state_dict()


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- all the way ----------------------------------------------------------------------------------------------------


def test_given_original_and_retrained(project: Project, weights: Weights) -> None:
    """Provenance unknown: said in the log and on the row; a method starts from them."""
    for name in ("original", "retrained"):
        for made in project.root.glob(f"*/{name}.*"):
            made.unlink()
    torch.save({"state_dict": weights}, project.root / "a b.pth")
    sum_ = hashlib.sha256((project.root / "a b.pth").read_bytes()).hexdigest()
    given = [
        "--pretrain.checkpoint",
        "a b.pth",
        "--retrain.checkpoint",
        f"file://{project.root}/a b.pth#sha256={sum_}".replace("a b", "a%20b"),
    ]
    done = project.ran("unlearn", "--method", "model_1", "--methods.model_1.epochs", "0", *given)
    for name in ("original", "retrained"):
        assert f"{name}: " in done.stderr
        assert done.stderr.count("provenance unknown") == 2
        tensors, known = checkpoint.load(project.root / "models" / f"{name}.safetensors")
        assert equal(tensors, weights)
        assert (known["provenance"], known["sha256"]) == ("unknown", sum_)
        (row,) = project.rows(method=name)
        assert row["params"]["provenance"] == "unknown"
        assert row["metrics"]["forget.accuracy"][0][0] == 0
    assert sum_ in done.stderr
    assert equal(checkpoint.load(project.root / "models" / "model_1.safetensors")[0], weights)
    again = project.run("unlearn", "--method", "model_1", "--methods.model_1.epochs", "0")
    assert again.returncode == 2, "what was given is not what params.yaml asks for"
    assert "models/original.safetensors does not belong" in again.stderr
