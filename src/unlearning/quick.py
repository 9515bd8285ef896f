"""Convolutions on images of a few pixels as matrix products: the same sums, in another order (CPU only).

torchvision's ResNet-18 shrinks a 32x32 image to 2x2 and 1x1 before its last block. There a padded 3x3 kernel lies mostly over the
border, and the CPU library's backward pass still multiplies all of it: 63 % of a training step on one core (docs/log.md)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST = 4  # output pixels; beyond them the library is faster


class SmallConv2d(nn.Conv2d):
    """nn.Conv2d whose outputs of at most MOST pixels are one matrix product each, over the part of the kernel that meets the image."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)  # quicken() chose
        height, width = input.shape[-2:]
        (kh, kw), (sh, sw), (ph, pw) = self.kernel_size, self.stride, self.padding
        out_h, out_w = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
        if not 0 < out_h * out_w <= MOST:
            return functional.conv2d(input, weight, bias, self.stride, self.padding)
        pixels = []
        for top in range(-ph, -ph + out_h * sh, sh):
            for left in range(-pw, -pw + out_w * sw, sw):
                seen = input[:, :, max(top, 0) : top + kh, max(left, 0) : left + kw]
                under = weight[:, :, max(-top, 0) : height - top, max(-left, 0) : width - left]
                pixels.append(functional.linear(seen.flatten(1), under.flatten(1), bias))
        return torch.stack(pixels, dim=2).view(len(input), -1, out_h, out_w)


def quicken(model: nn.Module) -> nn.Module:
    """Every plain convolution of the model computes so from now on; names, weights and buffers stay as they are."""
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if plain and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
            module.__class__ = SmallConv2d
    return model
