"""Models trained without an MLflow run or an epoch table, only with a resume state; several small ones stacked in one run."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from lethe._util.log import log
from lethe.data.splits import Splits
from lethe.engine import engine, stacked_models
from lethe.engine.options import StepInputs, no_metrics, whole_model
from lethe.engine.progress import Progress
from lethe.engine.resume import Resume
from lethe.evaluation import inference
from lethe.recipes.recipe import Recipe, keeps_best
from lethe.workspace.workspace import Prepared

Model = TypeVar("Model")

MOST_STACKED = 16  # models: more are hardly faster (docs/log.md), and a kill costs more of them
FEWEST_STACKED = 4
MOST_WEIGHTS = 1_000_000  # of a network whose steps spend their time on calls rather than on arithmetic


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """A model to train.

    Attributes:
        seed: of its initial weights and its batch order.
        splits: indices of the images it learns and forgets.
        start: state dict to start from; None: the seed's initial weights.
    """

    seed: int
    splits: Splits
    start: Mapping[str, Tensor] | None = None

    def index(self, prepared: Prepared) -> dict[str, Tensor]:
        """Return the splits on the device, with `train`, on which an original is trained: retain and forget."""
        device = prepared.data.device
        named = {name: torch.from_numpy(rows).to(device) for name, rows in self.splits.items()}
        return named | {"train": torch.cat([named["retain"], named["forget"]]).sort().values}


def stacks(prepared: Prepared, recipe: Recipe, models: Sequence[Model], label: str) -> list[tuple[Model, ...]]:
    """Divide models into those that are trained in one run, and log how many, with the reason where they are trained one after another.

    The rule measures no time and knows no workers: the same command gives the same files on a busy machine and on several cores, where a
    model of a stack of 2 or 3 ends at other last digits than in one of 6 (docs/team.md). Fewer than FEWEST_STACKED models are trained one
    after another, without a line in the log.

    Args:
        prepared: the images, and the configuration that names the architecture.
        recipe: the same for all models.
        models: to train.
        label: what the log calls them.

    Returns:
        The models in their order, one tuple for each run.
    """
    if len(models) < FEWEST_STACKED:
        return [(model,) for model in models]
    networks = [prepared.network(seed) for seed in (1, 2)]
    weights = sum(parameter.numel() for parameter in networks[0].parameters())
    reason = f"{weights:,} weights" if weights > MOST_WEIGHTS else ""
    reason = reason or stacked_models.refusal(recipe, networks, prepared.data, prepared.compute.autocast)
    size = 1 if reason else min(MOST_STACKED, len(models))
    log(f"{label}: one after another ({reason})" if reason else f"{label}: {size} at once")
    return [tuple(models[start : start + size]) for start in range(0, len(models), size)]


def train(
    prepared: Prepared, recipe: Recipe, models: Sequence[ModelSpec], resume: Resume, label: str
) -> Generator[dict[str, Tensor], None, None]:
    """Train models, several as one stack; yield the state dict of each. Resumes after the last recorded epoch.

    Until it is exhausted or closed, the process has the resumed run's number of threads (`Resume.loaded`).

    Args:
        prepared: the images; their splits are replaced by each model's.
        recipe: the same for all models.
        models: what to train.
        resume: where the state is kept.
        label: what the progress lines call them.

    Yields:
        The state dict of each model, in the order of `models`.
    """
    networks = [prepared.untrained(model.seed) if model.start is None else prepared.loaded(model.start, model.seed) for model in models]
    with resume.loaded(prepared.compute.device) as state:
        if resume.history:
            log(f"{label}: resuming after epoch {state.global_epoch}")
        first, *others = (model.index(prepared) for model in models)
        data = replace(prepared.data, splits=first)
        network = stacked_models.stacked(networks) if others else networks[0]
        stack = stacked_models.Stack(tuple(model.seed for model in models), (first, *others))
        step_inputs: StepInputs = stack if others else whole_model
        selection = inference.evaluator(data.for_selection(recipe), ("validation",), prepared.compute.autocast)
        evaluate = selection if keeps_best(recipe) else no_metrics
        options = prepared.run_options(models[0].seed, evaluate=evaluate, step_inputs=step_inputs)
        with Progress(recipe, data, label) as progress:
            for epoch in engine.run(recipe, network, data, options, state=state):
                resume.record(epoch, state, network)
                progress.show(epoch)
        for number in range(len(models)):
            yield stacked_models.unstacked(network, number) if others else network.state_dict()
