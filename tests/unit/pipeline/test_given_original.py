"""A given model that is read otherwise than it was trained: the line names what would mend it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lethe._util.errors import UserError
from lethe.data.device_data import Data
from lethe.models.class_order import positions, reorder
from lethe.pipeline.given_original import NORMALISATIONS, check, readings

CLASSES = ("ant", "bee", "cow", "dog")
SHADES = (40.0, 100.0, 160.0, 220.0)  # a class is a shade of grey


def data(mean: tuple[float, ...] = (0.5, 0.5, 0.5), std: tuple[float, ...] = (0.5, 0.5, 0.5)) -> Data:
    labels = torch.arange(80) % len(CLASSES)
    noise = torch.randint(-15, 16, (80, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(SHADES)[labels].view(-1, 1, 1, 1).expand(-1, 3, 4, 4) + noise
    mean_, std_ = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return Data(pixels.to(torch.uint8), labels, {"train": torch.arange(80), "retain": torch.arange(60)}, mean_, std_)


def network(mean: float = 0.5, std: float = 0.5, order: tuple[int, ...] = (0, 1, 2, 3)) -> nn.Module:
    """The classifier by the nearest shade, of inputs with this normalisation; `order`: the class of each output."""
    head = nn.Linear(3, len(CLASSES))
    centres = (torch.tensor(SHADES)[list(order)] / 255 - mean) / std
    with torch.no_grad():
        head.weight.copy_((2 * centres).view(-1, 1).expand(-1, 3) / 3)
        head.bias.copy_(-centres.square())
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


def test_a_model_that_is_read_as_it_was_trained_passes() -> None:
    assert check(network(), data(), CLASSES, "model.pth") == ""


def test_another_class_order_is_found_and_named() -> None:
    order = (2, 0, 3, 1)  # cow, ant, dog, bee
    with pytest.raises(UserError) as error:
        check(network(order=order), data(), CLASSES, "model.pth")
    line = str(error.value)
    assert "model.pth gets 0.0 % of its own training images right as it is read here" in line
    assert "100.0 % with pretrain.classes cow,ant,dog,bee: set that" in line and "\n" not in line
    for name in NORMALISATIONS:
        assert f"normalisation {name}" in line
    mended = network(order=order)
    reorder(mended, positions(("cow", "ant", "dog", "bee"), CLASSES), data().normalised(torch.arange(4)))
    assert check(mended, data(), CLASSES, "model.pth") == ""


def test_another_normalisation_is_found_and_named() -> None:
    line = check(network(), data(*NORMALISATIONS["none"]), CLASSES, "model.pth")
    assert "100.0 % with data.mean 0.5,0.5,0.5 and data.std 0.5,0.5,0.5: set that if it was trained so" in line
    assert "with data.mean 0,0,0 and data.std 0.00392157" in check(network(0.0, 1 / 255), data(), CLASSES, "model.pth")


def test_both_at_once_are_found_and_named() -> None:
    with pytest.raises(UserError, match=r"data\.std 0\.00392157,0\.00392157,0\.00392157 and pretrain\.classes bee,ant,dog,cow: set that"):
        check(network(0.0, 1 / 255, order=(1, 0, 3, 2)), data(), CLASSES, "model.pth")


def test_a_model_that_no_reading_mends_is_logged_not_refused() -> None:
    untrained = network()
    for parameter in untrained.parameters():
        nn.init.zeros_(parameter)
    line = check(untrained, data(), CLASSES, "model.pth")
    assert line.startswith("model.pth gets 25.0 % of its own training images right") and "no other reading is better" in line
    halves = network(order=(0, 0, 2, 2))  # never says bee or dog: half right, and no order is better
    assert check(halves, data(), CLASSES, "model.pth") == ""


def test_a_reading_that_is_better_but_not_good_is_logged() -> None:
    """An untrained model of a few classes can gain much by chance."""
    three_of_four = network(order=(1, 0, 3, 3))
    line = check(three_of_four, data(), CLASSES, "model.pth")
    assert "and 75.0 % with pretrain.classes" in line and "set that if it was trained so" in line


def test_chance_finds_no_order() -> None:
    """The order is chosen on other images than it is measured on."""
    shuffled = replace(data(), labels_N=torch.randint(0, 4, (80,), generator=torch.Generator().manual_seed(1)))
    assert max(reading.accuracy for reading in readings(network(), shuffled, CLASSES)) < 45


def test_weights_that_are_not_finite_are_refused() -> None:
    broken = network()
    nn.init.constant_(next(iter(broken.parameters())), float("nan"))
    with pytest.raises(UserError, match="the logits of model.pth are not all finite"):  # noqa: RUF043
        check(broken, data(), CLASSES, "model.pth")


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        (("ant", "bee", "cow"), "(dog missing)"),
        (("ant", "bee", "cow", "cat"), "(the data have no cat)"),
        (("ant", "bee", "cow", "dog", "ant"), "(a class twice)"),
    ],
)
def test_classes_must_be_those_of_the_data(own: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(UserError) as error:
        positions(own, CLASSES)
    assert wrong in str(error.value) and str(error.value).endswith("ant,bee,cow,dog")


def test_outputs_that_the_last_layer_does_not_make_are_refused() -> None:
    flipped = nn.Sequential(network(), nn.Softmax(1), nn.Linear(4, 4), nn.Flatten()).eval()
    reorder(flipped, (1, 0, 2, 3), data().normalised(torch.arange(4)))  # a last layer of its own

    class Mirrored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(images)
            return logits.flip(1)

    with pytest.raises(UserError, match="outputs of Mirrored can't be reordered"):
        reorder(Mirrored().eval(), (1, 0, 2, 3), data().normalised(torch.arange(8)))
