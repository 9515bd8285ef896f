"""One method by several seeds, from one original: a run for each, in parallel where asked, under one parent MLflow run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe._util.files import read_json, short, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.engine import engine
from lethe.evaluation import seed_aggregation
from lethe.models import checkpoint
from lethe.parallel.pool import map_units
from lethe.pipeline import cost, nested_runs, worker_advice
from lethe.pipeline.runner import held, metadata, resume_folder, start
from lethe.workspace import scores, timing
from lethe.workspace.layout import Layout
from lethe.workspace.plan import ORIGINAL, PlannedRun
from lethe.workspace.prepare import prepare
from lethe.workspace.provenance import matches, unknown
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared


@dataclass(frozen=True, eq=False)
class SeedRun:
    """The run of one seed: a work unit that any process can do.

    Attributes:
        prepared: the images and splits, configured as the seeds are scored.
        planned: its name, recipe, seed and parent.
        parent: reference of the parent MLflow run.
    """

    prepared: Prepared
    planned: PlannedRun
    parent: Mapping[str, Any]

    def __str__(self) -> str:
        return str(self.planned)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_another_process, (self.prepared.config, self.planned, self.parent)


def _in_another_process(config: Config, planned: PlannedRun, parent: Mapping[str, Any]) -> SeedRun:
    """Read the images again: they are not sent."""
    return SeedRun(prepare(config), planned, parent)


def _run(unit: SeedRun) -> None:
    planned = unit.planned
    log(f"{planned}: unlearning by seed {planned.seed}")
    with start(unit.prepared, planned, parent=unit.parent) as run:
        for epoch in engine.run(planned.recipe, run.network, run.data, run.options, state=run.state):
            run.record(epoch)
        run.finish()
        run.export()


def unlearn_seeds(prepared: Prepared, runs: Sequence[PlannedRun]) -> None:
    """Run the seeds that are not finished. In the end the method's own files are those of the first seed, and their metadata
    names all seeds.

    Args:
        prepared: the images and splits, configured for the first seed.
        runs: one for each seed.

    Raises:
        RunFailed: another process runs the method; or a seed failed, after the others were run.
    """
    config, layout, method = prepared.config, prepared.layout, runs[0].run.all_seeds
    weights = checkpoint.model_hash(layout.weights(ORIGINAL))
    state = resume_folder(prepared, f"{method} seeds", repr(runs[0].recipe), weights) / "row.json"
    with held(layout.lock(method), str(method)):
        with nested_runs.open_parent(prepared, runs, read_json(state)["row"] if state.exists() else None) as parent:
            write_json(state, {"row": parent.reference()})
            finished = [planned for planned in runs if _is_finished(prepared, planned, weights)]
            if finished:
                numbers, known = (seed_aggregation.seed_range([planned.seed for planned in some]) for some in (runs, finished))
                log(f"{method}: seeds {numbers}; already finished: {known}")
            for planned in finished:
                nested_runs.log_finished_seed(prepared, planned, parent.reference())
            missing = [SeedRun(prepared, planned, parent.reference()) for planned in runs if planned not in finished]
            if config.run.workers == 1 and len(missing) > 1:
                worker_advice.advise(prepared, "run.workers", len(missing), lambda: cost.share_of(prepared), str(method))
            for _ in map_units(_run, missing, workers=config.run.workers, gpus=config.run.gpus):
                pass
            hashes = {planned.seed: checkpoint.model_hash(layout.weights(planned.run)) for planned in runs}
            about = metadata(prepared, runs[0], weights) | seed_aggregation.noted(hashes)
            if not (layout.epochs(method).exists() and matches(about, _metadata(layout.weights(method)))):
                _copy(layout, runs[0].run, method, about)
            if config.run.evaluate:
                scores.scores(prepared, str(method))
        nested_runs.log_seeds(prepared, str(method), parent.reference(), hashes)


def _is_finished(prepared: Prepared, planned: PlannedRun, start: str) -> bool:
    """Whether the files of a seed exist and belong to these settings. Those of a run of this seed by itself are copied."""
    layout, wanted = prepared.layout, metadata(prepared, planned, start)
    for run in (planned.run, planned.run.all_seeds):
        found = _metadata(layout.weights(run))
        if layout.epochs(run).exists() and matches(wanted, found):
            if run != planned.run:
                _copy(layout, run, planned.run, {key: wanted[key] for key in wanted if key not in unknown(wanted, found)})
                timing.keep_cost(layout, str(run), str(planned.run), short(checkpoint.model_hash(layout.weights(run))))
            return True
    return False


def _metadata(path: Path) -> dict[str, str]:
    return checkpoint.metadata(path) if path.exists() else {}


def _copy(layout: Layout, run: RunId, to: RunId, metadata_: Mapping[str, str]) -> None:
    """Copy epoch table and weights to another name; the table first, for the weights show that both exist."""
    write_text(layout.epochs(to), layout.epochs(run).read_text(encoding="utf-8"))
    checkpoint.save_model(checkpoint.load(layout.weights(run))[0], layout.weights(to), metadata_)
