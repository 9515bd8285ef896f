"""Train several small models at once: one network holds the stacked weights of all, and each batch holds one batch per model.

The engine trains it as any other network: with `Stack` as its `step_inputs` it steps M models in one pass of one recipe, each on the
batches that its own seed draws. Equal to training them one after another except for the order of sums (and for what layers draw:
dropout). M models, B batch.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import Module

from lethe.data.device_data import Batch, Data
from lethe.engine import engine
from lethe.engine.options import Autocast, RunOptions
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import First, InTurn
from lethe.recipes.recipe import Augment, Phase, Recipe
from lethe.recipes.schedules import Constant


def stacked(models: Sequence[Module]) -> Module:
    """A copy of the first model whose parameters and buffers are those of all models, [M, ...], by the same names. Only `Stack` runs it."""
    stack = copy.deepcopy(models[0])
    parameters, buffers = stack_module_state(list(models))
    for name, parameter in stack.named_parameters():
        parameter.data = parameters[name].detach()  # in place: what two layers share stays shared
    for name, buffer in stack.named_buffers():
        buffer.data = buffers[name]
    return stack


def unstacked(stack: Module, model: int) -> dict[str, Tensor]:
    """Return the state dict of one model of a stack.

    Args:
        stack: what `stacked` returned.
        model: index of the model.

    Returns:
        Tensors by name, without the dimension of models; views of the stack's.
    """
    return {name: value[model] for name, value in stack.state_dict().items()}


@dataclass(frozen=True)
class Stack:
    """`step_inputs` of a stack.

    Args:
        seeds: one per model, for its batch order.
        splits: one per model, all of the same sizes; without them all models have the splits of the data.
    """

    seeds: tuple[int, ...]
    splits: tuple[Mapping[str, Tensor], ...] = ()

    def __call__(self, phase: Phase, model: Module, data: Data, trains: frozenset[str]) -> tuple[Module, Data]:
        own = {name: value for name, value in vars(data).items() if name != "channels_last"}  # the library wants models x channels
        return StackedForward(model, len(self.seeds)), StackedData(
            **own, seeds=self.seeds, each=self.splits or (data.splits,) * len(self.seeds)
        )


@dataclass(frozen=True)
class StackedData(Data):
    """Data of several models: each batch concatenates one batch per model, in the order of `seeds`; `each`: splits by model."""

    seeds: tuple[int, ...] = ()
    each: tuple[Mapping[str, Tensor], ...] = ()

    def batches(self, stream: str, batch_size: int, seed: int, number: int, augment: Augment | None = None) -> Iterator[Batch]:
        """Iterate over one shuffled pass of each model's split. Cut into batches as by `Data.batches`.

        Args:
            stream: name of the split.
            batch_size: images per batch and model.
            seed: not used: each model's order and augmentation follow from its own of `seeds`.
            number: of the pass, from 0.
            augment: crop and flip, drawn for every image.

        Yields:
            Batches on the device, of up to M x batch_size images, model by model.
        """
        own = [(seed_, splits[stream]) for seed_, splits in zip(self.seeds, self.each, strict=True)]
        return self._passes(stream, batch_size, own, number, augment)


class StackedForward(Module):
    """The forward pass of every model of a stack on its own part of the batch, [M x B, ...].

    A loss is a mean over the whole batch: gradients are multiplied by M, so that each model gets those of its own mean."""

    def __init__(self, stack: Module, models: int) -> None:
        super().__init__()
        self.stack, self.models = (stack,), models  # in a tuple, so that it is no child module: the engine sets its mode

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [M x B, classes] for inputs [M x B, ...], both model by model."""
        (stack,) = self.stack

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(stack, (parameters, buffers), (images,))  # type: ignore[no-any-return]

        # buffers go through vmap with the weights: BatchNorm then moves each model's own statistics, in place
        each = vmap(one, randomness="different")
        images = images_BCHW.unflatten(0, (self.models, -1))
        logits: Tensor = each(dict(stack.named_parameters()), dict(stack.named_buffers()), images).flatten(0, 1)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * self.models)
        return logits


def refusal(recipe: Recipe, models: Sequence[Module], data: Data, autocast: Autocast = nullcontext) -> str:
    """Test whether networks can be trained at once: a step on each term must change two of them as it changes each alone.

    Args:
        recipe: what they are to be trained by.
        models: the networks; copies of the first and the last are stepped.
        data: what they are to be trained on.
        autocast: context in which forward passes and losses are computed.

    Returns:
        The reason why they can't be; "" if they can.
    """
    tried: set[tuple[str, str, bool]] = set()
    for phase in recipe:
        if not isinstance(phase, Phase):
            return f"{phase.name} writes to one model"
        if phase.keep == "best":
            return "keep is best, of one model"
        of_one = (phase.constraint, phase.penalty, phase.draw, phase.clip, phase.forget_optimizer, phase.combine, phase.gradients)
        if phase.forward == "joint" or any(each is not None for each in of_one):
            return f"phase {phase.name} uses weights, gradients or losses of one model"
        for term in phase.terms if phase.epochs else ():
            if term.inputs or not getattr(term.loss, "of_logits", False):
                return f"{type(term.loss).__name__} looks at other models"
            if hasattr(term.loss, "prepare") or getattr(term.loss, "class_weights", None):
                return f"{type(term.loss).__name__} weighs the images of one model"
            if (kind := (term.stream, phase.batchnorm, phase.augment is not None)) not in tried:
                tried.add(kind)
                one = replace(phase, epochs=1, terms=(replace(term, weight=1.0),), lr=Constant(0.1), order=First(1, InTurn()))
                if why := _moves(replace(one, optimizer=phase.optimizer or SGD(0.0, 0.0)), models, data, autocast):
                    return why
    return ""


def _moves(step: Phase, models: Sequence[Module], data: Data, autocast: Autocast) -> str:
    seeds = (0, 1)
    two = [copy.deepcopy(model) for model in (models[0], models[-1])]
    stack = stacked(two)
    try:
        list(engine.run((step,), stack, data, RunOptions(autocast=autocast, step_inputs=Stack(seeds))))
    except Exception as error:  # vmap can't run control flow on values, and a model may do anything else
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    for number, (seed, alone) in enumerate(zip(seeds, two, strict=True)):
        start = copy.deepcopy(alone.state_dict())
        list(engine.run((step,), alone, data, RunOptions(seed=seed, autocast=autocast)))
        for (name, value), found in zip(alone.state_dict().items(), unstacked(stack, number).values(), strict=True):
            moved, expected = ((one - start[name]).float() for one in (found, value))
            if not torch.allclose(moved, expected, atol=0.01 * float(expected.abs().max())):
                return f"{name} moves otherwise than alone"
    return ""
