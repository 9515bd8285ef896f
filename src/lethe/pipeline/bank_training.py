"""Training of the reference bank: the models that are missing, several small ones at once where that is correct and faster."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe._util.files import read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.engine.resume import Resume
from lethe.evaluation import logits_table, seed_aggregation
from lethe.models import checkpoint, device
from lethe.parallel.pool import map_units
from lethe.pipeline import batch_training, nested_runs, references, worker_advice
from lethe.pipeline.runner import held
from lethe.recipes.recipe import Recipe
from lethe.workspace import bank, read_model
from lethe.workspace.prepare import prepare, remember
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

README = "The reference bank: <key>/<kind>.seed<k>.safetensors, one logits table a model (pretrain.seeds, retrain.seeds).\n"


@dataclass(frozen=True)
class WorkUnit:
    """Models that are trained in one run: several as one stack, or one alone.

    Attributes:
        prepared: the images and splits.
        kind: original or retrained.
        seeds: one for each model.
        parent: reference of the bank's MLflow run.
    """

    prepared: Prepared
    kind: str
    seeds: tuple[int, ...]
    parent: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind}, seed{'s' if len(self.seeds) > 1 else ''} {seed_aggregation.seed_range(self.seeds)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_another_process, (self.prepared.config, self.kind, self.seeds, self.parent)

    @property
    def folder(self) -> Path:
        """Folder of its resume state, and of the list of its seeds."""
        return _states(self.prepared) / str(RunId(self.kind, self.seeds[0]))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the reference that these models repeat."""
        return self.prepared.reference_recipe(self.kind)


def _in_another_process(config: Config, kind: str, seeds: tuple[int, ...], parent: Mapping[str, Any]) -> WorkUnit:
    """Read the images again: they are not sent."""
    return WorkUnit(prepare(config), kind, seeds, parent)


def _states(prepared: Prepared) -> Path:
    chosen = prepared.compute
    return prepared.layout.bank_state(bank.key(prepared), f"{chosen.precision}-{chosen.device.type}")


def _unfinished(prepared: Prepared) -> Path:
    """The file that is there from the beginning of a training to the end of its MLflow run."""
    return _states(prepared) / "unfinished"


def train_bank(config: Config) -> None:
    """Train as many originals and retrained models as pretrain.seeds and retrain.seeds ask for; existing ones are kept.

    The bank has an MLflow run, and each model one nested in it. A killed command resumes the models it was training.

    Raises:
        UserError: a file in the bank's folder is of other settings; or a model can't be trained, and nothing is written.
        RunFailed: a model diverged, or another process trains the bank.
    """
    device.resolve(config.run)
    references.check_models(config)
    prepared = prepare(config)
    folder = bank.folder(prepared)
    if not (readme := folder.parent / "README.txt").exists():  # DVC warns of an empty folder
        write_text(readme, README)
    wanted = {kind: getattr(config, stage).seeds for kind, stage in STAGE.items()}
    missing = {kind: _missing(prepared, kind, number) for kind, number in wanted.items()}
    for kind, number in wanted.items():
        log(f"bank {folder.name}: {number} {kind} requested, {number - len(missing[kind])} already trained")
    for kind in STAGE:
        tables = bank.tables(prepared, kind)  # before anything is trained: raises where one does not belong
        if other := sum(not read_model.as_read_now(prepared, table.about) for table in tables):
            log(
                f"{other} of the {len(tables)} existing {kind} tables were computed in another way than now (the code or evaluate.* has "
                f"changed), so measures may lack columns; delete {folder} to have this command make all of them again"
            )
    if any(missing.values()) or _unfinished(prepared).exists():
        with held(prepared.layout.lock("bank"), "bank"):
            _train_missing(prepared, missing)
    remember(prepared, "pretrain.seeds", "retrain.seeds")
    print(f"{folder}: {', '.join(f'{number} {kind}' for kind, number in _counts(prepared).items())}", flush=True)


def _train_missing(prepared: Prepared, missing: Mapping[str, Sequence[int]]) -> None:
    note = _states(prepared) / "row.json"
    with nested_runs.open_bank(prepared, bank.key(prepared), read_json(note) if note.exists() else None) as parent:
        write_json(note, parent.reference())
        write_text(_unfinished(prepared), "")
        units = [unit for kind, numbers in missing.items() for unit in _units(prepared, kind, numbers, parent.reference())]
        if prepared.config.run.workers == 1 and all(len(unit.seeds) == 1 for unit in units):
            worker_advice.advise(prepared, "run.workers", len(units), lambda: 1.0, "bank")
        for _ in map_units(_run, units, workers=prepared.config.run.workers, gpus=prepared.config.run.gpus):
            pass
        parent.tags({f"bank.{kind}": number for kind, number in _counts(prepared).items()})
    write_json(note, parent.reference())
    _unfinished(prepared).unlink()


def _counts(prepared: Prepared) -> dict[str, int]:
    return {kind: len(prepared.layout.bank_seeds(bank.key(prepared), kind)) for kind in STAGE}


def _missing(prepared: Prepared, kind: str, number: int) -> list[int]:
    first = prepared.config.run.seed + 1
    return [seed for seed in range(first, first + number) if not bank.path(prepared, kind, seed).exists()]


def _units(prepared: Prepared, kind: str, missing: Sequence[int], parent: Mapping[str, Any]) -> list[WorkUnit]:
    """Return the units that were stopped, with their seeds, then the other seeds in stacks."""
    known = [read_json(path) for path in sorted(_states(prepared).glob("*/seeds.json")) if RunId.parse(path.parent.name).method == kind]
    stopped = [tuple(numbers) for numbers in known if set(numbers) & set(missing)]
    rest = [seed for seed in missing if not any(seed in numbers for numbers in stopped)]
    parts = batch_training.stacks(prepared, prepared.reference_recipe(kind), rest, kind)
    return [WorkUnit(prepared, kind, numbers, parent) for numbers in (*stopped, *parts)]


def _run(unit: WorkUnit) -> None:
    """Train the models, compute their logits tables, log their MLflow runs; then the resume state is no longer needed."""
    prepared, kind = unit.prepared, unit.kind
    write_json(unit.folder / "seeds.json", list(unit.seeds))
    resume = Resume(unit.folder)
    models = [batch_training.ModelSpec(seed, prepared.splits) for seed in unit.seeds]
    with closing(batch_training.train(prepared, unit.recipe, models, resume, str(unit))) as ends:
        for seed, tensors in zip(unit.seeds, ends, strict=True):
            path = bank.path(prepared, kind, seed)
            if path.exists():  # an earlier process was stopped between two tables
                continue
            about = bank.metadata(prepared, kind, seed) | {
                "model": checkpoint.weights_hash(tensors),
                "reading": read_model.reading_hash(prepared),
            }
            # relearning compares a model with retrained ones, so the bank's originals, whose columns no measure looks at, do without
            table = read_model.read(prepared, str(RunId(kind, seed)), tensors, about, relearned=kind == "retrained")
            note = unit.folder / f"{seed}.row.json"
            previous = read_json(note) if note.exists() else None
            with nested_runs.open_bank_model(prepared, table, unit.parent, previous, resume.history[-1]["step"]) as run_log:
                write_json(note, run_log.reference())
            logits_table.write(table, path)
    resume.done()
