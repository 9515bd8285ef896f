"""Convolutions on a few pixels as matrix products: what the library gives, forwards and backwards."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from lethe.models.small_conv import MOST, SmallConv2d, quicken


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    form=st.sampled_from([torch.channels_last, torch.contiguous_format]),
)
def test_the_library_s_sums(
    height: int,
    width: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
    form: torch.memory_format,
) -> None:
    if height + 2 * padding[0] < kernel[0] or width + 2 * padding[1] < kernel[1]:
        return
    draw = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(3, 4, kernel, stride, padding, bias=bias).double().to(memory_format=form)
    quick = quicken(copy.deepcopy(plain))
    assert type(quick) is SmallConv2d
    images = torch.randn(5, 3, height, width, generator=draw, dtype=torch.float64).to(memory_format=form)
    one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected, found = plain(one), quick(other)
    torch.testing.assert_close(found, expected)
    toward = torch.randn(expected.shape, generator=draw, dtype=torch.float64)
    expected.backward(toward)
    found.backward(toward)
    torch.testing.assert_close(other.grad, one.grad)
    for (name, parameter), own in zip(plain.named_parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(own.grad, parameter.grad, msg=name)


def test_a_gradient_lies_in_memory_as_its_weight() -> None:
    """Otherwise every optimizer step walks one of the two against the grain."""
    quick = quicken(nn.Conv2d(8, 8, 3, padding=1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quick(torch.randn(4, 8, 2, 2)).sum().backward()
    weight = quick.get_parameter("weight")
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


def test_under_autocast_as_the_library() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, padding=1)
    quick = quicken(copy.deepcopy(plain))
    images = torch.randn(4, 8, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = plain(images), quick(images)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    expected.float().square().sum().backward()
    found.float().square().sum().backward()
    for own, parameter in zip(quick.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None and own.grad.dtype == torch.float32
        assert parameter.grad is not None
        torch.testing.assert_close(own.grad, parameter.grad, rtol=0.05, atol=0.05 * float(parameter.grad.abs().max()))


@pytest.mark.parametrize("size", [1, 2])
def test_several_models_at_once(size: int) -> None:
    assert size * size <= MOST
    torch.manual_seed(0)
    models = [quicken(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))) for _ in range(3)]
    parameters, _ = stack_module_state(models)
    images = torch.randn(3, 5, 3, size, size)
    together = vmap(lambda weights, x: functional_call(models[0], weights, (x,)))(parameters, images)
    together.square().sum().backward()
    for number, model in enumerate(models):
        alone = model(images[number])
        torch.testing.assert_close(together[number], alone)
        alone.square().sum().backward()
        torch.testing.assert_close(parameters["0.weight"].grad[number], model.get_parameter("0.weight").grad)
