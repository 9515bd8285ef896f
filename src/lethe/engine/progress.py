"""The progress display of a run, on stderr."""

import sys
from collections.abc import Iterable, Iterator

from lethe.data.device_data import Data
from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import MEASURED
from lethe.recipes.recipe import Phase, Recipe


def show_progress(epochs: Iterable[Epoch], recipe: Recipe, data: Data, label: str) -> Iterator[Epoch]:
    """Show a line per epoch on stderr, with the time left; on a terminal also a progress bar."""
    total = [steps_in_epoch(phase, e, data) for phase in recipe if isinstance(phase, Phase) for e in range(phase.epochs)]
    display = _Bar(len(total), label) if sys.stderr.isatty() else _Lines()
    seconds = done = evaluating = 0.0
    with display:
        for epoch in epochs:
            if epoch.steps:
                seconds, done = seconds + epoch.seconds, done + epoch.steps
                evaluating = epoch.evaluate_seconds or evaluating
            todo = total[epoch.global_epoch :]
            left = sum(todo) * seconds / done + evaluating * len(todo) if done else None
            display.show(epoch, len(total), left)
            yield epoch


def steps_in_epoch(phase: Phase, epoch: int, data: Data) -> int:
    """Number of optimizer steps in an epoch of a phase, on this data."""
    return len(phase.word({letter: data.length(stream, phase.batch_size) for letter, stream in phase.streams.items()}, epoch))


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds, as HH:MM:SS.

    >>> format_seconds(100_000)
    '27:46:40'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


HEADER = f"{'phase':<10} {'epoch':>7} {'retain':>7} {'forget':>7} {'val':>7} {'gap':>7} {'scale':>7} {'img/s':>7} {'left':>8}"


def progress_line(epoch: Epoch, epochs: int, left: float | None) -> str:
    """The columns of HEADER for an epoch; `epochs` of the whole run, `left` in seconds."""

    def cell(value: float | None, form: str = "7.2f") -> str:
        return f"{value:{form}}" if value is not None else " " * int(form.split(".")[0])

    measured = [cell(epoch.metrics.get(f"{split}.accuracy")) for split in MEASURED]
    rate = epoch.images / epoch.seconds if epoch.steps and epoch.seconds else None
    time_left = format_seconds(left) if left is not None else ""
    numbers = [*measured, cell(epoch.metrics.get("gap")), cell(epoch.scale, "7.3f"), cell(rate, "7.0f")]
    return " ".join([f"{epoch.phase:<10}", f"{epoch.global_epoch}/{epochs}".rjust(7), *numbers, time_left.rjust(8)])


class _Lines:
    """One line per epoch, for logs."""

    def __enter__(self) -> "_Lines":
        print(HEADER, file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        print(progress_line(epoch, epochs, left), file=sys.stderr, flush=True)


class _Bar:
    """The same lines with a progress bar below them."""

    def __init__(self, epochs: int, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True, highlight=False))
        self.task = self.bar.add_task(label, total=epochs, left="")

    def __enter__(self) -> "_Bar":
        self.bar.start()
        self.bar.console.print(HEADER)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, epoch: Epoch, epochs: int, left: float | None) -> None:
        self.bar.console.print(progress_line(epoch, epochs, left))
        text = f"left {format_seconds(left)}" if left is not None else ""
        self.bar.update(self.task, completed=epoch.global_epoch, left=text)
