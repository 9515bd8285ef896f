"""What head, last_block and early stand for, by architecture."""

import pytest
import torch
from torch import nn

from lethe._util.errors import UserError
from lethe.models import architectures
from lethe.models.torchvision_models import torchvision_models
from lethe.recipes.blocks import resolve
from lethe.recipes.trainable import Layers


def of_torchvision(name: str) -> nn.Module:
    return torchvision_models().get_model(name, num_classes=10)  # type: ignore[no-any-return]


def mlp() -> nn.Module:
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3)]
    return nn.Sequential(*layers)


class Wrapped(nn.Module):
    """A module that itself has one called head, which holds more than a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(20, 8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))


EXPECTED: dict[str, tuple[str, str, str]] = {  # head, last block, early blocks
    "resnet18": ("fc", "layer4", "conv1 bn1 layer1 layer2"),
    "resnet50": ("fc", "layer4", "conv1 bn1 layer1 layer2"),
    "convnet": ("fc", "layer4", "layer1 layer2"),
    "fastnet": ("head", "block3", "whiten block1"),
    "vgg11": ("classifier.6", "classifier.3", "features"),
    "mobilenet_v3_small": ("classifier.3", "classifier.0", " ".join(f"features.{i}" for i in range(7))),
    "densenet121": (
        "classifier",
        "features.denseblock4 features.norm5",
        "features.conv0 features.norm0 features.denseblock1 features.transition1 features.denseblock2",
    ),
    "vit_b_16": (
        "heads.head",
        "encoder.layers.encoder_layer_11 encoder.ln",
        "conv_proj " + " ".join(f"encoder.layers.encoder_layer_{i}" for i in range(5)),
    ),
}


@pytest.mark.parametrize("architecture", EXPECTED)
def test_of_an_architecture(architecture: str) -> None:
    with torch.device("meta"):
        model = architectures.OWN[architecture](10) if architecture in architectures.OWN else of_torchvision(architecture)
    assert tuple(" ".join(resolve(model, name)) for name in ("head", "last_block", "early")) == EXPECTED[architecture]
    for name in ("head", "last_block", "early"):
        assert Layers((name,))(model, 0.0) == Layers(tuple(resolve(model, name)))(model, 0.0)


def test_of_a_plain_network() -> None:
    assert [resolve(mlp(), name) for name in ("head", "last_block", "early")] == [("5",), ("2", "3"), ("0",)]
    assert Layers(("head", "last_block"))(mlp(), 0.0) == {f"{layer}.{kind}" for layer in (2, 3, 5) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([nn.Linear(4, 3), nn.Conv1d(2, 3, 3), nn.Linear(6, 2)], "1"),
        ([nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.Linear(3, 2)], "2"),
        ([nn.BatchNorm1d(4), nn.Embedding(9, 4)], "0"),
    ],
)
def test_the_first_layer_is_a_convolution_or_a_linear_one(layers: list[nn.Module], name: str) -> None:
    assert resolve(nn.Sequential(*layers), "first") == (name,)


def test_a_share_of_depth_is_the_last_blocks_and_the_head() -> None:
    network = architectures.build("convnet", 10, 0)
    assert resolve(network, "0.25") == ("layer4", "fc")
    assert resolve(network, ".5") == ("layer3", "layer4", "fc")
    assert resolve(network, "0.75") == ("layer2", "layer3", "layer4", "fc")
    assert resolve(network, "0.01") == ("layer4", "fc")
    for name in ("0.0", "1.5", "25"):
        with pytest.raises(UserError, match=r"a share of depth such as 0\.25"):
            Layers((name,))(network, 0.0)


def test_resnets_names_stand_for_the_same_parts_of_other_networks() -> None:
    with torch.device("meta"):
        vgg, shuffle = of_torchvision("vgg11"), of_torchvision("shufflenet_v2_x0_5")
    for name, role in (("layer1", "early"), ("layer2", "early"), ("layer4", "last_block"), ("fc", "head")):
        assert resolve(vgg, name) == resolve(vgg, role)
        assert resolve(mlp(), name) == resolve(mlp(), role)
    assert resolve(shuffle, "fc") == ("fc",), "it has one"
    assert resolve(shuffle, "layer4") == resolve(shuffle, "last_block")
    everything = resolve(shuffle, "early") + resolve(shuffle, "layer3") + resolve(shuffle, "layer4")
    assert {"conv1", "stage2", "stage3", "stage4", "conv5"} <= {name.split(".")[0] for name in everything}
    with pytest.raises(UserError, match="no layer is called 'layer5'"):
        Layers(("layer5",))(vgg, 0.0)
    resnet = architectures.build("convnet", 10, 0)
    assert all(resolve(resnet, name) == (name,) for name in ("layer1", "layer3", "fc"))


def test_a_module_of_that_name_wins() -> None:
    assert resolve(Wrapped(), "head") == ("head",)
    assert len(Layers(("head",))(Wrapped(), 0.0)) == 4
    assert resolve(Wrapped(), "last_block") == ("head.0",)


def test_a_network_of_one_layer_has_no_block() -> None:
    with pytest.raises(UserError, match="no layer is called 'last_block'"):
        Layers(("last_block",))(nn.Linear(4, 2), 0.0)
    assert len(Layers(("head",))(nn.Sequential(nn.Linear(4, 2)), 0.0)) == 2
