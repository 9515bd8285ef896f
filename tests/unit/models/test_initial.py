"""Weights that training starts from: of a file, or torchvision's by name; a head of other classes stays random."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lethe._util.errors import UserError
from lethe._util.integrity import digest_file
from lethe.models import architectures, initial

UNIT = ((0.5,) * 3, (0.5,) * 3)


def loaded(text: str, folder: Path, architecture: str = "convnet", classes: int = 3) -> nn.Module:
    network = architectures.build(architecture, classes, 0)
    initial.load(network, text, architecture, folder, folder / "downloads", normalisation=UNIT)
    return network


@pytest.mark.parametrize("saved", ["whole", "no head", "projection", "wrapped"])
def test_all_but_a_head_of_other_classes_is_taken(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = architectures.build("convnet", 10, 7).state_dict()
    head = {name: value for name, value in weights.items() if name.startswith("fc.")}
    body = {name: value for name, value in weights.items() if name not in head}
    more = {"whole": head, "no head": {}, "projection": {"projector.weight": torch.ones(2, 2)}, "wrapped": head}[saved]
    tensors = body | more
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in tensors.items()}} if saved == "wrapped" else tensors, tmp_path / "w.pth"
    )
    network, start = loaded("w.pth", tmp_path).state_dict(), architectures.build("convnet", 3, 0).state_dict()
    assert all(torch.equal(network[name], (body | {k: start[k] for k in head})[name]) for name in network)
    said = capsys.readouterr().err
    there = "has 10 classes there" if saved in ("whole", "wrapped") else "is not in the file there"
    assert f"fc {there}, and is random here, for 3 classes" in said
    assert ("left out" in said) == (saved == "projection"), "the head of other classes was named already"
    assert f"training starts from w.pth ({digest_file(tmp_path / 'w.pth')})" in said


def test_a_head_that_fits_is_taken(tmp_path: Path) -> None:
    weights = architectures.build("convnet", 3, 7).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    assert all(torch.equal(value, weights[name]) for name, value in loaded("w.pth", tmp_path).state_dict().items())


def test_torchvisions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    weights = architectures.build("squeezenet1_1", 1000, 7).state_dict()
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(weights, cache / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("IMAGENET1K_V1", "default", "SqueezeNet1_1_Weights.IMAGENET1K_V1"):
        own = loaded(name, tmp_path, "squeezenet1_1").state_dict()
        assert all(torch.equal(own[each], value) for each, value in weights.items() if not each.startswith("classifier"))
        assert own["classifier.1.bias"].shape == (3,)
        said = capsys.readouterr().err
        assert f"training starts from {name} (SqueezeNet1_1_Weights.IMAGENET1K_V1)" in said
        assert "was trained with data.mean 0.485,0.456,0.406 and data.std 0.229,0.224,0.225, and these are others" in said


@pytest.mark.parametrize(
    ("text", "architecture", "says"),
    [
        ("IMAGENET1K_V9", "resnet18", "none of IMAGENET1K_V1, DEFAULT of resnet18"),
        ("ResNet50_Weights.IMAGENET1K_V1", "resnet18", "none of IMAGENET1K_V1, DEFAULT of resnet18"),
        ("imagenet", "convnet", "torchvision has no weights for convnet"),
        ("model.pth", "convnet", "model.pth is not a file"),
        ("page.pth", "convnet", "page.pth is a web page"),
        ("other.pth", "convnet", "another architecture?"),
    ],
)
def test_what_is_none_is_one_line(text: str, architecture: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    torch.save({"layer1.0.weight": torch.ones(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(UserError) as caught:
        loaded(text, tmp_path, architecture)
    assert says in str(caught.value) and str(caught.value).startswith("pretrain.init") and "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use
    with pytest.raises(UserError, match=r"pretrain.init: SqueezeNet1_1_Weights.IMAGENET1K_V1 can't be fetched from https://.*: .*refused"):
        loaded("DEFAULT", tmp_path, "squeezenet1_1")
