"""A model's outputs are computed once for the same weights, and are those that any other reading gives, to the bit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lethe.data.device_data import Data
from lethe.evaluation import inference
from lethe.evaluation.outputs import Outputs
from lethe.testing.small_runs import images, network

SPLITS = ("retain", "forget", "validation")


class Counting(nn.Module):
    """A network that counts the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = network(), 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.seen += len(images_BCHW)
        logits: Tensor = self.inner(images_BCHW)
        return logits


@pytest.fixture
def data() -> Data:
    return images(retain=700)  # more than one batch


def test_the_same_weights_are_read_once(data: Data) -> None:
    model, outputs = Counting().eval(), Outputs(data, SPLITS)
    evaluate = inference.evaluator(data, SPLITS, read=outputs.read)
    metrics, n = evaluate(model), len(outputs.index_N)
    logits, features = outputs.take(model)
    assert model.seen == n == 749
    expected = inference.logits_and_features(model, data, outputs.index_N)
    assert torch.equal(logits, expected[0])
    assert features is not None and expected[1] is not None and torch.equal(features, expected[1])
    assert metrics == evaluate(model) == inference.evaluator(data, SPLITS)(model)
    assert model.seen == 4 * n, "what was taken is not kept"


@pytest.mark.parametrize("changed", ["weight", "statistics"])
def test_other_weights_are_read_again(data: Data, changed: str) -> None:
    model, outputs = Counting().eval(), Outputs(data, SPLITS)
    before = outputs.read(model, data, outputs.index_N)
    with torch.no_grad():
        if changed == "weight":
            next(model.parameters()).data[0] += 1.0
        else:
            next(buffer for name, buffer in model.named_buffers() if name.endswith("running_var"))[0] *= 2.0
    after = outputs.read(model, data, outputs.index_N)
    assert torch.equal(after, inference.logits(model, data, outputs.index_N))
    assert not torch.equal(after, before)


def test_another_model_is_read_without_losing_what_is_known(data: Data) -> None:
    model, other, outputs = Counting().eval(), Counting().eval(), Outputs(data, SPLITS)
    with torch.no_grad():
        next(other.parameters()).data[0] += 1.0
    known, n = outputs.read(model, data, outputs.index_N), len(outputs.index_N)
    assert torch.equal(outputs.take(other)[0], inference.logits(other, data, outputs.index_N)) and not torch.equal(
        known, outputs.take(other)[0]
    )
    assert torch.equal(outputs.take(model)[0], known) and model.seen == n


def test_a_model_has_its_weights_once(data: Data) -> None:
    model, other, outputs = network(), network(), Outputs(data, SPLITS)
    with torch.no_grad():
        next(other.parameters())[0] += 1.0
    known, before = outputs.read(model, data, outputs.index_N), {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}, next(other.parameters()).data_ptr()
    outputs.share_weights(other)  # whose outputs are not known
    outputs.share_weights(model)
    assert next(other.parameters()).data_ptr() == places[1]
    assert not {value.data_ptr() for value in model.state_dict().values()} & set(places[0].values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(outputs.take(model)[0], known)


def test_other_images_are_read_as_ever(data: Data) -> None:
    model, outputs = Counting().eval(), Outputs(data, SPLITS)
    outputs.read(model, data, outputs.index_N)
    for other, index in (
        (data, outputs.index_N[:40]),
        (replace(data, mean=data.mean / 2), outputs.index_N),
        (images(700, seed=1), outputs.index_N),
    ):
        assert torch.equal(outputs.read(model, other, index), inference.logits(model, other, index))
