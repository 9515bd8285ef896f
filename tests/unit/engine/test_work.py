"""The work of a run, counted while it happens, against the formula by hand."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lethe.engine import engine
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.frozen_references import FrozenReferences
from lethe.engine.options import RunOptions
from lethe.engine.resume import Resume
from lethe.engine.run_state import State
from lethe.engine.work import counted
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.trainable import Layers
from lethe.testing.small_runs import images, network, small

torch.set_num_threads(1)


def forward(model: nn.Module) -> tuple[int, int]:
    """Operations of a forward pass of one image: of all layers, and of the first convolution."""
    with torch.no_grad(), counted(model) as work:
        model.eval()(images().normalised(torch.arange(1)))
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad(), counted(first) as alone:
        model(images().normalised(torch.arange(1)))
    return work.flops, alone.flops


def test_a_layer_counts_three_forward_passes_where_it_and_an_earlier_one_train() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    inputs = torch.ones(7, 3)
    cases = {(True, True): 2 * 15 + 3 * 10, (False, True): 15 + 2 * 10, (True, False): 2 * 15 + 2 * 10}
    for trains, expected in cases.items():
        for layer, flag in zip((net[0], net[2]), trains, strict=True):
            layer.requires_grad_(flag)
        with counted(net) as work:
            net(inputs)
        assert work.flops == 2 * 7 * expected
    with torch.no_grad(), counted(net, net) as work:
        net(inputs)
    assert work.flops == 2 * 7 * 25
    net(inputs)
    assert work.flops == 2 * 7 * 25  # no hook is left
    with torch.no_grad(), counted(net) as work:
        copy.deepcopy(net)(inputs)  # as edits do whose gradients are of a copy
    assert work.flops == 2 * 7 * 25


def test_convolutions_by_their_formula() -> None:
    image = torch.ones(2, 4, 8, 8)
    for layer, expected in (
        (nn.Conv2d(4, 6, 3, padding=1), 2 * 6 * 64 * 4 * 9),
        (nn.Conv2d(4, 8, 3, padding=1, groups=4), 2 * 8 * 64 * 9),  # each output sees one input channel
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * 4 * 64 * 6 * 4),  # each input is spread over 6 x 4 outputs
    ):
        with torch.no_grad(), counted(layer) as work:
            layer(image)
        assert work.flops == 2 * expected


def test_an_epoch_counts_its_images() -> None:
    model, phase = network(), Phase("train", 1, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0))
    whole, first = forward(model)
    _, epoch = engine.run((phase,), model, images(), RunOptions(count_work=True))
    assert epoch.flops == epoch.images * (3 * whole - first) and epoch.images >= len(images().splits["retain"])
    _, epoch = engine.run((phase,), model, images(), RunOptions())
    assert epoch.flops is None


def test_frozen_layers_count_once_and_cached_ones_almost_nothing() -> None:
    model, phase = (
        network(),
        Phase("head", 3, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0), trains=Layers(("fc",)), batchnorm="eval_frozen"),
    )
    whole, _ = forward(model)
    with torch.no_grad(), counted(model.get_submodule("fc")) as work:
        model.eval()(images().normalised(torch.arange(1)))
    head = work.flops
    options = RunOptions(count_work=True)
    plain, cached = (
        [epoch.flops for epoch in engine.run((phase,), network(), images(), each) if epoch.steps]
        for each in (options, replace(options, step_inputs=Prefix(64)))
    )
    seen = len(images().splits["retain"])
    assert plain == [seen * (whole + head)] * 3
    assert cached[1:] == [seen * 2 * head] * 2  # of a head whose inputs take no gradient
    assert cached[0] is not None and seen * 2 * head < cached[0] < len(images().labels_N) * 2 * whole  # the features, once


def test_a_network_made_late_is_counted_while_something_counts_and_never_after() -> None:
    model, inputs = network(), images().normalised(torch.arange(1))
    whole, _ = forward(model)
    refs = FrozenReferences(network(), network, network)
    with torch.no_grad(), refs.counted(model) as work:
        refs.random_init(inputs)
    assert work.flops == whole
    for late in (refs, FrozenReferences(network(), network, network)):
        late.fresh_init(inputs)
        assert not any(module._forward_hooks for module in late.fresh_init.modules())
    assert work.flops == whole


def test_counting_changes_no_weight() -> None:
    for method in ("hybrid_4", "model_3"):
        weights = []
        for count_work in (False, True):
            model = network()
            for _ in engine.run(small(method), model, images(), replace(RunOptions(seed=3), count_work=count_work)):
                pass
            weights.append(model.state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def resumed_after(stop: int, steps: Recipe, folder: Path) -> list[engine.Epoch]:
    """All epochs of a run that is stopped after the epoch of this number, and continued from its file by another process."""
    options, model, state, resume = RunOptions(count_work=True), network(), State(), Resume(folder)
    seen: list[engine.Epoch] = []
    for epoch in engine.run(steps, model, images(), options, state=state):
        resume.record(epoch, state, model)
        seen.append(epoch)
        if epoch.global_epoch == stop:
            break
    with Resume(folder).loaded(torch.device("cpu")) as rest:
        return [*seen, *engine.run(steps, network(), images(), options, state=rest)]


@pytest.mark.parametrize("method", ["salun", "sfr_on", "msg"])
def test_a_resumed_run_counts_what_an_uninterrupted_one_does(method: str, tmp_path: Path) -> None:
    """What a phase's rules compute as it begins is in its first epoch, whoever computes it once more."""
    steps = small(method)
    whole = [epoch.flops for epoch in engine.run(steps, network(), images(), RunOptions(count_work=True))]
    for stop in range(len(whole)):
        assert [epoch.flops for epoch in resumed_after(stop, steps, tmp_path / str(stop))] == whole


@dataclass(frozen=True)
class Setup:
    """A gradient rule, a constraint and inputs whose beginning takes 1000 seconds by the clock of the test."""

    clock: list[float] = field(compare=False)
    begun: list[str] = field(compare=False)
    copies: ClassVar[int] = 1

    def __call__(self, *given: Any, **named: Any) -> Callable[..., Any]:
        self.begun.append("setup")
        self.clock[0] += 1000
        return lambda *batch: batch[0] if batch else None


def test_the_setup_of_a_phase_is_in_the_seconds_of_its_first_epoch_and_is_skipped_where_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begun = [0.0], list[str]()
    monkeypatch.setattr("lethe.engine.engine.time.perf_counter", lambda: clock[0])
    rule = Setup(clock, begun)
    first = Phase("first", 2, (Term("retain", inputs=rule),), 8, optimizer=SGD(0.9, 0.0), constraint=rule, gradients=rule)
    steps = (first, replace(first, name="second", epochs=1))
    seconds = [epoch.seconds for epoch in engine.run(steps, network(), images())]
    assert seconds == [0, 3000, 0, 3000] and len(begun) == 6
    for stop, setups in enumerate([6, 9, 6, 6]):  # by the run that is stopped and by the one that goes on
        begun.clear()
        assert [epoch.seconds for epoch in resumed_after(stop, steps, tmp_path / str(stop))] == seconds
        assert len(begun) == setups


def test_a_phase_that_its_stop_rule_has_ended_begins_nothing_once_more(tmp_path: Path) -> None:
    begun = list[str]()
    ended = Phase("only", 3, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0), gradients=Setup([0.0], begun), stop=Ended())
    assert len(resumed_after(1, (ended,), tmp_path)) == 2 and len(begun) == 1


@dataclass(frozen=True)
class Ended:
    """A stop rule that ends a phase after its first epoch."""

    def measure(self, *given: Any) -> float:
        return 0.0

    def reached(self, values: Sequence[float]) -> bool:
        return bool(values)
