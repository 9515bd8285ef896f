"""Randomly initialised copies of a network of the caller's own."""

import pytest
import torch
from torch import nn

from lethe.models import architectures
from lethe.models.redraw import redrawn


class Token(nn.Module):
    """Weights of its own, which nothing resets."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.linspace(0, 8, 2000))
        self.scale = nn.Parameter(torch.full((4,), 1e-6))
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.BatchNorm1d(4)


def test_every_weight_is_drawn_anew_and_the_network_stays() -> None:
    network = Token()
    network.norm(torch.randn(8, 4) + 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.random.get_rng_state()
    one, same, other = redrawn(network, 3).state_dict(), redrawn(network, 3).state_dict(), redrawn(network, 4).state_dict()
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name in ("token", "attention.in_proj_weight", "attention.out_proj.weight"):
        assert not torch.allclose(one[name], before[name], atol=1e-3), name
        assert not torch.allclose(one[name], other[name], atol=1e-3), name
    assert one["norm.running_mean"].eq(0).all() and one["norm.num_batches_tracked"] == 0
    assert torch.equal(one["scale"], before["scale"])
    assert one["token"].mean().item() == pytest.approx(4, abs=0.3) and one["token"].std().item() == pytest.approx(2.31, abs=0.3)


class Given(nn.Module):
    """Weights that are reset by what its owner gives."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.weight = nn.Linear(4, 4), nn.Parameter(torch.linspace(0, 8, 2000))

    def reset_parameters(self, size: float) -> None:
        nn.init.normal_(self.weight, std=size)


def test_a_module_whose_reset_must_be_given_something_is_drawn_by_its_own_weights() -> None:
    network = Given()
    fresh = redrawn(network, 3)
    for name in ("weight", "inner.weight"):
        assert not torch.allclose(fresh.get_parameter(name), network.get_parameter(name), atol=1e-3), name
    assert fresh.get_parameter("weight").std().item() == pytest.approx(2.31, abs=0.3)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_weights_have_the_size_of_those_that_their_layers_draw(name: str) -> None:
    network = architectures.build(name, 10, 0)
    fresh = redrawn(network, 1)
    assert not any(module.training for module in fresh.modules())
    assert fresh.get_parameter("fc.weight").std().item() == pytest.approx(network.get_parameter("fc.weight").std().item(), rel=0.2)
    assert not torch.allclose(fresh.get_parameter("fc.weight"), network.get_parameter("fc.weight"), atol=1e-3)
