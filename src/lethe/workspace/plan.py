"""Which runs a configuration asks for: one, one for each of several seeds, or the links of a chain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lethe._util.errors import UserError
from lethe.config.describe import unknown_method
from lethe.config.loader import Config
from lethe.recipes.recipe import Recipe
from lethe.workspace.run_names import RunId

ORIGINAL = RunId("original")


@dataclass(frozen=True)
class PlannedRun:
    """A run that the configuration asks for.

    Attributes:
        run: its name; with a seed where it is one of several, with a chain where it is a link.
        recipe: its phases and edits.
        seed: of the batch order, augmentation and dropout, and of the initial weights where it has no parent.
        parent: the run whose weights it starts from; None: random initial weights.
    """

    run: RunId
    recipe: Recipe
    seed: int
    parent: RunId | None

    def __str__(self) -> str:
        return str(self.run)


def plan(config: Config) -> tuple[PlannedRun, ...]:
    """Return the runs of the configuration's method, in the order in which they can run: a link comes after its parent."""
    seed = config.run.seed
    if config.chain:
        links: list[PlannedRun] = []
        for method, recipe in config.chain_recipes().items():
            parent = links[-1].run if links else ORIGINAL
            links.append(PlannedRun(RunId(method, chain=config.method), recipe, seed, parent))
        return tuple(links)
    one, recipe = RunId(config.method), config.recipe()
    if config.run.seeds == 1:
        return (PlannedRun(one, recipe, seed, ORIGINAL),)
    return tuple(PlannedRun(one.with_seed(each), recipe, each, ORIGINAL) for each in range(seed, seed + config.run.seeds))


def plan_reference(config: Config, kind: str, recipe: Recipe) -> PlannedRun:
    """Return the run that trains a reference: by run.seed, from random initial weights.

    Args:
        config: the configuration.
        kind: original or retrained.
        recipe: its recipe, which may depend on the number of images.

    Returns:
        The planned run, which starts from no other run.
    """
    return PlannedRun(RunId(kind), recipe, config.run.seed, None)


def planned_results(config: Config) -> tuple[RunId, ...]:
    """Return the runs whose scores the configuration's method ends in: several seeds have one, their mean."""
    if not config.chain:
        return (RunId(config.method),)
    return tuple(planned.run for planned in plan(config))


def each_method(config: Config, names: Sequence[str]) -> list[Config]:
    """Return the configuration for each of several methods.

    Args:
        config: the configuration, of any method.
        names: methods; `all`: every method but chains.

    Returns:
        One configuration for each method, in the order of `names`.

    Raises:
        UserError: there is no such method, or a key takes one method alone.
    """
    if "all" in names:
        names = [name for name in config.methods if not replace(config, method=name).chain]
    if unknown := [name for name in names if name not in config.methods]:
        raise unknown_method(unknown[0], (*config.methods, "all"))
    if config.run.register_as is not None:
        raise UserError(f"run.register_as is {config.run.register_as}; one model is registered, so method takes one")
    each = [replace(config, method=name) for name in names]
    chains = [one.method for one in each if one.chain]
    for key, number in (("seeds", config.run.seeds), ("originals", config.run.originals)):
        if number > 1 and chains:
            raise UserError(f"run.{key} is {number}; {chains[0]} is a chain of runs and takes 1")
    return each
