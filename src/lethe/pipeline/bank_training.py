"""The reference bank is made and grows: what lacks is trained, many small models at once where that is right and faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe._util.files import read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.engine.resume import Resume
from lethe.evaluation import logits_table as table
from lethe.evaluation import seed_aggregation as seeds
from lethe.models import checkpoint
from lethe.parallel.pool import map_units
from lethe.pipeline import batch_training as training
from lethe.pipeline import run_logging as rows
from lethe.pipeline.runner import held
from lethe.recipes.recipe import Recipe
from lethe.workspace import bank
from lethe.workspace import read_model as reading
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared, prepare, remember

ABOUT = "The reference bank: <key>/<kind>.seed<k>.safetensors, one logits table a model (pretrain.seeds, retrain.seeds).\n"


@dataclass(frozen=True)
class Unit:
    """Models that are trained at once: several as one stack, or one alone."""

    prepared: Prepared
    kind: str
    seeds: tuple[int, ...]
    parent: Mapping[str, Any]  # the reference of the bank's row

    def __str__(self) -> str:
        return f"{self.kind}, seed{'s' if len(self.seeds) > 1 else ''} {seeds.seed_range(self.seeds)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self.prepared.config, self.kind, self.seeds, self.parent)

    @property
    def folder(self) -> Path:
        """Where its resume state stands, and which seeds are its."""
        return _states(self.prepared) / str(RunId(self.kind, self.seeds[0]))

    @property
    def recipe(self) -> Recipe:
        return self.prepared.config.reference_recipe(self.kind)


def _elsewhere(config: Config, kind: str, seeds_: tuple[int, ...], parent: Mapping[str, Any]) -> Unit:
    """In another process, which reads the images by itself."""
    return Unit(prepare(config), kind, seeds_, parent)


def _states(prepared: Prepared) -> Path:
    chosen = prepared.compute
    return prepared.layout.bank_state(bank.key(prepared), f"{chosen.precision}-{chosen.device.type}")


def grow(config: Config) -> None:
    """As many originals and retrained models as pretrain.seeds and retrain.seeds ask for: those that are there stay.

    One row for the bank, one below it for each model. Killed, it goes on with the models that it was at."""
    prepared = prepare(config)
    folder = bank.home(prepared)
    if not (about := folder.parent / "README.txt").exists():  # DVC warns of an empty folder
        write_text(about, ABOUT)
    wanted = {kind: getattr(config, stage).seeds for kind, stage in STAGE.items()}
    lacking = {kind: _lacking(prepared, kind, number) for kind, number in wanted.items()}
    for kind, number in wanted.items():
        log(f"bank {folder.name}: {number} {kind} asked for, {number - len(lacking[kind])} of them there")
    for kind in STAGE:
        found = bank.tables(prepared, kind)  # what does not belong is said before anything is trained
        if other := sum(made.about.get("reading") != reading.way(prepared) for made in found):
            log(
                f"{other} of the {len(found)} {kind} there were read in another way than models are now (the code or evaluate.* has "
                f"changed), and measures may miss columns in them; delete {folder}, and this command makes all anew"
            )
    if any(lacking.values()):
        with held(prepared.layout.lock("bank"), "bank"):
            _fill(prepared, lacking)
    remember(prepared, "pretrain.seeds", "retrain.seeds")
    print(f"{folder}: {', '.join(f'{number} {kind}' for kind, number in _there(prepared).items())}", flush=True)


def _fill(prepared: Prepared, lacking: Mapping[str, Sequence[int]]) -> None:
    note = _states(prepared) / "row.json"
    with rows.bank(prepared, bank.key(prepared), read_json(note) if note.exists() else None) as parent:
        write_json(note, parent.reference())
        units = [unit for kind, numbers in lacking.items() for unit in _units(prepared, kind, numbers, parent.reference())]
        for _ in map_units(_train, units, workers=prepared.config.run.workers, gpus=prepared.config.run.gpus):
            pass
        parent.tags({f"bank.{kind}": number for kind, number in _there(prepared).items()})
    write_json(note, parent.reference())


def _there(prepared: Prepared) -> dict[str, int]:
    return {kind: len(prepared.layout.bank_seeds(bank.key(prepared), kind)) for kind in STAGE}


def _lacking(prepared: Prepared, kind: str, number: int) -> list[int]:
    first = prepared.config.run.seed + 1
    return [seed for seed in range(first, first + number) if not bank.path(prepared, kind, seed).exists()]


def _units(prepared: Prepared, kind: str, lacking: Sequence[int], parent: Mapping[str, Any]) -> list[Unit]:
    """First those that were stopped, with the seeds that they had then; the others in stacks, where that is right and faster."""
    known = [read_json(path) for path in sorted(_states(prepared).glob("*/seeds.json")) if RunId.parse(path.parent.name).method == kind]
    stopped = [tuple(numbers) for numbers in known if set(numbers) & set(lacking)]
    rest = [seed for seed in lacking if not any(seed in numbers for numbers in stopped)]
    size = training.at_once(prepared, prepared.config.reference_recipe(kind), len(rest), kind)
    parts = [tuple(rest[start : start + size]) for start in range(0, len(rest), size)]
    return [Unit(prepared, kind, numbers, parent) for numbers in (*stopped, *parts)]


def _train(unit: Unit) -> None:
    """Train, read into tables, tell their rows; then the resume state has had its use."""
    prepared, kind = unit.prepared, unit.kind
    write_json(unit.folder / "seeds.json", list(unit.seeds))
    resume = Resume(unit.folder)
    models = [training.Model(seed, prepared.splits) for seed in unit.seeds]
    for seed, tensors in zip(unit.seeds, training.trained(prepared, unit.recipe, models, resume, str(unit)), strict=True):
        path = bank.path(prepared, kind, seed)
        if path.exists():  # it was stopped between two tables
            continue
        name = str(RunId(kind, seed))
        known = bank.asked(prepared, kind, seed) | {"model": checkpoint.weights_hash(tensors), "reading": reading.way(prepared)}
        made = reading.read(prepared, name, tensors, known)
        note = unit.folder / f"{seed}.row.json"
        previous = read_json(note) if note.exists() else None
        with rows.of_bank(prepared, made, unit.parent, previous, resume.history[-1]["step"]) as row:
            write_json(note, row.reference())
        table.write(made, path)
    resume.done()
