"""Architectures by name: the built-in ones, torchvision's, and `package.module:function`."""

import difflib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lethe._util.errors import UserError


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
        features = images_BCHW
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


def resnet18_cifar(num_classes: int) -> nn.Module:
    """ResNet-18 for small images: 3x3 stem of stride 1, no max-pool (He et al., arXiv:1512.03385, section 4.2)."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


OWN: dict[str, Callable[..., nn.Module]] = {"convnet": ConvNet, "resnet18_cifar": resnet18_cifar}


def build(architecture: str, classes: int, seed: int) -> nn.Module:
    """Build a randomly initialised network in eval mode, float32.

    Args:
        architecture: `convnet`, `resnet18_cifar`, any of torchvision's classifiers, or `package.module:function`, which is called with
            `num_classes`.
        classes: number of outputs.
        seed: of the weights; the global generator is not changed.

    Raises:
        UserError: there is no such architecture, or the user's function fails.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(architecture, classes).eval()


def _build(architecture: str, classes: int) -> nn.Module:
    if ":" in architecture:
        return _users(architecture, classes)
    if architecture in OWN:
        own: nn.Module = OWN[architecture](num_classes=classes)
        return own
    import torchvision.models as zoo

    known = [*OWN, *zoo.list_models(module=zoo)]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3) or ["resnet18", *OWN]
        raise UserError(
            f"model.architecture is {architecture!r}; it takes {', '.join(near)}, any other of torchvision's classifiers, "
            "or package.module:function"
        )
    # inception_v3 and googlenet return a tuple in train mode unless their auxiliary heads are off
    options = {"aux_logits": False} if architecture in ("googlenet", "inception_v3") else {}
    model: nn.Module = zoo.get_model(architecture, weights=None, num_classes=classes, **options)
    return model


def _users(architecture: str, classes: int) -> nn.Module:
    module, _, function = architecture.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), function)(num_classes=classes)
    except Exception as error:  # the user's own code may raise anything; the message names the key
        raise UserError(f"model.architecture is {architecture!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise UserError(f"model.architecture is {architecture!r}: it returned a {type(model).__name__}, not a torch.nn.Module")
    return model
