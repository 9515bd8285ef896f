"""Optimizers: torch's own arithmetic and state, without its compiler."""

import copy
import pickle
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from lethe.recipes.optimizers import SGD, Adam, AdamW, OptimizerRecipe


def trained(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for rate in (0.1, 0.05, 0.02):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        network(inputs).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize(
    ("recipe", "plain"),
    [
        (SGD(0.9, 0.01), lambda weights: torch.optim.SGD(weights, lr=0.0, momentum=0.9, weight_decay=0.01)),
        (Adam(0.01), lambda weights: torch.optim.Adam(weights, lr=0.0, weight_decay=0.01)),
        (AdamW(0.01), lambda weights: torch.optim.AdamW(weights, lr=0.0, weight_decay=0.01)),
    ],
)
def test_it_steps_as_torchs_own_and_its_state_fits_it_without_importing_the_compiler(
    recipe: OptimizerRecipe, plain: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    expected = plain(theirs.parameters())
    wanted = trained(theirs, expected)
    with monkeypatch.context() as no_compiler:
        no_compiler.setitem(sys.modules, "torch._dynamo", None)  # an import of it fails
        optimizer = recipe.build(list(ours.parameters()))
        assert all(map(torch.equal, trained(ours, optimizer), wanted))
        state = copy.deepcopy(optimizer.state_dict())
        resumed = recipe.build(list(ours.parameters()))
        resumed.load_state_dict(copy.deepcopy(state))
        again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is type(optimizer) and repr(again.state_dict()) == repr(optimizer.state_dict())
    assert repr(optimizer) == repr(expected)
    expected.load_state_dict(state)
    assert all(map(torch.equal, trained(ours, resumed), trained(theirs, expected)))
