"""Runs one after another: the links of a chain, each from the result of the one before, under one parent MLflow run; or a single run."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lethe._util.files import read_json, write_json
from lethe._util.log import log
from lethe.models import checkpoint
from lethe.pipeline import nested_runs
from lethe.pipeline.runner import held, metadata, resume_folder
from lethe.workspace.plan import PlannedRun
from lethe.workspace.provenance import matches
from lethe.workspace.workspace import Prepared


@dataclass
class RunSequence:
    """Runs that are made one after another.

    Attributes:
        prepared: the images and splits.
        runs: in their order.
        parent: reference of the parent MLflow run; None: they have none.
        state: file with the links that are finished; None: a single run, which is not resumed as a whole.
        finished: names of the links that an earlier process finished, or this one.
    """

    prepared: Prepared
    runs: Sequence[PlannedRun]
    parent: Mapping[str, Any] | None = None
    state: Path | None = None
    finished: list[str] = field(default_factory=list)

    def missing(self) -> Iterator[PlannedRun]:
        """Yield each run that is not finished; asking for the next one says that it is."""
        for planned in self.runs:
            if self._is_finished(planned):
                log(f"{planned}: already finished")
                continue
            if self.state:
                write_json(self.state, {"row": self.parent, "done": self.finished})
            yield planned
            self.finished.append(str(planned))

    def _is_finished(self, planned: PlannedRun) -> bool:
        layout = self.prepared.layout
        path = layout.weights(planned.run)
        if str(planned) not in self.finished or planned.parent is None or not path.exists():
            return False
        start = checkpoint.model_hash(layout.weights(planned.parent))
        return matches(metadata(self.prepared, planned, start), checkpoint.metadata(path))


@contextmanager
def one_after_another(prepared: Prepared, runs: Sequence[PlannedRun]) -> Iterator[RunSequence]:
    """Hold the lock and the parent MLflow run of a chain; a chain that was stopped resumes with its first unfinished link.

    Args:
        prepared: the images and splits.
        runs: the links, or a single run, which has no parent.

    Yields:
        The runs in their order; links that finished earlier are not run again.

    Raises:
        RunFailed: another process runs the chain.
    """
    first = runs[0]
    if first.run.chain is None or first.parent is None:
        yield RunSequence(prepared, runs)
        return
    name, layout = first.run.chain, prepared.layout
    start = checkpoint.model_hash(layout.weights(first.parent))
    state = resume_folder(prepared, name, repr({str(planned): planned.recipe for planned in runs}), start) / "chain.json"
    with held(layout.lock(name), name):
        known = read_json(state) if state.exists() else {"row": None, "done": []}
        with nested_runs.open_parent(prepared, runs, known["row"]) as parent:
            yield RunSequence(prepared, runs, parent.reference(), state, known["done"])
        shutil.rmtree(state.parent, ignore_errors=True)
