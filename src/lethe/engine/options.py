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
    """Measure nothing: the default of `RunOptions.evaluate`.

    Args:
        model: the network; not used.
        data: its data; not used.

    Returns:
        No metrics.
    """
    return {}


def whole_model(phase: Phase, model: Module, data: Data, trains: frozenset[str]) -> tuple[Module, Data]:
    """Step the whole model on the data: the default of `RunOptions.step_inputs`.

    Args:
        phase: the phase; not used.
        model: the network.
        data: what it is trained on.
        trains: names of the parameters that train; not used.

    Returns:
        `model` and `data`.
    """
    return model, data


Network = Module | Callable[[], Module]  # a network of which a run takes a copy, or what makes one for this run alone


@dataclass(frozen=True)
class RunOptions:
    """Options of `engine.run`.

    Args:
        evaluate: returns the metrics of a model, by name, before the first step and after epochs and edits.
        evaluate_sample: a cheaper replacement of `evaluate` after epochs that are not the last of their phase; None: `evaluate` itself.
        evaluate_every: epochs between evaluations; the last epoch of a phase is always evaluated.
        seed: seeds batch order, augmentation and dropout.
        autocast: context in which forward passes and losses are computed.
        step_inputs: chooses, for each epoch, the module that is stepped and the data it reads, from (phase, model, data, names of the
            parameters that train). It must lead to the same update: `Prefix` caches frozen layers, `Stack` steps several models at once.
        count_work: whether epochs count their floating-point operations (`work.counted`).
        random_init: a randomly initialised model, for losses and edits that refer to one; None: the model as `run` receives it.
        fresh_init: another one, from which no training began; None: `random_init`, and without it a copy of the model as `run` receives it
            whose modules draw new weights (`redraw.redrawn`).
    """

    evaluate: Evaluate = no_metrics
    evaluate_sample: Evaluate | None = None
    evaluate_every: int = 1
    seed: int = 0
    autocast: Autocast = nullcontext
    step_inputs: StepInputs = whole_model
    random_init: Network | None = None
    fresh_init: Network | None = None
    count_work: bool = False
