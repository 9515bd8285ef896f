"""Convolutions with few output pixels as matrix products: the same sums, in another order (CPU only).

torchvision's ResNet-18 shrinks a 32x32 image to 2x2 and 1x1 before its last block. There a padded 3x3 kernel mostly covers the
border, and the CPU library's backward pass still multiplies all of it: 63 % of a training step on one core (docs/log.md).
B batch size, C input channels, O output channels."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST = 4  # output pixels; above, the library is faster

Pair = tuple[int, ...]  # height, width


class SmallConv2d(nn.Conv2d):
    """nn.Conv2d that computes outputs of at most MOST pixels as one matrix product each, over the part of the kernel inside the image."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)  # quicken() replaces no other
        height, width = _size(input, weight, self.stride, self.padding)
        if not 0 < height * width <= MOST:
            return functional.conv2d(input, weight, bias, self.stride, self.padding)
        if torch.is_autocast_enabled(input.device.type):  # as autocast does with the library's convolution, and back in the gradient
            kind = torch.get_autocast_dtype(input.device.type)
            input, weight, bias = input.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        out: Tensor = _Products.apply(input, weight, self.stride, self.padding)
        return out if bias is None else out + bias.view(-1, 1, 1)


class _Products(torch.autograd.Function):
    """The product with its own backward pass: autograd would allocate a tensor of the kernel's size for each slice, and return the sum in
    another memory format than the kernel's, which slows every optimizer step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        height, width = _size(input, weight, stride, padding)
        windows = _windows(input, weight, stride, padding)
        pixels = [_rows(input[seen]) @ _rows(weight[under]).T for seen, under in windows]
        out: Tensor = torch.stack(pixels, dim=1).unflatten(1, (height, width))
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pair, Pair], output: Tensor) -> None:
        input, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        input, weight = ctx.saved_tensors
        of_input = torch.zeros_like(input) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        pixels = gradients[0].flatten(2).unbind(2)
        for pixel_BO, (seen, under) in zip(pixels, _windows(input, weight, ctx.stride, ctx.padding), strict=True):
            if of_input is not None:
                part = pixel_BO @ _rows(weight[under])
                of_input[seen] += part.view(len(part), *_shape(weight[under])).permute(0, 3, 1, 2)
            if of_weight is not None:
                part = pixel_BO.T @ _rows(input[seen])
                of_weight[under] += part.view(len(part), *_shape(input[seen])).permute(0, 3, 1, 2)
        return of_input, of_weight, None, None


def _windows(input: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each output pixel, row by row: the slice of the image that it depends on, and the slice of the kernel that covers it."""
    rows, columns = (
        [(slice(max(at, 0), max(at + kernel, 0)), slice(max(-at, 0), max(size - at, 0))) for at in range(-pad, -pad + out * step, step)]
        for size, kernel, step, pad, out in zip(
            input.shape[-2:], weight.shape[-2:], stride, padding, _size(input, weight, stride, padding), strict=True
        )
    )
    every = slice(None)
    for seen_y, under_y in rows:
        for seen_x, under_x in columns:
            yield (every, every, seen_y, seen_x), (every, every, under_y, under_x)


def _size(input: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Pair:
    height, width = (
        (size + 2 * pad - kernel) // step + 1
        for size, kernel, step, pad in zip(input.shape[-2:], weight.shape[-2:], stride, padding, strict=True)
    )
    return height, width


def _rows(window: Tensor) -> Tensor:
    """[B, C, h, w] as [B, h w C]; no copy in channels-last."""
    return window.permute(0, 2, 3, 1).flatten(1)


def _shape(window: Tensor) -> tuple[int, ...]:
    return (*window.shape[2:], window.shape[1])


def quicken(model: nn.Module) -> nn.Module:
    """Turn every plain convolution of a model into a SmallConv2d, in place; names, weights and buffers do not change.

    Convolutions with groups, dilation or another padding than zeros are left as they are."""
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if plain and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
            module.__class__ = SmallConv2d
    return model
