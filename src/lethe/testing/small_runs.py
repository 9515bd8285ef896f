"""Small runs: a method with few epochs, a small network, random images; what changed, and runs that are interrupted."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from lethe._util.checkout import default_params
from lethe.config import loader as config
from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.engine import Epoch
from lethe.engine.options import RunOptions
from lethe.engine.resume import Resume
from lethe.evaluation import inference as predict
from lethe.models import architectures as model
from lethe.recipes.losses import Loss
from lethe.recipes.protocols import Batch, DataSource, References
from lethe.recipes.recipe import Phase, Recipe
from lethe.recipes.registry import registered_names

Watch = Callable[[Any, Any], None]  # (batch, references)

PARAMS = default_params()
SMALL = {"epochs": 2, "final_epochs": 2, "repair_every": 2, "batch_size": 8, "lr": 0.02, "unfreeze_at": 0.5}
SMALL |= {"retain_epochs": 2.4, "forget_batch_size": 5, "attack_radius": 0.5, "attack_steps": 4, "selection_threshold": 1.0}


@cache
def configured(method: str) -> config.Config:
    """The configuration of params.yaml, with this method."""
    everything = _everything()
    return replace(everything, method=method) if method in everything.methods else config.load(["--method", method], params=PARAMS)


@cache
def _everything() -> config.Config:
    return config.load(params=PARAMS)


@cache
def section(method: str) -> dict[str, Any]:
    """The method's arguments in params.yaml."""
    return dict(configured(method).methods[method])


def numbers(method: str, **changes: Any) -> dict[str, Any]:
    """The method's arguments with few epochs and small batches; a change of an argument that the method does not have is left out.

    Args:
        method: its name.
        **changes: arguments that differ from both.

    Returns:
        A value for each argument of the method.
    """
    own = section(method)
    return own | {word: value for word, value in (SMALL | changes).items() if word in own}


@cache
def small(method: str, **changes: Any) -> Recipe:
    """The recipe of `numbers`, checked as a command line's.

    Args:
        method: its name.
        **changes: arguments that differ, as in `numbers`.

    Returns:
        The recipe; equal arguments give the same object.
    """
    return configured(method).changed(numbers(method, **changes)).recipe()


def images(retain: int = 30, forget: int = 19, validation: int = 30, size: int = 16, seed: int = 0) -> Data:
    """Random images of 10 classes. In batches of 8 both streams end on a short batch.

    Args:
        retain, forget, validation: number of images of each split.
        size: height and width in pixels.
        seed: of pixels, labels and splits.

    Returns:
        uint8 images [N, 3, size, size] with their splits; train is retain and forget.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {"retain": retain, "forget": forget, "validation": validation}
    n = sum(sizes.values())
    pixels = torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    splits = dict(zip(sizes, torch.randperm(n, generator=generator).split(list(sizes.values())), strict=True))
    splits["train"] = torch.cat([splits["retain"], splits["forget"]])
    channels = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    return Data(pixels, labels, splits, mean=channels, std=channels / 2)


def network(seed: int = 0) -> Module:
    """A `convnet` of 10 classes in eval mode."""
    return model.build("convnet", 10, seed)


def copied(network: Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers, by name."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Compare two state dicts.

    Args:
        before: tensors by name.
        after: of the same names.

    Returns:
        Names of the tensors with a value that differs.
    """
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained(steps: Recipe, data: Data, *, start: int = 0, seed: int = 0, **options: Any) -> Module:
    """Run a recipe on a new network.

    Args:
        steps: the recipe.
        data: what it trains on.
        start: seed of the network's weights.
        seed: of the run.
        **options: further fields of RunOptions.

    Returns:
        The network after the run.
    """
    student = network(start)
    for _ in engine.run(steps, student, data, RunOptions(seed=seed, **options)):
        pass
    return student


@dataclass(frozen=True)
class Watched:
    """The loss `inner`; every call is shown to `watch` first."""

    inner: Loss
    watch: Watch = field(compare=False)

    def __call__(self, logits_BC: Tensor, batch: Batch, refs: References) -> Tensor:
        self.watch(batch, refs)
        return self.inner(logits_BC, batch, refs)

    @property
    def of_features(self) -> bool:
        """As the inner loss."""
        return getattr(self.inner, "of_features", False)

    def prepare(self, model: Module, data: DataSource, refs: References) -> Loss:
        """The same with the inner loss as it is prepared for an epoch.

        Args:
            model: the network at the start of the epoch.
            data: examples by split.
            refs: frozen models to compare with.

        Returns:
            A loss of this class, watched as before.
        """
        prepare = getattr(self.inner, "prepare", None)
        return replace(self, inner=prepare(model, data, refs)) if prepare else self


def watched(steps: Recipe, watch: Watch) -> Recipe:
    """The same recipe; `watch` is called whenever a loss is.

    Args:
        steps: the recipe.
        watch: called with the batch and the references.

    Returns:
        The recipe, whose repr can't be read back.
    """

    def with_watch(phase: Phase) -> Phase:
        return replace(phase, terms=tuple(replace(term, loss=Watched(term.loss, watch)) for term in phase.terms))

    return tuple(with_watch(part) if isinstance(part, Phase) else part for part in steps)


class Boom(Exception):
    """Stops a run in the middle of an epoch."""


def boom_at(call: int) -> Watch:
    """Raises Boom at the call of that number (from 0)."""
    calls = iter(range(call + 1))

    def watch(batch: Batch, refs: References) -> None:
        if next(calls) == call:
            raise Boom

    return watch


# --- equal where it should be, unequal where it should not ------------------------------------------------------------


def everyone(network: Module, data: Data) -> Tensor:
    """The logits of all images, in eval mode.

    Args:
        network: on the device of the data.
        data: N images.

    Returns:
        float32 [N, classes].
    """
    return predict.logits(network, data, torch.arange(len(data.labels_N)))


def digests() -> dict[str, str]:
    """Method -> a hash of the logits it ends with."""
    data, found = images(), {}
    for name in sorted(registered_names(chains=False)):
        logits = everyone(trained(small(name), data, seed=5, random_init=network(1)), data)
        found[name] = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    return found


# --- stopped and continued --------------------------------------------------------------------------------------------


def without_times(epoch: Epoch) -> Epoch:
    """The record without measured times."""
    return replace(epoch, seconds=0.0, evaluate_seconds=0.0)


def attempt(steps: Recipe, folder: Path, data: Data, student: Module) -> list[Epoch]:
    """Run until Boom or the end, with the resume state in `folder`, as one process would.

    Args:
        steps: the recipe.
        folder: of the resume state; empty at the first attempt.
        data: what it trains on.
        student: network whose weights are changed.

    Returns:
        The epochs that this attempt finished, without times; the first is the one it continued after.
    """
    resume = Resume(folder)
    options = RunOptions(seed=2, evaluate=predict.evaluator(data, ["validation"]))
    seen = []
    with resume.loaded(data.device) as state, suppress(Boom):
        for epoch in engine.run(steps, student, data, options, state=state):
            resume.record(epoch, state, student)
            seen.append(without_times(epoch))
    return seen
