"""A progress bar on stderr."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(*columns: TextColumn | MofNCompleteColumn | DownloadColumn) -> Progress:
    """A bar on stderr; disabled (`.disable`) when stderr is not a terminal."""
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
