"""What a phase makes of its batches, and how it combines gradients: each value does what its docstring says."""

from dataclasses import replace

import pytest
import torch

from lethe.data.device_data import Batch, Data, RawInputs
from lethe.engine.frozen_references import FrozenReferences
from lethe.recipes.contrast import Contrastive
from lethe.recipes.gradients import Bargain, ForgetSalient
from lethe.recipes.importance import squared_gradients
from lethe.recipes.inputs import Adversarial, Perturbed, Views
from lethe.testing.small_runs import images, network


@pytest.fixture
def refs() -> FrozenReferences:
    return FrozenReferences(network(0).eval().requires_grad_(False), network(1).eval().requires_grad_(False))


def whole(data: Data, split: str = "forget") -> Batch:
    return next(data.batches(split, 100, 0, 0))


def test_a_second_view_is_of_the_same_images_and_drawn_anew(refs: FrozenReferences) -> None:
    data = images()
    before = whole(data)
    one, other = (Views(4, flip=True)(data, refs)(before) for _ in range(2))
    n = len(before.labels_B)
    assert torch.equal(one.images_BCHW[:n], before.images_BCHW)
    assert torch.equal(one.labels_B[n:], before.labels_B)
    assert torch.equal(one.index_B[n:], before.index_B)
    assert not torch.equal(one.images_BCHW[n:], other.images_BCHW[n:])
    plain = Views(0, flip=False)(data, refs)(before)
    assert torch.equal(plain.images_BCHW[n:], before.images_BCHW)


@pytest.mark.parametrize("kind", [Data, RawInputs])
def test_perturbed_copies_are_in_the_ball(kind: type[Data], refs: FrozenReferences) -> None:
    data = images() if kind is Data else raw()
    before, rule = whole(data), Perturbed(0.1, 3)
    after = rule(data, refs)(before)
    n, size = len(before.labels_B), before.images_BCHW[0].numel()
    assert len(after.labels_B) == rule.copies * n == 4 * n
    std = data.std if kind is Data else 1.0
    for part in after.images_BCHW.split(n)[1:]:
        distance = ((part - before.images_BCHW) * std).flatten(1).norm(dim=1)
        assert (distance <= 0.1 * size**0.5 * 1.001).all()
        assert (distance > 0.09 * size**0.5).all()  # most of a ball of many dimensions is near its surface


def raw() -> Data:
    data = images()
    return RawInputs(data.normalised(torch.arange(len(data.labels_N))), data.labels_N, data.splits, data.mean, data.std)


@pytest.mark.parametrize("kind", [Data, RawInputs])
def test_the_original_misclassifies_adversarial_examples_which_are_near(kind: type[Data], refs: FrozenReferences) -> None:
    data = images() if kind is Data else raw()
    answers = refs.original(data.normalised(torch.arange(len(data.labels_N)))).argmax(1)
    right = answers == data.labels_N
    data.labels_N[data.splits["forget"][::2]] = answers[data.splits["forget"][::2]]  # half of forget is classified correctly
    right = answers == data.labels_N
    before = whole(data)
    after = Adversarial(0.5, 8)(data, refs)(before)
    assert (after.labels_B != before.labels_B).all()
    assert torch.equal(refs.original(after.images_BCHW).argmax(1), after.labels_B)
    distance = (after.images_BCHW - before.images_BCHW).flatten(1).norm(dim=1)
    known = right[before.index_B]
    assert known.any()
    assert not known.all()
    assert (distance[known] > 0.05).all()
    assert (distance[~known] < 1e-4).all()
    if kind is Data:
        pixels = after.images_BCHW * data.std + data.mean
        assert pixels.min() > -1e-5
        assert pixels.max() < 1 + 1e-5


class Scaled(torch.nn.Module):
    """Logits times `scale`: the same answers, more certain."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network(0).eval().requires_grad_(False), scale

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.network(images_BCHW)
        return logits_BC * self.scale


def answered_right(model: torch.nn.Module) -> tuple[Data, Batch]:
    data = images()
    data.labels_N[:] = model(data.normalised(torch.arange(len(data.labels_N)))).argmax(1)
    return data, whole(data)


def test_an_image_that_the_original_is_certain_of_is_moved_like_any_other() -> None:
    """In float32 the gradient of its cross-entropy is 0."""
    model = Scaled(1e6)
    data, before = answered_right(model)
    after = Adversarial(0.5, 8)(data, FrozenReferences(model, model))(before)
    assert (after.labels_B != before.labels_B).all()
    assert torch.equal(model(after.images_BCHW).argmax(1), after.labels_B)


def test_an_image_that_no_ball_has_an_adversarial_example_for_stays_with_its_label() -> None:
    model = Scaled(1.0)
    data, before = answered_right(model)
    after = Adversarial(1e-6, 3, doublings=1)(data, FrozenReferences(model, model))(before)
    stays = after.labels_B == before.labels_B
    assert stays.any()
    assert torch.equal(after.images_BCHW[stays], data.as_inputs(data.pixels(before.index_B))[stays])


def test_views_that_agree_have_less_contrast() -> None:
    data = images()
    batch, features = whole(data), torch.randn(6, 5)
    same, mixed = (replace(batch, features_BD=torch.cat([features, other])) for other in (2 * features, features.roll(1, 0)))
    logits, none = torch.zeros(1), FrozenReferences(network(), network())
    assert Contrastive(0.1)(logits, same, none) < Contrastive(0.1)(logits, mixed, none)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_bargain_goes_halfway_between_two_directions_whatever_their_size(scale: float) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    Bargain(max_norm=10.0)([weight[0] * scale, weight[1]], [weight])
    assert weight.grad is not None
    assert torch.allclose(weight.grad, torch.ones(2))
    Bargain(max_norm=1.0)([weight[0] * scale, weight[1]], [weight])
    assert weight.grad.norm() == pytest.approx(1.0)


def test_opposite_gradients_have_no_bargain() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    Bargain(max_norm=10.0)([weight[0], -weight[0]], [weight])
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(0.9)


def test_gradients_are_squared_image_by_image_and_not_as_means_of_batches() -> None:
    """Published implementations square the mean gradient of a batch, in which the gradients of images cancel."""
    model, data = network().eval(), images()
    index = data.splits["forget"][:6]
    expected = torch.zeros_like(model.get_parameter("fc.weight"))
    for one in index:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(data.normalised(one[None])), data.labels_N[one[None]]).backward()
        gradient = model.get_parameter("fc.weight").grad
        assert gradient is not None
        expected += gradient**2 / 6
    assert torch.allclose(squared_gradients(model, data, index)["fc.weight"], expected, rtol=1e-4)
    assert (squared_gradients(model, data, index, 6)["fc.weight"] < 0.9 * expected.mean()).float().mean() > 0.5


def test_only_steps_on_forget_are_masked(refs: FrozenReferences) -> None:
    model, data = network(), images()
    mask = ForgetSalient(1.0, 1e9, 8)(model, data, refs)
    for letters, zeros in (("R", False), ("RF", False), ("F", True)):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        mask(letters)
        assert any((parameter.grad == 0).any() for parameter in model.parameters() if parameter.grad is not None) == zeros
