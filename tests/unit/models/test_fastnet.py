"""The network and the recipe of the fast protocol."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lethe._util.errors import UserError
from lethe.engine import engine
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.options import RunOptions
from lethe.engine.stacked_models import refusal
from lethe.models import architectures
from lethe.recipes.fast_protocol import fast
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, parse
from lethe.recipes.trainable import Layers
from lethe.recipes.weight_edits import Whiten
from support.phases import data, phase

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    return architectures.build("fastnet", 3, 1)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """What the first layer gives without its bias, one patch a row."""
    with torch.no_grad():
        patches: Tensor = model.get_submodule("whiten")(images).movedim(1, -1).flatten(0, -2)
    return patches.double()


def test_outputs_over_patches_are_white() -> None:
    source, model = data(32), network()
    Whiten("retain", epsilon=0.0)(model, source, None)  # type: ignore[arg-type]
    seen = outputs(model, source.normalised(source.splits["retain"]))
    torch.testing.assert_close(seen[:, :12].T @ seen[:, :12] / len(seen), torch.eye(12).double(), rtol=0, atol=1e-3)
    assert torch.equal(seen[:, 12:], -seen[:, :12])


def test_whitening_takes_the_images_of_its_split_alone() -> None:
    source, model, other = data(32), network(), network()
    Whiten("retain")(model, source, None)  # type: ignore[arg-type]
    images = source.images_NCHW.clone()
    images[source.splits["forget"]] = 255
    Whiten("retain")(other, replace(source, images_NCHW=images), None)  # type: ignore[arg-type]
    before, after = network().state_dict(), model.state_dict()
    assert [name for name, value in after.items() if not torch.equal(value, before[name])] == ["whiten.kernel"]
    assert torch.equal(after["whiten.kernel"], other.state_dict()["whiten.kernel"])
    with pytest.raises(UserError, match=r"ConvNet has no whiten\.kernel to whiten; it takes model\.architecture fastnet"):
        Whiten("retain")(architectures.build("convnet", 3, 0), source, None)  # type: ignore[arg-type]


def test_whitening_takes_images_from_everywhere_in_a_split() -> None:
    """Images of a folder are in the order of their classes."""
    source, model, other = data(32), network(), network()
    rows = source.splits["retain"]
    few = len(rows) * 3 // 4
    Whiten("retain", images=few)(model, source, None)  # type: ignore[arg-type]
    spread = [number * len(rows) // few for number in range(few)]
    assert max(spread) >= len(rows) - 2 and len(set(spread)) == few
    Whiten("some")(other, replace(source, splits={"some": rows[spread]}), None)  # type: ignore[arg-type]
    assert torch.equal(model.get_buffer("whiten.kernel"), other.get_buffer("whiten.kernel"))


def test_the_recipe_is_read_back_and_older_ones_keep_their_text() -> None:
    recipe = fast("retain")
    assert parse(repr(recipe)) == recipe and "nesterov=True" in repr(recipe)
    assert repr(SGD(0.9, 0.0005)) == "SGD(momentum=0.9, weight_decay=0.0005)"


def test_training_is_a_plain_loop() -> None:
    """Against torch's optimizer, stepped by hand; without augmentation, whose draws are the engine's."""
    source, ours, plain = data(32), network(), network()
    edit, step = fast("retain", passes=2, images_per_step=10)
    assert isinstance(step, Phase)
    list(engine.run((edit, replace(step, augment=None)), ours, source, RunOptions()))
    Whiten("retain")(plain, source, None)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.85, weight_decay=0.00133, nesterov=True)
    plain.train()
    for number in range(2):
        for at, batch in enumerate(source.batches("retain", 10, 0, number)):
            optimizer.param_groups[0]["lr"] = step.lr((number + at / 3) / 2)
            optimizer.zero_grad()
            cross_entropy(plain(batch.images_BCHW), batch.labels_B, label_smoothing=0.2).backward()
            optimizer.step()
    for (name, value), expected in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name
    assert torch.equal(ours.state_dict()["whiten.kernel"], plain.state_dict()["whiten.kernel"])


@pytest.mark.parametrize("names", [("head",), ("last_block",), ("layer4", "fc")])
@pytest.mark.parametrize("cache", [0, 1024])
def test_what_is_named_trains_and_nothing_else(names: tuple[str, ...], cache: int) -> None:
    source, model = data(32), network()
    before = state(model)
    steps = (phase(epochs=1, trains=Layers(names), batchnorm="eval_frozen"),)
    list(engine.run(steps, model, source, RunOptions(step_inputs=Prefix(cache))))
    trained = {"head": ("head.",), "last_block": ("block3.",), "layer4": ("block3.", "head.")}[names[0]]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith(trained), name


def test_several_train_as_one_stack() -> None:
    _, step = fast("retain", passes=1, images_per_step=10)
    assert isinstance(step, Phase)
    assert refusal((replace(step, augment=None),), [network(), architectures.build("fastnet", 3, 2)], data(32)) == ""


def test_it_is_exported_and_checked() -> None:
    model = network()
    architectures.check(model, "fastnet", 32, 3)
    with pytest.raises(UserError, match=r"it fails on images of 8x8"):
        architectures.check(model, "fastnet", 8, 3)
    images = torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images))
