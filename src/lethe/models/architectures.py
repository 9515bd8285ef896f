"""Architectures by name: the built-in ones, torchvision's, timm's, and `package.module:function`."""

import copy
import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from lethe._util.errors import UserError
from lethe.models.fastnet import FastNet
from lethe.models.torchvision_models import torchvision_models
from lethe.models.weights_not_drawn import WeightsNotDrawn


class ConvNet(nn.Module):
    """Four 3x3 convolutions of width 16 to 32, each halving the image, and a linear head: the demo's model (17 k weights).

    Its modules are called layer1 ... layer4 and fc, so that the methods' defaults fit. Takes float32 [B, 3, H, W], returns [B, classes]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (3, 16, 24, 32, 32)
        for number in range(1, 5):
            block = nn.Sequential(
                nn.Conv2d(widths[number - 1], widths[number], 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(widths[number]),
                nn.ReLU(),
            )
            self.add_module(f"layer{number}", block)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits float32 [B, classes] for images float32 [B, 3, H, W]."""
        features = images_BCHW
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


def resnet18_cifar(num_classes: int) -> nn.Module:
    """ResNet-18 for small images: 3x3 stem of stride 1, no max-pool (He et al., arXiv:1512.03385, section 4.2)."""
    model: nn.Module = torchvision_models().resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


OWN: dict[str, Callable[..., nn.Module]] = {"convnet": ConvNet, "resnet18_cifar": resnet18_cifar, "fastnet": FastNet}


def build(architecture: str, classes: int, seed: int, *, drawn: bool = True) -> nn.Module:
    """Build a randomly initialised network in eval mode, float32.

    Args:
        architecture: `convnet`, `resnet18_cifar`, `fastnet`, any of torchvision's classifiers, `timm:<name>`, or `package.module:function`,
            which is called with `num_classes` if it has such a parameter, and may be in the current folder.
        classes: number of outputs.
        seed: of the weights; the global generator is not changed.
        drawn: whether it needs random weights. Not where others are loaded into it, or where only its modules count: built-in networks
            and torchvision's then have undefined ones.

    Returns:
        The network: float32 [B, 3, H, W] -> logits [B, classes].

    Raises:
        UserError: there is no such architecture, or the user's function fails.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with nullcontext() if drawn or ":" in architecture else WeightsNotDrawn():
            return _build(architecture, classes).eval()


def check(network: nn.Module, architecture: str, image_size: int, classes: int | None) -> None:
    """Try a network on two images of zeros, in eval mode and as it is trained; it does not change.

    Args:
        network: takes float32 [B, 3, H, W], returns logits [B, classes].
        architecture: its name, for messages.
        image_size: height and width in pixels.
        classes: number of outputs; None: any.

    Raises:
        UserError: it fails on images of this size, or its outputs are no logits of so many classes.
    """
    name = f"model.architecture is {architecture}"
    tried = copy.deepcopy(network)
    place = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    for mode in (False, True):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logits = tried.train(mode)(torch.zeros(2, 3, image_size, image_size, device=place))
        except Exception as error:  # whatever the network's own code raises on images of another size
            what = " ".join(str(error).split())[:160]
            raise UserError(
                f"{name}: it fails on images of {image_size}x{image_size} ({what}); give a data.image_size that it takes, such as 224"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
            shape = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(f"{name}: it gives {shape} for two images{' in training' if mode else ''}; it must give logits [2, classes]")
        if classes is not None and logits.shape[1] != classes:
            raise UserError(f"{name}: it has {logits.shape[1]} outputs, and the data has {classes} classes")


def _build(architecture: str, classes: int) -> nn.Module:
    if architecture.startswith("timm:"):
        return _timm(architecture, classes)
    if ":" in architecture:
        return _users(architecture, classes)
    if architecture in OWN:
        own: nn.Module = OWN[architecture](num_classes=classes)
        return own
    zoo = torchvision_models()
    known = [*OWN, *zoo.list_models(module=zoo)]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3) or ["resnet18", *OWN]
        raise UserError(
            f"model.architecture is {architecture!r}; it takes {', '.join(near)}, any other of torchvision's classifiers, "
            "timm:<name>, or package.module:function"
        )
    # inception_v3 and googlenet return a tuple in train mode unless their auxiliary heads are off
    options = {"aux_logits": False} if architecture in ("googlenet", "inception_v3") else {}
    model: nn.Module = zoo.get_model(architecture, weights=None, num_classes=classes, **options)
    return model


def _timm(architecture: str, classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"model.architecture is {architecture}, and timm is not installed; `pip install timm` adds it") from None
    name = architecture.removeprefix("timm:")
    try:
        model: nn.Module = timm.create_model(name, num_classes=classes, pretrained=False)
    except Exception as error:  # timm raises RuntimeError for a name it does not know, and others within a network's own code
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise UserError(
            f"model.architecture is {architecture}: {' '.join(str(error).split())}{'; nearest: ' + ', '.join(near) if near else ''}"
        ) from error
    return model


def _takes_classes(make: Callable[..., object]) -> bool:
    """Whether a function can be called with num_classes."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of some functions written in C
        return True
    return any(parameter.name == "num_classes" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _users(architecture: str, classes: int) -> nn.Module:
    module, _, function = architecture.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module), function)
        named = {"num_classes": classes} if _takes_classes(make) else {}
        model = make(**named)
    except Exception as error:  # the user's own code may raise anything; the message names the key
        raise UserError(f"model.architecture is {architecture!r}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise UserError(f"model.architecture is {architecture!r}: it returned a {type(model).__name__}, not a torch.nn.Module")
    return model
