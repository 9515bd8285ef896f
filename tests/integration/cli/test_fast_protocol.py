"""The stages with model.architecture fastnet and its recipe."""

import pytest
import torch

from lethe.models import checkpoint
from support.project import Project

KEYS: tuple[str, ...] = (
    "--run.workspace",
    "fast",
    "--data.source",
    "digits",
    "--data.limit",
    "6",
    "--data.forget.count",
    "6",
    "--run.threads",
    "1",
)
KEYS += ("--model.architecture", "fastnet", "--pretrain.recipe", "short:one_pass", "--method", "model_1", "--evaluate.perturbed", "10")
OWN = ("--methods.model_1.epochs", "1", "--methods.model_1.batch_size", "16", "--run.log_model", "none")
RECIPE = """
from lethe.recipes.fast_protocol import fast

def one_pass(stream):
    return fast(stream, passes=1)
"""


@pytest.mark.slow
def test_from_training_to_erasure(project: Project) -> None:
    (project.root / "short.py").write_text(RECIPE)
    project.ran("unlearn", *KEYS, *OWN)
    models = project.root / "fast" / "models"
    original, retrained, result = (
        checkpoint.load(models / f"{name}.safetensors")[0]["whiten.kernel"] for name in ("original", "retrained", "model_1")
    )
    assert torch.equal(result, original) and not torch.equal(retrained, original)
    project.ran("erase", "--run.workspace", "fast", "--method", "model_1", "--yes")
    assert project.ran("erase", "--run.workspace", "fast", "--check").stdout == ""
    other = tuple("convnet" if word == "fastnet" else "other" if word == "fast" else word for word in KEYS)
    refused = project.run("pretrain", *other)
    assert refused.returncode == 2 and "has no whiten.kernel to whiten; it takes model.architecture fastnet" in refused.stderr
