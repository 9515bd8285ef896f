"""Runs of a workspace on disk, to read: names, scores, logits, weights and epoch tables."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lethe._util.errors import UserError
from lethe._util.files import read_json, user_path
from lethe.evaluation import logits_table
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import Score
from lethe.models import checkpoint
from lethe.workspace.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SavedRuns:
    """Read the runs of a workspace. Nothing is written, and no model is run.

    Args:
        root: the workspace's folder.
    """

    root: Path

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of all runs that have a logits table or scores, such as `original`, `hybrid_4`, `hybrid_4.seed3`."""
        layout = Layout(self.root)
        return tuple(sorted({str(run) for run in (*layout.with_logits(), *layout.with_scores())}))

    def scores(self, run: str) -> Score:
        """The scores of a run. Raises UserError where there are none."""
        path = Layout(self.root).scores(self._known(run))
        return Score.from_json(read_json(path), str(path))

    def logits(self, run: str) -> LogitsTable:
        """The logits table of a run: `logits` float32 [N, C], `labels` int64 [N], `split` uint8 [N], `ids`, sorted by id.

        Raises UserError where there is none."""
        return logits_table.read(Layout(self.root).logits(self._known(run)), run)

    def weights(self, run: str) -> "dict[str, Tensor]":
        """The state dict of a run, on the CPU. Raises UserError where the file is missing."""
        return checkpoint.load(Layout(self.root).weights(self._known(run)))[0]

    def epochs(self, run: str) -> list[dict[str, str]]:
        """The epoch table of a run: one dict per epoch, column -> text as written. Raises UserError where there is none."""
        path = Layout(self.root).epochs(self._known(run))
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None

    def _known(self, run: str) -> str:
        if run not in self.runs:
            raise UserError(f"{self.root} has no run {run}; it has {', '.join(self.runs)}")
        return run


def load(workspace: Path | str) -> SavedRuns:
    """Open a workspace to read what its runs left: `python src/*.py` or `lethe` wrote them.

    Args:
        workspace: its folder, as given to `run.workspace`; relative to the current folder.

    Returns:
        Its runs: `.runs`, and by name `.scores(run)`, `.logits(run)`, `.weights(run)`, `.epochs(run)`.

    Raises:
        UserError: the folder does not exist, or holds no run.
    """
    saved = SavedRuns(user_path(workspace))
    if not saved.root.is_dir():
        raise UserError(f"{workspace} is not a folder; it takes the folder of a workspace")
    if not saved.runs:
        raise UserError(f"{workspace} holds no runs; it takes a folder with logits/ or scores/")
    return saved
