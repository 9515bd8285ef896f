"""Figures of a search, as PNG: the front, the front by budget, and Optuna's own plots of the arguments."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from lethe._util import redact
from lethe.search.pareto import Point
from lethe.search.pareto import front as front_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_BUDGET = 10  # trials; the next budgets are twice as large each


class Mark(NamedTuple):
    """A labelled point on the front's figure."""

    label: str
    point: Point
    colour: str
    marker: str


def front(title: str, names: tuple[str, str], points: Sequence[Point], passed: Sequence[bool], marks: Iterable[Mark]) -> bytes:
    """Draw the trials and their front.

    Args:
        title: The figure's title.
        names: Names of the two objectives.
        points: Complete trials as (unlearning, utility).
        passed: Which of them can't be told from a model that never saw the forget images; the winner is one of these if there are any.
        marks: Points to label.

    Returns:
        The figure as PNG.
    """
    figure = _figure(7.5, 4.8)
    axes = figure.subplots()
    best = [points[n] for n in front_of(points)]
    axes.plot(*zip(*points, strict=True), "o", color="#999999", markersize=5, label=f"{len(points)} complete trials")
    unseen = [point for point, each in zip(points, passed, strict=True) if each]
    label = f"{len(unseen)} of them: can't be told\nfrom unseen within the interval"
    axes.plot([x for x, _ in unseen], [y for _, y in unseen], "o", color="none", markeredgecolor="#222222", markersize=9, label=label)
    axes.plot(
        *zip(*best, strict=True), "o-", color="#0072B2", markersize=5, drawstyle="steps-post", label=f"{len(best)} of them: the front"
    )
    for mark in marks:
        size = 13 if mark.marker == "*" else 7
        axes.plot(*mark.point, color=mark.colour, marker=mark.marker, markersize=size, linestyle="none", label=mark.label)
    _label(axes, names)
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _png(figure)


def budgets(title: str, names: tuple[str, str], history: Sequence[Sequence[Point]], volumes: Sequence[float]) -> bytes:
    """Draw the front after 10, 20, 40, ... and all trials, and how the hypervolume grew.

    Args:
        title: The figure's title.
        names: Names of the two objectives.
        history: `history[n]` holds the complete trials' points after n trials.
        volumes: The hypervolume after each number of trials, as long as `history`.

    Returns:
        The figure as PNG.
    """
    from matplotlib import colormaps

    trials = len(history) - 1
    sizes = [FIRST_BUDGET * 2**k for k in range(trials.bit_length()) if FIRST_BUDGET * 2**k < trials] + [trials]
    figure = _figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    colours = colormaps["viridis_r"]
    for n, size in enumerate(sizes):
        best = [history[size][k] for k in front_of(history[size])]
        colour = colours((n + 1) / len(sizes))
        if best:
            left.plot(*zip(*best, strict=True), "o-", color=colour, markersize=4, drawstyle="steps-post", label=f"{size} trials")
        right.plot(size, volumes[size], "o", color=colour)
    right.plot(range(len(volumes)), volumes, color="#999999", linewidth=1, zorder=0, drawstyle="steps-post")
    _label(left, names)
    right.set_xlabel("trials")
    right.set_ylabel("hypervolume (higher is better)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if left.lines:
        left.legend(loc="lower right", frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return _png(figure)


def of_arguments(study: optuna.Study, names: tuple[str, str]) -> dict[str, Callable[[], bytes]]:
    """Optuna's plots of a study: importances, slices and contour.

    Args:
        study: The study to plot.
        names: Names of the two objectives.

    Returns:
        By name of the figure, a function that draws it as PNG. Where Optuna can't draw it (too few values, say), the PNG has the
        reason instead.
    """
    import optuna.visualization.matplotlib as plots

    def value(which: int, trial: FrozenTrial) -> float:
        return float(trial.values[which])

    def contour() -> Any:
        importances = optuna.importance.get_param_importances(study, target=partial(value, 0))
        axes = plots.plot_contour(study, list(importances)[:3], target=partial(value, 0), target_name=names[0])
        axes.flat[0].figure.set_size_inches(10, 8) if hasattr(axes, "flat") else None
        return axes

    slices = {
        f"slice.{key}": partial(plots.plot_slice, study, target=partial(value, n), target_name=names[n])
        for n, key in enumerate(("unlearning", "utility"))
    }
    drawn: dict[str, Callable[[], Any]] = {"importances": partial(plots.plot_param_importances, study), **slices, "contour": contour}
    return {key: partial(_optuna_png, draw) for key, draw in drawn.items()}


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Any, names: tuple[str, str]) -> None:
    axes.set_xlabel(f"{names[0]} (lower is better)")
    axes.set_ylabel(f"{names[1]} (higher is better)")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _optuna_png(draw: Callable[[], Any]) -> bytes:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    buffer = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context():  # Optuna's plots set a style for the whole process
        warnings.simplefilter("ignore")
        try:
            figure = np.ravel(draw())[0].figure
        except Exception as error:  # a figure must never end a search
            figure = plt.figure()
            figure.text(0, 1, f"can't be drawn: {redact.summarize_error(error)}", va="top")
        figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
