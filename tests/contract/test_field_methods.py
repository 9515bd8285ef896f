"""Lethe's own method and the field's equal their plain loops in tests/support/field_loops.py."""

import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Module
from torch.optim import AdamW

from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.frozen_references import FrozenReferences
from lethe.engine.options import RunOptions
from lethe.recipes.constraints import Saliency
from lethe.recipes.held_out import halves
from lethe.recipes.recipe import Augment, Phase
from lethe.recipes.registry import find_method, registered_names
from lethe.testing.method_contract import interrupted_everywhere
from lethe.testing.small_runs import images, moved, network, numbers, small
from support import field_loops, loops
from support.field_loops import Source

SEED = 11
DRAWS = 3
LOOPS = {"not": field_loops.negation}
FIELD = [name for name in registered_names(chains=False) if not hasattr(loops, name)]
WORDS = {"": None, "flip": Augment(0, True), "crop,flip": Augment(4, True)}
CASES: dict[str, tuple[dict[str, int], dict[str, Any]]] = {  # sizes of the splits; changes to the numbers
    "as in params.yaml, last batches short": ({}, {}),
    "a part trains, forget longer than retain": (
        {"retain": 19, "forget": 60},
        {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.01, "crop_share": 0.5, "pull_from": 0.2, "renew_every": 0.3, "focus": 0.4}
        | {"pull_on": "scaled_log_odds", "weight": 1.0, "fade": 0.5, "ascent_limit": 2.5, "end_at": "unseen"},
    ),
    "one image to forget": ({"forget": 1}, {"retain_epochs": 2.6, "forget_batch_size": 1, "optimizer": "sgd", "pull_on": "log_odds"}),
}


def source(data: Data, said: dict[str, Any]) -> Source:
    """The same images in the same order, for a loop that knows nothing of the engine."""
    size, normalised = said["batch_size"], data.normalised(torch.arange(len(data.labels_N)))

    def batches(split: str, number: int, augmented: str, size: int = size) -> list[field_loops.Batch]:
        return [(b.images_BCHW, b.labels_B, b.index_B) for b in data.batches(split, size, SEED, number, WORDS[augmented])]

    def drawn(number: int, weights: torch.Tensor) -> list[field_loops.Batch]:
        return [(b.images_BCHW, b.labels_B, b.index_B) for b in data.drawn("retain", size, SEED, number, weights, 50)]

    return Source(
        normalised,
        data.labels_N,
        data.splits["forget"],
        data.splits["retain"],
        halves(data.splits["validation"], data.labels_N)[0],
        batches,
        lambda number: batches("forget", number, "", said["forget_batch_size"]),
        drawn,
        lambda epoch: torch.manual_seed(SEED * 1_000_003 + epoch),
        network(1),
        data.mean,
        data.std,
        lambda index: data.augmented(index, 4, flip=True),
        size,
        said.get("forget_batch_size", size),
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", FIELD)
def test_equals_its_plain_loop(method: str, case: str) -> None:
    """To the bit, or where schedules are composed of parts or sums run in another order, to their rounding. No method takes weights from
    where an original of its seed began."""
    sizes, changes = CASES[case]

    def ends(data: Data) -> tuple[Module, Module]:
        student, plain = network(), network()
        for _ in engine.run(small(method, **changes), student, data, RunOptions(seed=SEED, random_init=network(5), fresh_init=network(1))):
            pass
        by_loop(method, plain, data, numbers(method, **changes))
        assert moved(network().state_dict(), student.state_dict())
        return plain, student

    alike_by_a_draw(ends, **sizes)


def by_loop(method: str, model: Module, data: Data, said: dict[str, Any], **more: Any) -> None:
    loop = LOOPS.get(method) or getattr(field_loops, method)
    own = {word: said[word] for word in inspect.signature(loop).parameters if word in said}
    unused = set(inspect.signature(find_method(method).function).parameters) - {"training", "forget_batch_size", *own}
    assert not unused  # the loop takes every number of the method
    trains = {("last_block", "head"): ("layer4", "fc"), ("head",): ("fc",)}.get(said["trains"], said["trains"])
    sgd = loops.Numbers(trains, *(said[word] for word in ("lr", "momentum", "weight_decay")))
    loop(model, source(data, said), sgd, **own, **more)


def alike_by_a_draw(ends: Callable[[Data], tuple[Module, Module]], **sizes: int) -> None:
    """That two trainings end alike on one of a few draws of images: in one of some 40 runs the order of sums, which depends on the
    processor, puts a unit whose input is next to 0 on the other side of its ReLU."""
    for seed in range(DRAWS - 1):
        if not differing(*ends(images(**sizes, seed=seed))):
            return
    assert not differing(*ends(images(**sizes, seed=DRAWS - 1)))


def differing(plain: Module, student: Module) -> list[str]:
    """Names of the tensors that are not equal to rounding, of which Adam makes more: 0.05 % of the largest change of a tensor."""
    began, ended = network().state_dict(), student.state_dict()
    assert all(value.isfinite().all() for value in ended.values())

    def close(name: str, value: torch.Tensor) -> bool:
        rounding = 1e-5 + 5e-4 * float((value - began[name]).abs().max())
        return torch.allclose(value, ended[name], rtol=1e-4, atol=rounding)

    return [name for name, value in plain.state_dict().items() if not close(name, value)]


def test_every_method_has_a_plain_loop() -> None:
    assert {name for name in FIELD if name not in LOOPS} <= {*vars(field_loops)}


def test_weights_outside_the_mask_equal_the_originals_to_the_bit() -> None:
    """Weight decay and momentum move masked weights where the gradient is masked, as in a published implementation."""
    data, steps = images(), small("salun", saliency_share=0.3, lr=0.1, weight_decay=0.1)
    (phase,) = steps
    assert isinstance(phase, Phase)
    assert isinstance(phase.constraint, Saliency)
    student = network()
    masks = phase.constraint.masks(data, FrozenReferences(network().eval(), network(1)))
    for _ in engine.run(steps, student, data):
        pass
    for name, before in network().named_parameters():
        after = student.get_parameter(name)
        assert torch.equal(after[~masks[name]], before[~masks[name]])
    assert any((student.get_parameter(name) != before)[masks[name]].any() for name, before in network().named_parameters())


@pytest.mark.parametrize("method", ["random_label", "salun", "scrub", "sfr_on"])
def test_the_forget_optimizer_has_its_own_state_and_rate(method: str) -> None:
    """DualOptim (arXiv:2504.15827), reached by two arguments, against the plain loops."""
    changes = {"forget_optimizer": "adamw", "forget_lr": 0.003}

    def ends(data: Data) -> tuple[Module, Module]:
        plain, student, one = network(), network(), network()
        for _ in engine.run(small(method, **changes), student, data, RunOptions(seed=SEED)):
            pass
        by_loop(method, plain, data, numbers(method), own=lambda model: AdamW(model.parameters(), lr=0.003, weight_decay=0.0005))
        by_loop(method, one, data, numbers(method))
        assert moved(one.state_dict(), plain.state_dict())
        return plain, student

    alike_by_a_draw(ends)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("lethe", {"focus": 0.4}),  # the last losses of images are part of the state
        ("random_label", {"forget_optimizer": "adamw", "forget_lr": 0.003, "epochs": 3}),  # and so are two optimizers
        ("ft", {"optimizer": "adam", "noise": 0.1}),
        ("scrub", {"end_at": "unseen", "epochs": 3}),  # and so are the weights of earlier epochs
    ],
)
def test_stopped_in_every_epoch_it_ends_alike(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    interrupted_everywhere(small(method, **changes), images(), tmp_path, random.Random(method))
