"""What frozen layers give, computed once: the same run but for the order of sums, and refused where it would not be."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lethe.data.device_data import Data, RawInputs
from lethe.engine import engine
from lethe.engine.engine import Epoch
from lethe.engine.feature_table import feature_table
from lethe.engine.frozen_prefix import Cut, Prefix, split
from lethe.engine.options import RunOptions
from lethe.evaluation import inference as predict
from lethe.models import architectures as model
from lethe.models.small_conv import quicken
from lethe.recipes.recipe import Augment, Phase, Term
from lethe.recipes.trainable import ALL, Layers, Stages
from support.phases import HEAD, TERMS, data, final, phase

pytestmark = pytest.mark.usefixtures("one_thread")


def network(name: str = "convnet") -> nn.Module:
    student = quicken(model.build(name, 3, 1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draw = torch.Generator().manual_seed(0)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=draw)  # type: ignore[union-attr]
    return student  # type: ignore[no-any-return]


class Watched(Prefix):
    """Counts the images that went through frozen layers, and remembers what the engine was given."""

    def __call__(self, phase: Phase, model: nn.Module, data: Data, trains: frozenset[str]) -> tuple[nn.Module, Data]:
        seen = super().__call__(phase, model, data, trains)
        self.given = [*getattr(self, "given", []), seen]
        return seen


def ran(student: nn.Module, steps: tuple[Phase, ...], view: Prefix, source: Data) -> list[Epoch]:
    evaluate = predict.evaluator(source, ("retain", "forget", "validation"), view.autocast)
    return list(engine.run(steps, student, source, RunOptions(evaluate=evaluate, step_inputs=view, autocast=view.autocast)))


@pytest.mark.parametrize(
    ("batchnorm", "name"),
    [
        ("eval_frozen", "convnet"),
        ("eval", "convnet"),
        ("eval_frozen", "resnet18"),
        pytest.param("eval", "resnet18", marks=pytest.mark.slow),
    ],
)
def test_a_run_on_features_is_the_run_on_images(name: str, batchnorm: str) -> None:
    # products of 16 rows are summed as those of 512 are; BatchNorm on a 1x1 image blows a last digit up
    known = {"batchnorm": batchnorm, "batch_size": 16}
    steps = phase(**known), final(**known)
    source, plain, quick, view = data(32, 16), network(name), network(name), Watched(1024)
    expected, measured = ran(plain, steps, Prefix(0), source), ran(quick, steps, view, source)
    assert len(view.given) == 4 and all(isinstance(seen[1], RawInputs) for seen in view.given)
    assert len({id(seen[1]) for seen in view.given}) == 1, "computed once"
    for (key, one), other in zip(plain.state_dict().items(), quick.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=key)
    for one, two in zip(expected, measured, strict=True):
        assert one.metrics == pytest.approx(two.metrics, abs=1e-4)
        assert one.losses == pytest.approx(two.losses, abs=1e-4)
    assert [p.requires_grad for p in quick.parameters()] == [True] * len(list(quick.parameters()))
    assert not any(module.training for module in quick.modules())


@pytest.mark.parametrize(
    ("name", "trains", "channels_last", "autocast"),
    [
        ("convnet", HEAD, True, False),
        ("convnet", Layers(("fc",)), True, False),  # features of 1x1 pixel
        ("convnet", HEAD, False, False),
        ("convnet", HEAD, True, True),
    ],
)
def test_features_in_a_file_are_those_in_memory(tmp_path: Path, name: str, trains: Layers, channels_last: bool, autocast: bool) -> None:
    def context() -> Any:
        return torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()

    said: list[str] = []
    source, held, filed = replace(data(16, 20), channels_last=channels_last), network(name), network(name)
    steps, view = (phase(trains=trains),), Watched(1024, context, said.append, tmp_path / "data", in_memory=0)
    expected, measured = ran(held, steps, Prefix(1024, context), source), ran(filed, steps, view, source)
    features = view.given[0][1]
    assert (
        features.stored is not None
        and features.stored.large
        and features.images_NCHW.dtype == (torch.bfloat16 if autocast else torch.float32)
    )
    assert all(torch.equal(one, other) for one, other in zip(held.state_dict().values(), filed.state_dict().values(), strict=True))
    assert [epoch.metrics for epoch in expected] == [epoch.metrics for epoch in measured]
    assert not any(tmp_path.iterdir()) and len(said) == 1, "the file has no name, and is no matter of the log"


def test_inputs_from_a_file_have_the_strides_of_those_in_memory(tmp_path: Path) -> None:
    """By its strides torch chooses how it computes, and so the order of sums."""
    source = data()
    for shape in ((8, 3, 3), (8, 1, 1), (1, 3, 3), (8, 1, 3), (5,), (4, 6)):
        held, filed = (feature_table(source, torch.zeros(1, *shape), folder, 0)[0] for folder in (None, tmp_path))
        for index_B in torch.arange(len(source.labels_N)).split(7):
            values = torch.rand(len(index_B), *shape)
            held.put(index_B, values)
            filed.put(index_B, values)
        index_B = torch.tensor([9, 0, 59, 9])
        one, other = held.inputs().normalised(index_B), filed.inputs().normalised(index_B)
        assert torch.equal(one, other) and one.stride() == other.stride() and other.shape == (4, *shape)


def test_a_disk_without_room_for_features_costs_memory_alone(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    said: list[str] = []
    source, held, filed = data(16, 20), network(), network()
    ran(held, (phase(epochs=1),), Prefix(1024), source)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        ran(filed, (phase(epochs=1),), Prefix(1024, log=said.append, folder=tmp_path, in_memory=0), source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "stay in memory" in said[1] and str(tmp_path) in said[1]
    assert all(torch.equal(one, other) for one, other in zip(held.state_dict().values(), filed.state_dict().values(), strict=True))


def test_the_test_split_is_not_looked_at() -> None:
    source, view = data(), Watched(1024)
    spoiled = replace(source, images_NCHW=source.images_NCHW.clone())
    spoiled.images_NCHW[source.splits["test"]] = 255
    ran(one := network(), (phase(epochs=1),), view, source)
    ran(two := network(), (phase(epochs=1),), Prefix(1024), spoiled)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert "test" not in view.given[0][1].splits


def test_layers_that_begin_to_train_are_no_longer_features() -> None:
    """Unfreezing, and what trained in between: the features of other weights are of no use."""
    source, plain, quick, view = data(32), network(), network(), Watched(1024)
    stages = Stages(((0.0, HEAD), (0.5, Layers(("layer1", "layer4", "fc")))))
    steps = phase(epochs=4, trains=stages), final(epochs=2)
    ran(plain, steps, Prefix(0), source)
    ran(quick, steps, view, source)
    assert [isinstance(seen[1], RawInputs) for seen in view.given] == [True, True, False, False, True, True]
    assert view.given[0][1] is view.given[1][1] is not view.given[4][1]
    for one, other in zip(plain.state_dict().values(), quick.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_another_network_is_not_taken_for_the_one_before() -> None:
    """A search hands in one network after another: features are shared where the frozen layers are equal, layers never."""
    source, view = data(), Watched(1024)
    for seed, shares in ((1, False), (1, True), (2, False)):
        torch.manual_seed(seed)
        student = model.build("convnet", 3, seed)
        before = copy.deepcopy(student)
        known = view._made and view._made[3]
        ran(student, (phase(),), view, source)
        assert (view._made is not None and view._made[3] is known) == shares
        ran(before, (phase(),), Prefix(0), source)
        for one, other in zip(before.state_dict().values(), student.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Sees:
    """A loss of the images themselves."""

    def __call__(self, logits_BC: Tensor, batch: Any, refs: Any) -> Tensor:
        assert batch.images_BCHW.shape[1] == 3
        return logits_BC.square().mean()


class Branching(nn.Module):
    """Its forward pass looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer3, self.layer4 = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer3(x).mean((2, 3))
        return self.layer4(y if y.sum() > 0 else -y)  # type: ignore[no-any-return]


class Drawing(Branching):
    """Draws before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.drop(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Mixing(Branching):
    """Images look at one another."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(x - x.flip(0)).mean((2, 3)))  # type: ignore[no-any-return]


class Summing(Branching):
    """Images look at one another through a method that is per image elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(x.mean(0, keepdim=True).add(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("student", [Branching(), Drawing(), Mixing(), Summing()], ids=lambda m: type(m).__name__)
def test_networks_that_can_not_be_cut_run_as_they_are(student: nn.Module) -> None:
    view, source, twin = Watched(1024), data(), copy.deepcopy(student)
    ran(student, (phase(trains=Layers(("layer4",))),), view, source)
    assert all(seen == (student, source) for seen in view.given)
    ran(twin, (phase(trains=Layers(("layer4",))),), Prefix(0), source)
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), twin.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batchnorm": "train"}, "up to conv1 they are"),
        ({"trains": ALL}, "no layer is frozen"),
        ({"augment": Augment(2)}, "augmented"),
        ({"terms": (Term("retain", Sees()), TERMS[1])}, "a loss looks at more than logits"),
        ({"trains": Layers(("layer2", "layer3", "layer4", "fc")), "batchnorm": "train"}, "not worth the memory"),
    ],
)
def test_what_would_change_the_run_is_refused(changes: dict[str, object], why: str) -> None:
    said: list[str] = []
    view, source, student = Watched(1024, log=said.append), data(32), network("resnet18")
    ran(student, (phase(**{"epochs": 1, **changes}),), view, source)
    assert all(seen == (student, source) for seen in view.given)
    assert [why in text for text in said] == [True] if changes.get("trains") is not ALL else not said


def test_more_than_the_memory_that_is_granted() -> None:
    said: list[str] = []
    ran(student := network(), (phase(epochs=1),), Prefix(1, log=said.append), data(32, 200))
    (text,) = said
    assert "run.cache is 1" in text and "2 MiB" in text
    assert isinstance(split(student.eval(), HEAD(student, 0), torch.zeros(2, 3, 32, 32)), Cut)


def test_a_cut_is_behind_the_last_frozen_layer_that_all_goes_through() -> None:
    student = network("resnet18")

    def cut(*names: str) -> str:
        found = split(student, Layers(names)(student, 0), torch.rand(2, 3, 32, 32))
        return found.name if isinstance(found, Cut) else found

    assert cut("layer4", "fc") == "layer3.1.relu"
    assert cut("fc") == "avgpool"
    assert cut("layer4.1.conv2") == "layer4.0.relu", "not behind layer4.1.conv1, which the shortcut goes round"
    assert cut("layer4.0.downsample") == "layer3.1.relu"
