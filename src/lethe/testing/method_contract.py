"""What every unlearning method promises."""

import random
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.nn import Module

from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.engine import Epoch
from lethe.engine.options import RunOptions
from lethe.evaluation import inference
from lethe.recipes import recipe
from lethe.recipes.protocols import Batch, References
from lethe.recipes.recipe import Edit, Phase, Recipe
from lethe.testing.small_runs import (
    Boom,
    attempt,
    boom_at,
    configured,
    copied,
    everyone,
    images,
    moved,
    network,
    section,
    small,
    trained,
    watched,
    without_times,
)


class MethodContract:
    """Tests that hold for every method: subclass it in a test module and name the method.

        class TestJoint(lethe.testing.MethodContract):
            name = "joint"

    They train a small network on random images, with few epochs and small batches in place of the method's numbers."""

    name: ClassVar[str] = ""

    @pytest.fixture
    def method(self) -> str:
        """The method under contract. Override it, with params, to test several."""
        return self.name

    @pytest.fixture
    def data(self) -> Data:
        """Random images of 10 classes, in retain, forget and validation."""
        return images()

    def test_repr_evaluates_back(self, method: str) -> None:
        """The repr of a recipe is one line that gives an equal recipe."""
        for steps in (small(method), configured(method).recipe()):
            text = repr(steps)
            assert eval(text, recipe.names()) == steps
            assert hash(eval(text, recipe.names())) == hash(steps)
            assert " at 0x" not in text
            assert "lambda" not in text
            assert "\n" not in text

    def test_repr_tells_numbers_apart(self, method: str) -> None:
        """Recipes of different arguments have different reprs."""
        steps = small(method)
        for word, other in (
            ("lr", 0.03),
            ("epochs", 5),
            ("trains", ("fc",)),
            ("batchnorm", "eval"),
            ("keep", "best"),
            ("momentum", 0.5),
        ):
            used = word != "momentum" or section(method)["optimizer"] == "sgd"
            if used and word in section(method) and section(method)[word] != other:
                assert repr(small(method, **{word: other})) != repr(steps), word

    def test_the_student_moves(self, method: str, data: Data) -> None:
        """The head has changed after a run, and epochs are numbered from 0."""
        student = network()
        before = copied(student)
        epochs = list(engine.run(small(method), student, data))
        assert "fc.weight" in moved(before, student.state_dict())
        assert [epoch.global_epoch for epoch in epochs] == list(range(len(epochs)))

    def test_references_share_nothing_with_the_student_and_do_not_move(self, method: str, data: Data) -> None:
        """No storage is shared, and both are frozen in eval mode."""
        student, random_init = network(0), network(1)
        before, random_init_before = copied(student), copied(random_init)
        seen: list[References] = []

        def watch(batch: Batch, refs: References) -> None:
            seen.append(refs)
            for reference, start in ((refs.original, before), (refs.random_init, random_init_before)):
                assert not moved(start, reference.state_dict())
                assert not any(module.training for module in reference.modules())
                assert not any(parameter.requires_grad for parameter in reference.parameters())

        steps = watched(small(method), watch)
        for _ in engine.run(steps, student, data, RunOptions(random_init=random_init)):
            pass
        assert seen
        assert all(refs is seen[0] for refs in seen)
        watch(next(data.batches("retain", 8, 0, 0)), seen[0])
        assert moved(before, student.state_dict())
        places = [storages(network) for network in (student, random_init, seen[0].original, seen[0].random_init)]
        assert len(set().union(*places)) == sum(map(len, places))

    @pytest.mark.parametrize("batchnorm", ["train", "eval_frozen"])
    def test_frozen_weights_equal_the_originals_to_the_bit(self, method: str, batchnorm: str, data: Data) -> None:
        """Only what `trains` or an edit names has changed, BatchNorm's statistics included."""
        steps = small(method, trains=("layer4", "fc"), unfreeze=("layer1",), batchnorm=batchnorm)
        student = network()
        before = copied(student)
        phases = [part for part in steps if isinstance(part, Phase)]
        trains = {name for phase in phases for e in range(phase.epochs) for name in phase.trains(student, e / phase.epochs)}
        trains |= {name for part in steps if not isinstance(part, Phase) for name in written(part, student)}
        for _ in engine.run(steps, student, data, RunOptions(random_init=network(1))):
            pass
        after = moved(before, student.state_dict())
        weights = {name for name, _ in student.named_parameters()}
        assert trains < weights
        if any(getattr(term.loss, "of_gradients", False) for phase in phases for term in phase.terms):  # which biases do not enter
            assert {name for name in trains if name.endswith("weight")} <= after & weights <= trains
        else:
            assert after & weights == trains
        buffers = after - weights
        statistics = {name for name in before if "running" in name or "num_batches" in name}
        frozen = {name for name in statistics if name.rsplit(".", 1)[0] + ".weight" not in trains}
        if any(getattr(part, "keeps_statistics", False) for part in steps):
            assert not buffers
        else:
            assert buffers == (statistics if batchnorm == "train" else statistics - frozen)

    def test_without_epochs_nothing_but_an_edit_changes_anything(self, method: str, data: Data) -> None:
        """With all epochs at 0 no phase runs."""
        none = {word: 0 for word in section(method) if word.endswith("epochs")}
        assert none
        student = network()
        before = copied(student)
        steps = small(method, **none)
        edits = [step.name for step in steps if not isinstance(step, Phase)]
        epochs = list(engine.run(steps, student, data))
        assert [epoch.phase for epoch in epochs] == ["start", *edits]
        assert bool(moved(before, student.state_dict())) == bool(edits)

    def test_flags_and_modes_are_restored(self, method: str, data: Data) -> None:
        """After a run, after every epoch, and after an exception in the middle of one."""
        student = network()
        student.train()
        student.get_submodule("layer2").eval()
        student.get_parameter("fc.bias").requires_grad_(False)

        def state() -> list[bool]:
            return [m.training for m in student.modules()] + [p.requires_grad for p in student.parameters()]

        before = state()
        for _ in engine.run(small(method), student, data, RunOptions(evaluate=inference.evaluator(data, ["validation"]))):
            assert state() == before
        epochs = engine.run(watched(small(method), boom_at(5)), student, data)
        with pytest.raises(Boom):
            list(epochs)
        assert state() == before

    def test_equal_seeds_give_equal_logits_and_other_seeds_do_not(self, method: str, data: Data) -> None:
        """To the bit, on all images."""
        one, again, other = (everyone(trained(small(method), data, seed=seed), data) for seed in (3, 3, 4))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    @pytest.mark.parametrize("keep", ["last", "best"])
    def test_interrupted_in_every_epoch_and_continued_ends_alike(self, method: str, keep: str, data: Data, tmp_path: Path) -> None:
        """Dies at a random batch of every epoch of every phase; each time a new model goes on from what the last epoch wrote."""
        interrupted_everywhere(small(method, epochs=3, keep=keep), data, tmp_path, random.Random(f"{method} {keep}"))


def interrupted_everywhere(steps: Recipe, data: Data, folder: Path, draw: random.Random) -> None:
    """Run a recipe without and with interruptions, and compare epochs and weights.

    Args:
        steps: the recipe.
        data: what it trains on.
        folder: for the resume state.
        draw: chooses the batch of each epoch at which the run is stopped.

    Raises:
        AssertionError: they differ.
    """
    whole = network()
    calls: list[int] = []  # of a loss, epoch by epoch

    def count(batch: Batch, refs: References) -> None:
        calls[-1] += 1

    records = []
    for epoch in engine.run(watched(steps, count), whole, data, RunOptions(seed=2, evaluate=inference.evaluator(data, ["validation"]))):
        records.append(without_times(epoch))
        calls.append(0)
    assert {record.phase for record in records[1:]} == {part.name for part in steps}

    stops = [draw.randrange(length) if length else None for length in calls[:-1]]
    seen: list[Epoch] = []
    for number, stop in enumerate(stops):  # in epoch `number` + 1, after those since the last attempt, which this one repeats
        if stop is None:
            continue  # an edit takes no batch
        earlier = sum(calls[max(0, len(seen) - 1) : number])
        seen += attempt(watched(steps, boom_at(earlier + stop)), folder, data, network())
        assert len(seen) == number + 1
    student = network()
    assert seen + attempt(steps, folder, data, student) == records
    assert not moved(whole.state_dict(), student.state_dict()), f"stopped at batches {stops}"


def storages(network: Module) -> set[int]:
    """Addresses of the storages of all weights and buffers."""
    return {value.untyped_storage().data_ptr() for value in network.state_dict().values()}


def written(edit: Edit, network: Module) -> frozenset[str]:
    """The parameters that an edit may change: those it names, else all.

    Args:
        edit: of a recipe.
        network: that it is to change.

    Returns:
        Names of parameters.
    """
    writes = getattr(edit, "writes", None)
    return frozenset(writes(network) if writes else dict(network.named_parameters()))
