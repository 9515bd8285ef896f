"""Options of a run: what is measured, by which seed and in which precision; the same for every phase of a recipe."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch.nn import Module

from lethe.data.device_data import Data
from lethe.recipes.recipe import Phase

Autocast = Callable[[], AbstractContextManager[None]]
Evaluate = Callable[[Module, Data], Mapping[str, float]]
StepInputs = Callable[[Phase, Module, Data, frozenset[str]], tuple[Module, Data]]


def no_metrics(model: Module, data: Data) -> Mapping[str, float]:
    """Measure nothing."""
    return {}


def whole_model(phase: Phase, model: Module, data: Data, trains: frozenset[str]) -> tuple[Module, Data]:
    """Step the model itself on the data themselves."""
    return model, data


@dataclass(frozen=True)
class RunOptions:
    """Options of `engine.run`.

    Args:
        evaluate: gives the metrics of a model, by name, before the first step and after epochs and edits.
        evaluate_sample: a cheaper stand-in for `evaluate` after epochs that are not the last of their phase; None: `evaluate` itself.
        evaluate_every: epochs between evaluations; the last epoch of a phase is always evaluated.
        seed: seeds batch order, augmentation and dropout.
        autocast: context in which forward passes and losses are computed.
        step_inputs: chooses, for each epoch, the module that is stepped and the data it reads, from (phase, model, data, names of the
            parameters that train). It must lead to the same update: `Prefix` caches frozen layers, `Stack` steps several models at once.
        random_init: a model fresh from its initialiser, for losses and edits that refer to one; None: the model as `run` receives it.
    """

    evaluate: Evaluate = no_metrics
    evaluate_sample: Evaluate | None = None
    evaluate_every: int = 1
    seed: int = 0
    autocast: Autocast = nullcontext
    step_inputs: StepInputs = whole_model
    random_init: Module | None = None
