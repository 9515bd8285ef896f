"""What is read of a model beside its logits: the features under its head, and what it says of perturbed images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn

from lethe.data.device_data import Data
from lethe.evaluation import inference as predict
from lethe.evaluation.logits_table import DRAWS, RESIDUAL
from lethe.models import architectures as model
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import First, InTurn
from lethe.recipes.recipe import Phase, Term
from lethe.recipes.schedules import Constant
from lethe.workspace import read_model as reading

EVERY = torch.arange(40)
IDS = [f"train/{number}" for number in range(40)]
TAUS = (0.01, 0.03, 0.06)


def data() -> Data:
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
    return Data(pixels, EVERY % 3, {}, mean, std)


def network() -> nn.Module:
    return model.build("convnet", 3, 1)


def test_features_are_what_the_head_is_given() -> None:
    student = network().train()
    logits, features = predict.logits_and_features(student, data(), EVERY)
    assert student.training
    assert torch.equal(logits, predict.logits(student, data(), EVERY))
    assert features is not None and (features.dtype, features.shape) == (torch.float32, (40, 32))
    assert torch.allclose(student.fc(features), logits, atol=1e-5)  # type: ignore[operator]
    assert not student.fc._forward_pre_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("shape", "at_once"), [((3, 28, 28), 512), ((3, 32, 32), 512), ((3, 224, 224), 10), ((1, 2000, 2000), 1), ((70,), 512)]
)
def test_a_forward_pass_takes_fewer_images_the_larger_they_are(shape: tuple[int, ...], at_once: int) -> None:
    one = torch.ones(1)
    assert Data(torch.zeros((), dtype=torch.uint8).expand(3, *shape), EVERY, {}, one, one).at_once(512) == at_once


def test_large_images_give_the_same_logits_in_smaller_parts() -> None:
    pixels = torch.randint(0, 256, (30, 3, 200, 200), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    large = replace(data(), images_NCHW=pixels)
    whole = network()(large.normalised(torch.arange(30)))
    assert large.at_once(512) == 13
    torch.testing.assert_close(predict.logits(network(), large, torch.arange(30)), whole.detach(), rtol=1e-4, atol=1e-5)


def test_a_network_that_ends_otherwise_has_no_features() -> None:
    for student in (nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()), nn.Sequential(nn.Linear(8, 3), nn.Flatten())):
        logits, features = predict.logits_and_features(student, data(), EVERY)
        assert features is None and len(logits) == 40


class Bright(nn.Module):
    """Class 1 where the mean normalised pixel is above 0, else 0."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        mean = images_BCHW.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean, torch.full_like(mean, -9.0)], dim=1)


def test_perturbed_images_by_hand() -> None:
    images = data()
    found = predict.perturbed(Bright(), images, EVERY, IDS, TAUS)
    assert (found.dtype, found.shape) == (torch.uint8, (40, 3))
    for row in (0, 1, 7, 32):
        drawn = predict._in_the_unit_ball(16, 192, IDS[row]).view(16, 3, 8, 8)
        for number, tau in enumerate(TAUS):
            noisy = images.images_NCHW[row].float() / 255 + tau * 192**0.5 * drawn
            said = Bright()((noisy - images.mean) / images.std).argmax(1)
            assert found[row, number] == (said == row % 3).sum()
    assert 0 < found.float().mean() < 16 and len(found.unique()) > 3


def test_a_perturbation_depends_on_the_image_alone() -> None:
    student = network()
    whole = predict.perturbed(student, data(), EVERY, IDS, TAUS)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:35]
    assert torch.equal(predict.perturbed(student, data(), order, [IDS[row] for row in order], TAUS), whole[order])
    assert not torch.equal(predict.perturbed(student, data(), EVERY, [f"other/{row}" for row in EVERY], TAUS), whole)
    right = predict.logits(student, data(), EVERY).argmax(1) == data().labels_N
    assert torch.equal(predict.perturbed(student, data(), EVERY, IDS, (0.0,))[:, 0], right * 16)


@pytest.mark.parametrize("batch_size", [8, 64])
def test_relearning_by_a_plain_loop(batch_size: int) -> None:
    images = replace(data(), splits={"forget": EVERY[5:25]})
    student = network()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    recipe = (Phase("relearn", 6, (Term("forget"),), batch_size, Constant(0.1), First(1, InTurn()), optimizer=SGD(0.0, 0.0)),)
    found = reading.relearn(student, images, recipe)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    said = []
    for step in range(7):
        said.append(predict.logits(student, images, EVERY[5:25]).argmax(1) == EVERY[5:25] % 3)
        batch = next(images.batches("forget", batch_size, 0, step))
        loss = nn.functional.cross_entropy(student.train()(batch.images_BCHW), batch.labels_B)
        student.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in student.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.1)
    assert (found == torch.stack(said, 1).numpy()).all()
    assert found[:, -1].mean() > found[:, 0].mean()


@pytest.mark.parametrize("size", [2, 12, 3072])
def test_draws_are_uniform_in_the_ball(size: int) -> None:
    drawn = torch.cat([predict._in_the_unit_ball(16, size, id_) for id_ in IDS]).double()
    inside = drawn.norm(dim=1)
    assert inside.max() <= 1 + 1e-6
    assert kstest((inside**size).numpy(), "uniform").pvalue > 0.01  # the share of the ball that lies within
    assert drawn.mean(0).abs().max() < 4 / (640 * size) ** 0.5 * (size + 2) ** 0.5


@settings(max_examples=30, deadline=None)
@given(images=st.integers(1, 60), copies=st.integers(1, 1200))
def test_copies_are_spread_over_as_many_images_as_possible(images: int, copies: int) -> None:
    ids = [f"train/{number}" for number in range(images)]
    rows, draws = predict.perturbed_sample(ids, copies)
    assert len({*rows}) == len(rows) == min(images, copies)
    assert draws == min(16, copies // len(rows))
    assert rows.tolist() == sorted(rows)
    wider = predict.perturbed_sample(ids, copies + 1)[0]
    assert {*rows.tolist()} <= {*wider.tolist()}
    backwards = predict.perturbed_sample(ids[::-1], copies)[0]
    assert {ids[row] for row in rows} == {ids[::-1][row] for row in backwards}
    assert predict.perturbed_sample(ids, None)[1] == 16


@pytest.mark.parametrize(("copies", "sampled", "draws"), [(None, 20, 16), (320, 20, 16), (319, 20, 15), (45, 20, 2), (7, 7, 1)])
def test_the_columns_of_perturbed_copies(copies: int | None, sampled: int, draws: int) -> None:
    student, forget = network(), np.arange(10, 30)
    columns = predict.perturbed_columns(student, data(), forget, IDS, TAUS, copies)
    every = predict.perturbed(student, data(), torch.from_numpy(forget), IDS[10:30], TAUS, draws).numpy()
    assert (DRAWS in columns) == (draws < 16)
    taken = np.flatnonzero(columns.get(DRAWS, np.isin(EVERY.numpy(), forget)))
    assert len(taken) == sampled and {*taken} <= {*forget}
    assert (columns.get(DRAWS, np.full(40, 16))[taken] == draws).all()
    assert (columns[RESIDUAL][taken] == every[taken - 10]).all()
    assert not np.delete(columns[RESIDUAL], taken, axis=0).any()
