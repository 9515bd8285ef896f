"""Several models stepped at once are the models stepped one after another: float64, so that nothing but a fault can be seen."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.engine.run_state import State
from lethe.engine.stacked_models import Stack, refusal, stacked, unstacked
from lethe.models import architectures as model
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Augment, Phase, Recipe, Term
from lethe.recipes.schedules import Cosine, OneCycle
from lethe.recipes.weight_edits import Reinitialise
from support.phases import data, final, phase

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = (3, 0, 7)
SCRATCH = (
    Phase("train", 2, (Term("retain"),), 8, OneCycle(0.01), optimizer=SGD(0.9, 0.0005), augment=Augment(2, True), lr_steps="batch"),
    Phase("anneal", 1, (Term("retain"),), 8, Cosine(0.001), augment=Augment(0, True)),
)


class Double(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        for name, block in inner.double().named_children():
            self.add_module(name, block)
        self.inner = (inner,)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = images_BCHW.double()
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
        return self.get_submodule("fc")(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def network(seed: int) -> nn.Module:
    return Double(model.build("convnet", 3, seed)).eval()


def at_once(recipe: Recipe, source: Data, splits: tuple[dict[str, Tensor], ...] = ()) -> nn.Module:
    stack = stacked([network(seed) for seed in SEEDS])
    list(engine.run(recipe, stack, source, RunOptions(step_inputs=Stack(SEEDS, splits))))
    return stack


@pytest.mark.parametrize("recipe", [SCRATCH, (phase(), final()), (phase(batchnorm="train"),)], ids=["scratch", "frozen", "hybrid"])
def test_at_once_is_one_after_another(recipe: Recipe) -> None:
    source = data()
    stack = at_once(recipe, source)
    for number, seed in enumerate(SEEDS):
        alone, start = network(seed), network(seed).state_dict()
        list(engine.run(recipe, alone, source, RunOptions(seed=seed)))
        found = unstacked(stack, number)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-7, msg=f"seed {seed}: {name}")
        for name, _ in alone.named_parameters():
            moves = recipe == SCRATCH or name.startswith(("layer4", "fc"))
            assert torch.equal(found[name], start[name]) != moves, name
    assert not any(module.training for module in stack.modules())


def test_each_of_a_stack_may_learn_and_forget_its_own_images() -> None:
    source = data()
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    splits = []
    for draw in draws:
        order = torch.randperm(len(source.labels_N), generator=draw)
        sizes = [len(index) for index in source.splits.values()]
        splits.append(dict(zip(source.splits, order.split(sizes), strict=True)))
    stack = at_once((phase(), final()), replace(source, splits=splits[0]), (*splits,))
    ends = []
    for number, seed in enumerate(SEEDS):
        alone = network(seed)
        list(engine.run((phase(), final()), alone, replace(source, splits=splits[number]), RunOptions(seed=seed)))
        ends.append(alone.state_dict())
        for name, value in unstacked(stack, number).items():
            torch.testing.assert_close(value, ends[-1][name], rtol=1e-7, atol=1e-7, msg=f"seed {seed}: {name}")
    same = at_once((phase(), final()), replace(source, splits=splits[0]))
    assert not torch.allclose(unstacked(same, 1)["fc.weight"], ends[1]["fc.weight"])


def test_the_losses_told_are_means_over_the_models() -> None:
    source = data()
    stack = stacked([network(seed) for seed in SEEDS])
    told = [epoch.losses for epoch in engine.run(SCRATCH, stack, source, RunOptions(step_inputs=Stack(SEEDS)))]
    alone = [[epoch.losses for epoch in engine.run(SCRATCH, network(seed), source, RunOptions(seed=seed))] for seed in SEEDS]
    for number in (1, 2, 3):
        mean = sum(losses[number]["retain"] for losses in alone) / len(SEEDS)
        assert told[number]["retain"] == pytest.approx(mean, rel=1e-6)


def test_a_resumed_stack_ends_the_same() -> None:
    """Weights, momentum and the count of passes go through the resume state as any network's."""
    source, state = data(), State()
    whole = at_once(SCRATCH, source)
    stack = stacked([network(seed) for seed in SEEDS])
    for epoch in engine.run(SCRATCH, stack, source, RunOptions(step_inputs=Stack(SEEDS)), state=state):
        if epoch.global_epoch == 2:
            break
    saved = {name: value.clone() for name, value in state.tensors(stack).items()}
    again = replace(state, pending=saved, optimizer=None)
    stack = stacked([network(seed) for seed in SEEDS])
    list(engine.run(SCRATCH, stack, source, RunOptions(step_inputs=Stack(SEEDS)), state=again))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, stack.state_dict()[name]), name


class Tied(nn.Module):
    """Two layers share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.fc = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.fc(self.second(self.first(self.stem(images_BCHW).mean((2, 3)))))  # type: ignore[no-any-return]


class Looks(Tied):
    """Its path depends on the values."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits = super().forward(images_BCHW)
        return logits if logits.sum() > 0 else 2 * logits


class Hides(Tied):
    """What differs between two of them is neither weight nor buffer."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.scale * super().forward(images_BCHW)


class Distils:
    """A loss that asks the original."""

    def __call__(self, logits_BC: Tensor, batch: Any, refs: Any) -> Tensor:
        return (logits_BC - refs.original(batch.images_BCHW)).square().mean()  # type: ignore[no-any-return]


def test_what_can_not_be_stacked_says_why() -> None:
    source = data(32)
    assert refusal(SCRATCH, [model.build("convnet", 3, seed) for seed in SEEDS], source) == ""
    assert refusal(SCRATCH, [Tied() for _ in SEEDS], source) == ""
    assert "data-dependent" in refusal(SCRATCH, [Looks() for _ in SEEDS], source)
    assert refusal(SCRATCH, [Hides(1.0), Hides(2.0)], source).endswith("moves otherwise than alone")
    assert refusal((Reinitialise(),), [Tied() for _ in SEEDS], source) == "reinitialise writes to one model"
    assert refusal((phase(keep="best"),), [Tied() for _ in SEEDS], source) == "keep is best, of one model"
    assert refusal((phase(terms=(Term("retain", Distils()),)),), [Tied() for _ in SEEDS], source) == "Distils looks at other models"
    counting = [model.build("convnet", 3, seed) for seed in SEEDS]
    for one in counting:
        one.get_submodule("layer2.1").momentum = None  # type: ignore[assignment]
    assert "item()" in refusal(SCRATCH, counting, source)
