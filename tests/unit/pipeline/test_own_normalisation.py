"""A network that normalises its input itself says data.mean and data.std, unless somebody gave them."""

import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lethe.config.loader import Config, load
from lethe.models import architectures, checkpoint
from lethe.pipeline.own_normalisation import adopted
from lethe.workspace import settings

MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.21, 0.22)


class Normalise(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * scale)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def config(folder: Path, *words: str) -> Config:
    architecture = [] if any("architecture" in word for word in words) else ["--model.architecture", "convnet"]
    return load(["--run.workspace", str(folder / "ws"), *architecture, *words], settings=settings.layer)


def of_file(folder: Path, network: nn.Module) -> list[str]:
    torch.save({"model": network.state_dict(), "optimizer": {"state": torch.ones(3)}}, folder / "a.pth")
    return ["--pretrain.checkpoint", str(folder / "a.pth")]


def test_that_of_a_checkpoint_is_taken_over_and_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = of_file(tmp_path, nn.Sequential(Normalise(), architectures.build("convnet", 3, 0)))
    found = adopted(config(tmp_path, *given))
    assert (found.data.mean, found.data.std) == (MEAN, STD)
    assert found.given["data.mean"] == "0.49,0.48,0.45", "recorded with what is made from it, as if typed"
    said = capsys.readouterr().err
    assert said == (
        f"{tmp_path}/a.pth normalises its input itself (0.mean and 0.std), which is left out of it: data.mean is 0.49,0.48,0.45 and "
        "data.std 0.2,0.21,0.22; none was given\n"
    )


def test_keys_that_are_given_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What contradicts the file is refused when its weights are taken (fitting.Normalisation.check)."""
    given = of_file(tmp_path, nn.Sequential(Normalise(), architectures.build("convnet", 3, 0)))
    typed = config(tmp_path, *given, "--data.mean", "0.5,0.5,0.5")
    assert adopted(typed) is typed
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text("data: {std: [0.3, 0.3, 0.3]}\n")
    remembered = config(tmp_path, *given)
    assert adopted(remembered) is remembered
    (tmp_path / "ws" / "settings.yaml").unlink()
    checkpoint.save({}, tmp_path / "ws" / "models" / "original.safetensors", {})
    made = config(tmp_path, *given)
    assert adopted(made) is made, "an original that was made without it"
    assert capsys.readouterr().err == ""


def test_entries_that_are_no_first_layer_are_left_to_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file does not say what the network does with them; case 16."""
    tensors = architectures.build("convnet", 3, 0).state_dict()
    tensors |= {"normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    torch.save({"state_dict": tensors}, tmp_path / "a.pth")
    asked = config(tmp_path, "--pretrain.checkpoint", str(tmp_path / "a.pth"))
    assert adopted(asked) is asked
    assert capsys.readouterr().err == ""


def test_what_a_metric_keeps_is_no_normalisation(tmp_path: Path) -> None:
    """Lightning stores metrics next to the network, and their weights are not the network's."""
    network = nn.ModuleDict({"net": architectures.build("convnet", 3, 0), "metric": nn.Sequential(Normalise())})
    asked = config(tmp_path, *of_file(tmp_path, network))
    assert adopted(asked) is asked


def test_without_one_nothing_changes(tmp_path: Path) -> None:
    for words in (of_file(tmp_path, architectures.build("convnet", 3, 0)), ["--pretrain.checkpoint", str(tmp_path / "none.pth")], []):
        asked = config(tmp_path, *words)
        assert adopted(asked) is asked


@pytest.mark.parametrize(("scale", "std"), [(1.0, 1.0), (255.0, 0.00392157)])
def test_a_layer_of_the_architecture_gets_its_input_as_it_expects_it(
    scale: float, std: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else images would be normalised twice."""

    def make(num_classes: int) -> nn.Module:
        return nn.Sequential(Normalise(scale), architectures.build("convnet", num_classes, 0))

    own = types.ModuleType("own_network")
    vars(own)["make"] = make
    monkeypatch.setitem(sys.modules, "own_network", own)
    found = adopted(config(tmp_path, "--model.architecture=own_network:make"))
    assert (found.data.mean, found.data.std) == ((0.0,) * 3, (std,) * 3)


def test_buffers_that_change_nothing_are_no_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the mean and standard deviation of features, before training."""

    def make(num_classes: int) -> nn.Module:
        network = architectures.build("convnet", num_classes, 0)
        network.register_buffer("feature_mean", torch.zeros(1))
        network.register_buffer("feature_std", torch.ones(1))
        return network

    own = types.ModuleType("own_network")
    vars(own)["make"] = make
    monkeypatch.setitem(sys.modules, "own_network", own)
    asked = config(tmp_path, "--model.architecture=own_network:make")
    assert adopted(asked) is asked
