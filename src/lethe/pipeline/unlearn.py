"""Unlearning from start to table: what is missing is made first, what does not belong together is refused."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from lethe._util.errors import RunFailed, UserError
from lethe._util.files import read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.evaluation import seed_aggregation as seeds
from lethe.models import architectures as model
from lethe.models import checkpoint
from lethe.models import device as compute
from lethe.parallel.pool import map_units
from lethe.pipeline import references
from lethe.pipeline import run_logging as rows
from lethe.pipeline import shadow_models as others
from lethe.pipeline.runner import held, resume_folder, started
from lethe.recipes.recipe import Phase, Recipe
from lethe.reporting import console_tables
from lethe.workspace import scores as results
from lethe.workspace.layout import Layout
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, prepare, remember


def unlearn(config: Config) -> None:
    """One method by one seed or several (or the notebook's chain), one row each; prints original, retrained and result side by side."""
    recipes = config.chain_recipes() if config.chain else {config.method: config.recipe()}
    compute.resolve(config.run)
    network = model.build(config.model.architecture, 2, 0)
    for recipe in recipes.values():
        _check_layers(config, recipe, network)  # before data is fetched and written
    prepared = prepare(config)
    for recipe in recipes.values():
        check(prepared, recipe)
    start = references.weights(prepared, "original")
    if config.run.evaluate:  # else nothing here looks at the retrained model
        references.weights(prepared, "retrained")
    names = [str(RunId(name, chain=config.method)) if config.chain else name for name in recipes]
    if config.chain:
        _chain(prepared, dict(zip(names, recipes.values(), strict=True)), start)
    elif config.run.seeds > 1:
        _several(prepared, recipes[config.method], start)
    else:
        _one(prepared, config.method, recipes[config.method], start)
    if config.run.evaluate:
        rows.references(prepared)
        remember(prepared, "evaluate.")
        show(prepared, names)


def _chain(prepared: Prepared, recipes: Mapping[str, Recipe], start: dict[str, Tensor]) -> None:
    """Ten runs, each from the result before it. One that was stopped goes on with the first that was not done."""
    name, layout = prepared.config.method, prepared.layout
    state = resume_folder(prepared, name, repr(recipes), checkpoint.weights_hash(start)) / "chain.json"
    with held(layout.lock(name), name):
        known = read_json(state) if state.exists() else {"row": None, "done": []}
        with rows.parent(prepared, known["row"]) as parent:
            known["row"] = parent.reference()
            for part, recipe in recipes.items():
                path = layout.weights(part)
                result = result_metadata(prepared, part, recipe, start)
                if part in known["done"] and path.exists() and matches(result, checkpoint.metadata(path)):
                    log(f"{part}: is done")
                    start = checkpoint.load(path)[0]
                else:
                    write_json(state, known)
                    start = _one(prepared, part, recipe, start, parent.reference())
                    known["done"].append(part)
        shutil.rmtree(state.parent, ignore_errors=True)


def _one(
    prepared: Prepared,
    name: str,
    recipe: Recipe,
    start: dict[str, Tensor],
    parent: Mapping[str, Any] | None = None,
    scored: Prepared | None = None,
) -> dict[str, Tensor]:
    """`parent`: of the row above; `scored`: as which it is scored, where that is not as it is run."""
    config = prepared.config
    network = prepared.network(config.run.seed)
    network.load_state_dict(start)
    path = prepared.layout.weights(name)
    with started(prepared, name, recipe, network, launched=parent is None, parent=parent) as run:
        run.follow()
        run.save(path, result_metadata(prepared, name, recipe, start))
        remember(prepared, f"methods.{config.method}.")
        if config.run.evaluate:
            rows.finished(run.row, scored or prepared, name, run.state.global_epoch)
        rows.export(run.row, prepared, network, path)
    return network.state_dict()


# --- several seeds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Unit:
    """A seed of a method, to be run wherever there is room."""

    prepared: Prepared  # of the first seed: what all are scored beside
    seed: int
    recipe: Recipe
    start: dict[str, Tensor]
    parent: Mapping[str, Any]  # the reference of the row above

    @cached_property
    def own(self) -> Prepared:
        return self.prepared.seeded(self.seed)

    @property
    def name(self) -> str:
        return str(RunId(self.prepared.config.method, self.seed))

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self.prepared.config, self.seed, self.recipe, self.start, self.parent)

    @property
    def made(self) -> dict[str, str]:
        return result_metadata(self.own, self.name, self.recipe, self.start)

    def there(self) -> bool:
        """Whether its files are there and belong. Those of a run of this seed that was alone are taken over."""
        config = self.prepared.config
        for name in (self.name, config.method):
            weights, epochs = _files(config, name)
            known = checkpoint.metadata(weights) if weights.exists() and epochs.exists() else {}
            if matches(self.made, known):
                if name != self.name:
                    _copy(config, name, self.name, self.made)
                return True
        return False


def _elsewhere(config: Config, seed: int, recipe: Recipe, start: dict[str, Tensor], parent: Mapping[str, Any]) -> Unit:
    """In another process, which reads the images by itself."""
    return Unit(prepare(config), seed, recipe, start, parent)


def _files(config: Config, name: str) -> tuple[Path, Path]:
    layout = Layout(config.workspace)
    return layout.weights(name), layout.epochs(name)


def _copy(config: Config, name: str, to: str, metadata: Mapping[str, str]) -> None:
    """Weights and epoch table under another name: the table first, for the weights say that all is there."""
    (weights, epochs), (weights_to, epochs_to) = _files(config, name), _files(config, to)
    write_text(epochs_to, epochs.read_text(encoding="utf-8"))
    checkpoint.save(checkpoint.load(weights)[0], weights_to, metadata)


def _seed(unit: Unit) -> None:
    log(f"{unit.name}: unlearning by seed {unit.seed}")
    _one(unit.own, unit.name, unit.recipe, unit.start, unit.parent, unit.prepared)


def _several(prepared: Prepared, recipe: Recipe, start: dict[str, Tensor]) -> None:
    """Seeds run.seed and those behind it, each a row below the method's. A seed that is there is not repeated; behind the last one
    the method's own files are those of the first, and name all."""
    config, name = prepared.config, prepared.config.method
    numbers = range(config.run.seed, config.run.seed + config.run.seeds)
    key = f"{name} seeds"
    state = resume_folder(prepared, key, repr(recipe), checkpoint.weights_hash(start)) / "row.json"
    with held(prepared.layout.lock(name), name):
        with rows.parent(prepared, read_json(state)["row"] if state.exists() else None) as parent:
            write_json(state, {"row": parent.reference()})
            units = [Unit(prepared, number, recipe, start, parent.reference()) for number in numbers]
            there = [unit for unit in units if unit.there()]
            if there:
                known = seeds.seed_range([unit.seed for unit in there])
                log(f"{name}: seeds {seeds.seed_range(numbers)}, of which {known} {'is' if len(there) == 1 else 'are'} there")
            for unit in there:
                rows.below(unit.own, unit.name, recipe, unit.parent, unit.prepared)
            missing = [unit for unit in units if unit not in there]
            for _ in map_units(_seed, missing, workers=config.run.workers, gpus=config.run.gpus):
                pass
            weights = {unit.seed: checkpoint.weights_hash(checkpoint.load(_files(config, unit.name)[0])[0]) for unit in units}
            _copy(config, units[0].name, name, units[0].made | seeds.noted(weights))
            if config.run.evaluate:
                results.scores(prepared, name)
        rows.several(prepared, name, parent.reference(), weights)


# --- what is there ----------------------------------------------------------------------------------------------------


def result_metadata(prepared: Prepared, name: str, recipe: Recipe, start: dict[str, Tensor]) -> dict[str, str]:
    """What a result carries: what it was made from and how; no time, no run id, so that equal results are equal bytes."""
    known = {
        "kind": str(RunId.parse(name).all_seeds),
        "architecture": prepared.config.model.architecture,
        "original": checkpoint.weights_hash(start),
    }
    return known | prepared.hashes | {"recipe": repr(recipe), "seed": str(prepared.config.run.seed)}


def evaluate(config: Config, names: Sequence[str] = (), anew: bool = True) -> None:
    """Scores made anew (without `anew` only those that lack or are of other tables) from logits tables, which are read from models
    first where they are missing; they join the rows of the runs.

    `names`: methods whose results are there, "original", "retrained", "all" that have a table; without any the configuration's method."""
    for name in names:
        if RunId.parse(name).key not in {*config.methods, *STAGE, "all"}:
            raise UserError(f"method is {name}; evaluate takes {', '.join(config.methods)}, {', '.join(STAGE)}, several of these, or all")
    prepared = prepare(config)
    layout = prepared.layout
    if not names:
        names = [str(RunId(name, chain=config.method)) for name in config.chain_recipes()] if config.chain else [config.method]
    elif "all" in names:
        names = [str(run) for run in layout.with_logits() if run.seed is None]
    results_ = [name for name in names if name not in STAGE]
    for name in results_:
        if not layout.exists(name):
            path = layout.weights(name)
            raise UserError(f"{path} does not exist; {repair_command('unlearn', config, method=RunId.parse(name).key)} makes it")
        for each in _each(prepared, name):
            results.logits(prepared, each)
    beside = [kind for kind in STAGE if results_ or kind in names]
    for kind in beside:
        if not results.there(prepared, kind) or layout.weights(kind).exists():
            references.weights(prepared, kind)
    for name in names:
        others.check(prepared, name)
    failed: RunFailed | None = None
    for name in names:
        try:
            others.add(prepared, name)
        except RunFailed as error:  # what it would have been measured with; of the others and of all else there are scores
            failed = failed or RunFailed(f"{name} is scored without evaluate.swap or evaluate.shadows: {error}")
    for name in names:
        results.scores(prepared, name, anew=anew)
    for name in results_:
        for each in _each(prepared, name):
            rows.evaluated(prepared, each)
    rows.references(prepared, beside, rescored=names)
    remember(prepared, "evaluate.")
    table = [(name, results.scores(prepared, name)) for name in (*beside, *results_)]
    print(console_tables.accuracy_table(table, results.baseline_warning(layout)))
    if config.evaluate.swap or config.evaluate.shadows:
        print(console_tables.attack_table([row for row in table if row[0] in names]))
    sys.stdout.flush()
    log(f"compare the runs: {rows.where_to_look()}")
    if failed:
        raise failed


def _each(prepared: Prepared, name: str) -> list[str]:
    """A result, behind those of its seeds where it stands for several. UserError, naming the command that mends it, where one lacks."""
    run, several = RunId.parse(name), results.seeds_of(prepared, name)
    for number in several:
        one = run.with_seed(number)
        if not prepared.layout.exists(one):
            keys = {"method": name, "run.seed": str(min(several)), "run.seeds": str(len(several))}
            again = repair_command("unlearn", prepared.config, **keys)
            raise UserError(
                f"{prepared.layout.weights(one)} does not exist, and {name} is of seeds {seeds.seed_range(sorted(several))}; "
                f"{again} makes it"
            )
    return [*(str(run.with_seed(number)) for number in several), name]


def show(prepared: Prepared, names: Iterable[str]) -> None:
    """The result table on stdout, the next command on stderr."""
    table = [(name, results.scores(prepared, name)) for name in ("original", "retrained", *names)]
    print(console_tables.accuracy_table(table, results.baseline_warning(prepared.layout)))
    sys.stdout.flush()
    log(f"compare the runs: {rows.where_to_look()}")


def check(prepared: Prepared, recipe: Recipe) -> None:
    """What only the data and the network can refuse: batches larger than what there is, names of layers. UserError, with the key."""
    config, retain = prepared.config, len(prepared.splits["retain"])
    for phase in recipe:
        if isinstance(phase, Phase) and phase.batch_size > retain:
            raise UserError(f"methods.{config.method}.batch_size is {phase.batch_size}; it takes at most the {retain} retain images")
    _check_layers(config, recipe, prepared.network(0))


def _check_layers(config: Config, recipe: Recipe, network: Module) -> None:
    for phase in recipe:
        if not isinstance(phase, Phase):
            continue
        for t in (0.0, 1.0):
            try:
                phase.trains(network, t)
            except UserError as error:
                section = config.methods[config.method]
                said = [key for key in ("trains", "unfreeze") if str(error).split("'")[1] in getattr(section, key, ())]
                raise UserError(f"methods.{config.method}.{said[0] if said else 'trains'}: {error}") from None
