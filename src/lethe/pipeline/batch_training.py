"""Models trained with nobody watching: no row and no epoch table, but a resume state; several at once where that is right and faster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lethe._util.log import log
from lethe.data.splits import Splits
from lethe.engine import engine
from lethe.engine import stacked_models as stack
from lethe.engine.options import RunOptions, StepInputs, no_metrics, whole_model
from lethe.engine.progress import show_progress
from lethe.engine.resume import Resume, resumable
from lethe.engine.run_state import State
from lethe.evaluation import inference as predict
from lethe.recipes.recipe import Phase, Recipe
from lethe.workspace.workspace import Prepared

AT_ONCE = 16  # models of one stack: more are hardly faster (docs/log.md), and a kill costs more of them
FEWEST = 4
SMALL = 1_000_000  # weights of a network whose steps take their time for calls more than for sums


@dataclass(frozen=True, eq=False)
class Model:
    """One that is to be: its seed, the images that it learns and forgets, the weights that it starts from (None: the seed's own)."""

    seed: int
    splits: Splits
    start: Mapping[str, Tensor] | None = None

    def index(self, prepared: Prepared) -> dict[str, Tensor]:
        """As the engine reads them; what an original is trained on is retain and forget."""
        device = prepared.data.device
        named = {name: torch.from_numpy(rows).to(device) for name, rows in self.splits.items()}
        return named | {"train": torch.cat([named["retain"], named["forget"]]).sort().values}


def at_once(prepared: Prepared, recipe: Recipe, number: int, label: str) -> int:
    """How many of so many models are trained at once. A rule, no stopwatch: equal commands give equal bytes on a busy machine too."""
    if number < FEWEST:
        return 1
    networks = [prepared.network(seed) for seed in (1, 2)]
    weights = sum(parameter.numel() for parameter in networks[0].parameters())
    why = f"{weights:,} weights" if weights > SMALL else ""
    why = why or stack.refusal(recipe, networks, prepared.data, prepared.compute.autocast)
    log(f"{label}: {f'one after another ({why})' if why else f'{min(AT_ONCE, number)} at once'}")
    return 1 if why else min(AT_ONCE, number)


def trained(prepared: Prepared, recipe: Recipe, models: Sequence[Model], resume: Resume, label: str) -> Iterator[dict[str, Tensor]]:
    """State dicts that the models end at, stepped at once where they are several; goes on behind the last epoch kept."""
    networks = [prepared.network(model.seed) for model in models]
    for network, model in zip(networks, models, strict=True):
        if model.start is not None:
            network.load_state_dict(dict(model.start))
    state = resume.load(prepared.compute.device) or State()
    if resume.history:
        log(f"{label}: going on behind epoch {state.global_epoch}")
    first, *others = (model.index(prepared) for model in models)
    data = replace(prepared.data, splits=first)
    network = stack.stacked(networks) if others else networks[0]
    step_inputs: StepInputs = stack.Stack(tuple(model.seed for model in models), (first, *others)) if others else whole_model
    best = any(isinstance(phase, Phase) and phase.keep == "best" for phase in recipe)
    options = RunOptions(
        evaluate=predict.evaluator(data, ("validation",), prepared.compute.autocast) if best else no_metrics,
        seed=models[0].seed,
        autocast=prepared.compute.autocast,
        step_inputs=step_inputs,
        random_init=prepared.network(models[0].seed),
    )
    epochs = engine.run(recipe, network, data, options, state=state)
    for _ in show_progress(resumable(epochs, resume, state, network), recipe, data, label):
        pass
    for number in range(len(models)):
        yield stack.unstacked(network, number) if others else network.state_dict()
