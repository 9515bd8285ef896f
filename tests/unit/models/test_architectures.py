"""Networks by name, of torchvision and of one's own: built, tried on the images before anything is read, refused in one line."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from lethe._util.errors import UserError
from lethe.models import architectures
from lethe.models.weights_not_drawn import WeightsNotDrawn

OWN = """
import torch
from torch import nn

def plain(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

def fixed():
    return plain(7)

def features(**options):
    return nn.Flatten(0)

class Pair(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = plain(num_classes)
    def forward(self, images):
        logits = self.net(images)
        return (logits, logits) if self.training else logits

def fails(num_classes):
    raise RuntimeError("no\\nsuch file")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


def tried(architecture: str, size: int = 8, classes: int = 5) -> None:
    architectures.check(architectures.build(architecture, classes, 0), architecture, size, classes)


def refusal(architecture: str, size: int = 8, classes: int = 5) -> str:
    with pytest.raises(UserError) as caught:
        tried(architecture, size, classes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"model.architecture is {architecture}")
    return str(caught.value)


def test_a_function_in_the_current_folder() -> None:
    tried("own_networks:plain")
    tried("own_networks:fixed", classes=7)
    assert "it has 7 outputs, and the data has 5 classes" in refusal("own_networks:fixed")
    assert "it gives a tensor [384] for two images; it must give logits [2, classes]" in refusal("own_networks:features")
    assert "it gives a tuple for two images in training" in refusal("own_networks:Pair")
    assert "it fails on images of 9x9 (" in refusal("own_networks:plain", 9)


@pytest.mark.parametrize(("architecture", "size"), [("alexnet", 32), ("vgg11", 16)])
def test_images_that_are_too_small(architecture: str, size: int) -> None:
    with torch.device("meta"):
        network = architectures._build(architecture, 5)
    with pytest.raises(
        UserError, match=rf"model\.architecture is {architecture}: it fails on images of {size}x{size} \(.*data\.image_size"
    ):
        architectures.check(network, architecture, size, 5)


def test_checking_changes_nothing() -> None:
    network = architectures.build("convnet", 5, 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    architectures.check(network, "convnet", 32, 5)
    assert not network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


# --- timm's -----------------------------------------------------------------------------------------------------------

TIMM = """
from torch import nn

def list_models():
    return ["tiny_net", "other"]

def create_model(name, num_classes, pretrained):
    if name not in list_models():
        raise RuntimeError(f"Unknown model ({name})")
    assert pretrained is False
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_networks_of_timm(name: str) -> None:
    """Of the library itself, where it is installed: its smallest networks, with the number of classes of the data and random weights."""
    pytest.importorskip("timm")
    size = 160 if name == "test_vit" else 32
    tried(f"timm:{name}", size)
    network = architectures.build(f"timm:{name}", 5, 3)
    again = architectures.build(f"timm:{name}", 5, 3)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items()), "seeded"


def test_what_is_asked_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a package of its name on the path: its function is called as the library's is documented."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(TIMM)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        tried("timm:tiny_net", 16)
        assert refusal("timm:tiny_nit", 16) == "model.architecture is timm:tiny_nit: Unknown model (tiny_nit); nearest: tiny_net"
    finally:
        sys.modules.pop("timm", None)


def test_timm_is_named_where_it_is_missing() -> None:
    if importlib.util.find_spec("timm"):
        pytest.skip("timm is installed")
    with pytest.raises(UserError, match=r"model\.architecture is timm:resnet10t, and timm is not installed; `pip install timm` adds it"):
        architectures.build("timm:resnet10t", 5, 0)


@pytest.mark.parametrize("architecture", ["convnet", "fastnet", "resnet18", "resnet18_cifar", "mobilenet_v3_small", "own_networks:plain"])
def test_a_network_whose_weights_are_not_drawn_is_the_same_once_others_are_loaded(architecture: str) -> None:
    size, state = 32 if ":" not in architecture else 8, torch.get_rng_state()
    wanted, network = architectures.build(architecture, 10, 1), architectures.build(architecture, 10, 0, drawn=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, _ in network.named_modules()] == [name for name, _ in wanted.named_modules()]
    network.load_state_dict(wanted.state_dict())
    images = torch.rand(2, 3, size, size)
    assert torch.equal(network(images), wanted(images))


def test_initialisation_at_random_leaves_a_tensor_as_it_is_where_weights_are_not_drawn() -> None:
    init, weights = torch.nn.init, torch.full((4, 4), 5.0)
    with WeightsNotDrawn():
        for draw in (init.normal_, init.uniform_, init.kaiming_normal_, init.kaiming_uniform_, init.xavier_normal_, init.xavier_uniform_):
            assert draw(weights) is weights
        assert weights.normal_(0.0, 2.0).uniform_(-1, 1) is weights
        assert torch.equal(weights, torch.full((4, 4), 5.0))
        assert torch.equal(init.ones_(torch.empty(3)), torch.ones(3))
    assert not torch.equal(init.normal_(weights), torch.full((4, 4), 5.0))


def test_a_network_of_ones_own_always_has_what_it_draws() -> None:
    undrawn, drawn = (architectures.build("own_networks:plain", 10, 3, drawn=each).state_dict() for each in (False, True))
    assert all(torch.equal(value, drawn[name]) for name, value in undrawn.items())
