"""Unlearning from start to table: what is missing is made first, what does not belong together is refused."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torch.nn import Module

from unlearning import checkpoint, compute, model, references, results, rows, tracking
from unlearning.config import Config
from unlearning.errors import BadInput
from unlearning.files import read_json, write_json
from unlearning.follow import held, resume_folder, started
from unlearning.recipe import Phase, Recipe
from unlearning.scratch import STAGE
from unlearning.workspace import Prepared, mend, prepare, say


def unlearn(config: Config) -> None:
    """One method (or the notebook's chain), one row each; prints original, retrained and result side by side."""
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
    names = [f"{config.method}/{name}" if config.chain else name for name in recipes]
    if config.chain:
        _chain(prepared, dict(zip(names, recipes.values(), strict=True)), start)
    else:
        _one(prepared, config.method, recipes[config.method], start)
    if config.run.evaluate:
        rows.references(prepared)
        show(prepared, names)


def _chain(prepared: Prepared, recipes: Mapping[str, Recipe], start: dict[str, Tensor]) -> None:
    """Ten runs, each from the result before it. One that was stopped goes on with the first that was not done."""
    name, home = prepared.config.method, prepared.config.workspace
    state = resume_folder(prepared, name, repr(recipes), checkpoint.weights_hash(start)) / "chain.json"
    with held(home / ".lethe" / "locks" / f"{name}.lock", name):
        known = read_json(state) if state.exists() else {"row": None, "done": []}
        with rows.parent(prepared, known["row"]) as parent:
            known["row"] = parent.reference()
            for part, recipe in recipes.items():
                path = home / "models" / f"{part}.safetensors"
                result = result_metadata(prepared, part, recipe, start)
                if part in known["done"] and path.exists() and checkpoint.metadata(path) == result:
                    say(f"{part}: is done")
                    start = checkpoint.load(path)[0]
                else:
                    write_json(state, known)
                    start = _one(prepared, part, recipe, start, parent)
                    known["done"].append(part)
        shutil.rmtree(state.parent, ignore_errors=True)


def _one(prepared: Prepared, name: str, recipe: Recipe, start: dict[str, Tensor], parent: tracking.Row | None = None) -> dict[str, Tensor]:
    config = prepared.config
    network = prepared.network(config.run.seed)
    network.load_state_dict(start)
    path = config.workspace / "models" / f"{name}.safetensors"
    reference = parent.reference() if parent else None
    with started(prepared, name, recipe, network, launched=parent is None, parent=reference) as run:
        run.follow()
        run.save(path, result_metadata(prepared, name, recipe, start))
        if config.run.evaluate:
            rows.finished(run.row, prepared, name, run.state.number)
        rows.export(run.row, prepared, network, path)
    return network.state_dict()


def result_metadata(prepared: Prepared, name: str, recipe: Recipe, start: dict[str, Tensor]) -> dict[str, str]:
    """What a result carries: what it was made from and how; no time, no run id, so that equal results are equal bytes."""
    known = {"kind": name, "architecture": prepared.config.model.architecture, "original": checkpoint.weights_hash(start)}
    return known | prepared.hashes | {"recipe": repr(recipe), "seed": str(prepared.config.run.seed)}


def evaluate(config: Config, names: Sequence[str] = ()) -> None:
    """Scores made anew from logits tables, which are read from models first where they are missing; they join the rows of the runs.

    `names`: methods whose results are there, "original", "retrained", "all" that have a table; without any the configuration's method."""
    prepared = prepare(config)
    if not names:
        names = [f"{config.method}/{name}" for name in config.chain_recipes()] if config.chain else [config.method]
    elif "all" in names:
        found = (config.workspace / "logits").rglob("*.safetensors")
        names = sorted(str(path.relative_to(config.workspace / "logits").with_suffix("")) for path in found)
    results_ = [name for name in names if name not in STAGE]
    for name in results_:
        if not any((config.workspace / folder / f"{name}.safetensors").exists() for folder in ("models", "logits")):
            path = config.workspace / "models" / f"{name}.safetensors"
            raise BadInput(f"{path} does not exist; {mend('unlearn', config, method=name.partition('/')[0])} makes it")
        results.logits(prepared, name)
    beside = [kind for kind in STAGE if results_ or kind in names]
    for kind in beside:
        if not results.there(prepared, kind) or (config.workspace / "models" / f"{kind}.safetensors").exists():
            references.weights(prepared, kind)
    for name in names:
        results.scores(prepared, name, anew=True)
    for name in results_:
        rows.evaluated(prepared, name)
    rows.references(prepared, beside, rescored=names)
    print(results.show([(name, results.scores(prepared, name)) for name in (*beside, *results_)]))
    sys.stdout.flush()
    say(f"compare the runs: {rows.where_to_look()}")


def show(prepared: Prepared, names: Iterable[str]) -> None:
    """The result table on stdout, the next command on stderr."""
    print(results.show([(name, results.scores(prepared, name)) for name in ("original", "retrained", *names)]))
    sys.stdout.flush()
    say(f"compare the runs: {rows.where_to_look()}")


def check(prepared: Prepared, recipe: Recipe) -> None:
    """What only the data and the network can refuse: batches larger than what there is, names of layers. BadInput, with the key."""
    config, retain = prepared.config, len(prepared.splits["retain"])
    for phase in recipe:
        if isinstance(phase, Phase) and phase.batch_size > retain:
            raise BadInput(f"methods.{config.method}.batch_size is {phase.batch_size}; it takes at most the {retain} retain images")
    _check_layers(config, recipe, prepared.network(0))


def _check_layers(config: Config, recipe: Recipe, network: Module) -> None:
    for phase in recipe:
        if not isinstance(phase, Phase):
            continue
        for t in (0.0, 1.0):
            try:
                phase.trains(network, t)
            except BadInput as error:
                section = config.methods[config.method]
                said = [key for key in ("trains", "unfreeze") if str(error).split("'")[1] in getattr(section, key, ())]
                raise BadInput(f"methods.{config.method}.{said[0] if said else 'trains'}: {error}") from None
