"""A small, wide network for images of 32 pixels that trains in seconds on a GPU (Jordan, arXiv:2404.00498, section 3)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Whitening(nn.Module):
    """A convolution of 2x2 whose kernel is a buffer, since training does not move it: `recipes.weight_edits.Whiten` sets it.

    Its filters are the 12 principal directions of patches and their negatives; before they are set, random ones. The bias trains."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(24, 3, 2, 2) / 12**0.5)
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """float32 [B, 24, H - 1, W - 1] for images float32 [B, 3, H, W]."""
        return functional.conv2d(images_BCHW, self.kernel, self.bias)


class ScaledLinear(nn.Linear):
    """A linear head without bias whose logits are divided by 9."""

    SCALE: ClassVar[float] = 1 / 9

    def forward(self, input: Tensor) -> Tensor:
        """Logits [B, classes] for features [B, D]."""
        return super().forward(input) * self.SCALE


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, whose first filters begin as the identity: each passes one channel on."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _block(inputs: int, outputs: int) -> nn.Sequential:
    def normalised() -> list[nn.Module]:
        return [nn.BatchNorm2d(outputs, momentum=0.4), nn.GELU()]

    return nn.Sequential(_convolution(inputs, outputs), nn.MaxPool2d(2), *normalised(), _convolution(outputs, outputs), *normalised())


class FastNet(nn.Module):
    """Whitening, three blocks of two 3x3 convolutions of width 64, 256 and 256, a maximum over the image, and a head (2.0 M weights).

    Takes float32 [B, 3, H, W] of at least 9 pixels, returns [B, classes]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.whiten = Whitening()
        self.block1, self.block2, self.block3 = _block(24, 64), _block(64, 256), _block(256, 256)
        self.head = ScaledLinear(256, num_classes, bias=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits float32 [B, classes] for images float32 [B, 3, H, W]."""
        features = functional.gelu(self.whiten(images_BCHW))
        features = self.block3(self.block2(self.block1(features)))
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits
