"""The progress display of a run, on stderr."""

import sys

from lethe.data.device_data import Data
from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import MEASURED
from lethe.recipes.recipe import Phase, Recipe

TENTHS = 10  # without a terminal a run has so many lines,
SILENT = 60.0  # and further ones after so many seconds without any
NARROWEST = 12  # column of the phase


class Progress:
    """Show epochs on stderr, with the time left: on a terminal a line for each and a progress bar. Elsewhere, as in a file or in a log of
    CI, a line for the start, the first epoch and each tenth of the run, more only where a minute passes without one.

    Args:
        recipe: phases and edits of the run.
        data: what it trains on, for the number of steps.
        label: name of the run.
    """

    def __init__(self, recipe: Recipe, data: Data, label: str) -> None:
        self.steps: list[int] = []  # of each epoch; an edit counts as one of no steps, as in `Epoch.global_epoch`
        for part in recipe:
            self.steps += [steps_in_epoch(part, epoch, data) for epoch in range(part.epochs)] if isinstance(part, Phase) else [0]
        width = max([NARROWEST, *(len(part.name) for part in recipe)])
        self._display = _Bar(len(self.steps), label, width) if sys.stderr.isatty() else _Lines(width)
        self._seconds = self._done = self._evaluating = 0.0

    def __enter__(self) -> "Progress":
        self._display.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, epoch: Epoch) -> None:
        """Show a finished epoch and the seconds left, at the mean time of the optimizer steps and of the last evaluation."""
        if epoch.steps:
            self._seconds, self._done = self._seconds + epoch.seconds, self._done + epoch.steps
            self._evaluating = epoch.evaluate_seconds or self._evaluating
        todo = self.steps[epoch.global_epoch :]
        left = sum(todo) * self._seconds / self._done + self._evaluating * len(todo) if self._done else None
        self._display.show(epoch, len(self.steps), left)

    def close(self) -> None:
        """End the bar; calling it again does nothing."""
        self._display.close()


def steps_in_epoch(phase: Phase, epoch: int, data: Data) -> int:
    """Count the optimizer steps of an epoch.

    Args:
        phase: the phase.
        epoch: index within the phase, from 0.
        data: what it trains on.

    Returns:
        The number of steps.
    """
    return len(phase.batch_order({letter: data.length(stream, phase.size(stream)) for letter, stream in phase.streams.items()}, epoch))


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds, as HH:MM:SS.

    >>> format_seconds(100_000)
    '27:46:40'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


COLUMNS = f"{'epoch':>7} {'retain':>7} {'forget':>7} {'val':>7} {'gap':>7} {'scale':>7} {'img/s':>7} {'left':>8}"


def progress_line(epoch: Epoch, epochs: int, left: float | None, width: int = NARROWEST) -> str:
    """Format an epoch in a column for its phase, followed by COLUMNS.

    Args:
        epoch: record of the epoch.
        epochs: number of epochs of the whole run.
        left: estimated seconds until the end of the run; None: unknown.
        width: of the column of the phase, in characters.

    Returns:
        One line; what was not measured is blank.
    """

    def cell(value: float | None, form: str = "7.2f") -> str:
        return f"{value:{form}}" if value is not None else " " * int(form.split(".")[0])

    measured = [cell(epoch.metrics.get(f"{split}.accuracy")) for split in MEASURED]
    rate = epoch.images / epoch.seconds if epoch.steps and epoch.seconds else None
    time_left = format_seconds(left) if left is not None else ""
    numbers = [*measured, cell(epoch.metrics.get("gap")), cell(epoch.scale, "7.3f"), cell(rate, "7.0f")]
    return " ".join([f"{epoch.phase:<{width}}", f"{epoch.global_epoch}/{epochs}".rjust(7), *numbers, time_left.rjust(8)])


class _Lines:
    """Some of the epochs, a line each, for logs."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._next = 0  # number of the next epoch that has a line in any case
        self._silent = 0.0  # seconds since the last line

    def open(self) -> None:
        print(f"{'phase':<{self._width}} {COLUMNS}", file=sys.stderr)

    def close(self) -> None:
        pass

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        self._silent += epoch.seconds + epoch.evaluate_seconds
        at = epoch.global_epoch
        if at < self._next and self._silent < SILENT:
            return
        print(progress_line(epoch, epochs, left, self._width), file=sys.stderr, flush=True)
        tenth = at * TENTHS // epochs + 1 if epochs else 1
        self._next, self._silent = -(-tenth * epochs // TENTHS) if at else 1, 0.0


class _Bar:
    """The same lines with a progress bar below them."""

    def __init__(self, epochs: int, label: str, width: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._width = width
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True, highlight=False))
        self.task = self.bar.add_task(label, total=epochs, left="")

    def open(self) -> None:
        self.bar.start()
        self.bar.console.print(f"{'phase':<{self._width}} {COLUMNS}")

    def close(self) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        self.bar.console.print(progress_line(epoch, epochs, left, self._width))
        text = f"left {format_seconds(left)}" if left is not None else ""
        self.bar.update(self.task, completed=epoch.global_epoch, left=text)
