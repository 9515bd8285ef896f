"""A progress bar on stderr."""

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Bar(Protocol):
    """What is used of rich's `Progress`."""

    @property
    def disable(self) -> bool:
        """Whether nothing is shown."""
        ...

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Show a task.

        Args:
            description: what is shown in front of its bar.
            total: its number of units; None: not known.

        Returns:
            The task, for `update`.
        """
        ...

    def update(self, task: Any, /, *, completed: float) -> None:
        """Show how much of a task is done.

        Args:
            task: as `add_task` returned it.
            completed: number of units since its start.
        """
        ...


def progress_bar(*, download: bool = False) -> AbstractContextManager[Bar]:
    """A bar on stderr; disabled (`.disable`) when stderr is not a terminal, and where rich is not installed.

    Args:
        download: whether units are bytes.

    Returns:
        A context whose value is the bar.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        return _NoBar()
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if download else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class _NoBar:
    disable = True

    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def add_task(self, description: str, *, total: float | None) -> None:
        return None

    def update(self, task: Any, /, *, completed: float) -> None:
        return None
