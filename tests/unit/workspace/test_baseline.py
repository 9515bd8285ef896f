"""When a retrained model is no baseline."""

from pathlib import Path

import pytest
import torch

from lethe._util.files import write_json
from lethe.models import checkpoint
from lethe.workspace import scores as results
from lethe.workspace.layout import Layout


@pytest.mark.parametrize(
    ("retrained", "provenance", "kept", "said"),
    [
        (22.1, ("unknown", "trained"), None, "retrained is 61.3 points below original on validation, so it is no valid baseline"),
        (80.2, ("unknown", "trained"), None, ""),
        (22.1, ("trained", "trained"), None, ""),  # by one recipe, on so much less: that is what retraining costs
        (22.1, ("unknown", "unknown"), None, ""),
        (60.0, ("unknown", "trained"), 84.0, ""),  # of a whole class it can't know that class
    ],
)
def test_a_retrained_model_far_below_the_original_is_called_no_baseline(
    tmp_path: Path, retrained: float, provenance: tuple[str, str], kept: float | None, said: str
) -> None:
    for name, value, where in (("original", 83.4, provenance[0]), ("retrained", retrained, provenance[1])):
        measures = {} if kept is None else {"accuracy_of.retained_classes.validation": {"value": kept}}
        write_json(tmp_path / "scores" / f"{name}.json", {"accuracy": {"validation": value}, "measures": measures})
        checkpoint.save({"weight": torch.zeros(1)}, tmp_path / "models" / f"{name}.safetensors", {"provenance": where})
    assert results.baseline_warning(Layout(tmp_path))[: len(said) or None] == said
