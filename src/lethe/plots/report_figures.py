"""Figures of the report: each draws a record, the rows of a CSV file that is stored next to it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from lethe.plots.label_placement import Point, place_labels
from lethe.plots.style import GREY, INK, darken

Record = Sequence[Mapping[str, Any]]
DPI = 120
FAMILY = {"model": ("#0072B2", "o"), "hybrid": ("#D55E00", "s"), "other": ("#009E73", "^"), "reference": (INK, "o")}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^DvPX"
CHAIN = "as run"


def scatter(record: Record, x: str, y: str, title: str, note: str, *, shared: bool = True, corners: tuple[str, str] | None = None) -> bytes:
    """Draw a panel for each `panel` of the record, with a labelled point for each row.

    The retrained model is a dashed cross-hair with a band from `<column>.low` to `<column>.high`; the original is a hollow ring.

    Args:
        record: rows with panel, method, label, family and the columns `x`, `y` (percent), and the band's ends `<x>.low` to `<y>.high`.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        title: title of the figure.
        note: text below the panels.
        shared: whether all panels have the same axes.
        corners: text above and below the diagonal x = y; None draws no diagonal.

    Returns:
        A PNG image.
    """
    panels = _panels(record)
    figure, renderer = _figure(4.5 * len(panels) + 0.5, 5.2, title, note)
    grid = figure.subplots(1, len(panels), sharex=shared, sharey=shared, squeeze=False)[0]
    for axes, (panel, rows) in zip(grid, panels.items(), strict=True):
        for row in rows:
            if row["method"] == "retrained":
                _level(axes, row, x, vertical=True)
                _level(axes, row, y)
            elif row[x] is not None and row[y] is not None:
                _dot(axes, row, row[x], row[y])
        axes.margins(0.12)
        axes.set_title(panel, loc="left", fontsize=13, pad=24)
        axes.set_xlabel(f"{x} accuracy (percent)", fontsize=12)
        axes.grid(alpha=0.25)
    grid[0].set_ylabel(f"{y} accuracy (percent)", fontsize=12)
    for axes, rows in zip(grid, panels.values(), strict=True):
        _percent(axes.xaxis, axes.get_xlim(), axes.set_xlim)
        _percent(axes.yaxis, axes.get_ylim(), axes.set_ylim)
        for row in rows:
            if row["method"] == "retrained":
                _name(axes, row[x], vertical=True)
                _name(axes, row[y])
        if corners:
            axes.axline((100, 100), slope=1, color=GREY, linestyle=":", linewidth=1.3, zorder=1)
            for text, at, align in ((corners[0], (0.03, 0.97), ("left", "top")), (corners[1], (0.97, 0.03), ("right", "bottom"))):
                axes.text(*at, text, transform=axes.transAxes, ha=align[0], va=align[1], fontsize=11, style="italic", color=GREY, zorder=0)
    _settle(figure)
    for axes, rows in zip(grid, panels.values(), strict=True):
        points = [row for row in rows if row["method"] != "retrained" and None not in (row[x], row[y])]
        place_labels(axes, [(row[x], row[y], row["label"], darken(FAMILY[row["family"]][0])) for row in points], renderer, near=11)
    return _png(figure)


def lines(record: Record, y: str, title: str, note: str, y_label: str) -> bytes:
    """Draw a panel for each `panel` of the record, with a labelled line for each method.

    The panel `as run` (the chain) is one long line below the others. The retrained model, a row without an epoch, is a dashed line
    with a band from `<y>.low` to `<y>.high`; the original is a hollow ring at epoch 0.

    Args:
        record: rows with panel, method, label, family, epoch and the columns `y`, `<y>.low` and `<y>.high`.
        y: column of the vertical axis.
        title: title of the figure.
        note: text below the panels.
        y_label: label of the vertical axis.

    Returns:
        A PNG image.
    """
    from matplotlib.ticker import MaxNLocator

    panels = _panels(record)
    upper = [panel for panel in panels if panel != CHAIN]
    mosaic = [row for row in (upper, [CHAIN] * max(1, len(upper)) if CHAIN in panels else []) if row]
    figure, renderer = _figure(12.5, 1.2 + 4.2 * len(mosaic), title, note)
    grid = figure.subplot_mosaic(mosaic)
    points: dict[str, list[Point]] = {panel: [] for panel in panels}
    for panel, rows in panels.items():
        axes, chain, drawn, target = grid[panel], panel == CHAIN, 0, None
        if panel in upper[1:]:
            axes.sharey(grid[upper[0]])
            axes.tick_params(labelleft=False)
        for method, path in _panels(rows, "method").items():
            if method == "retrained":
                _level(axes, path[0], y)
                target = path[0][y]
                continue
            epochs, values = [row["epoch"] for row in path], [row[y] for row in path]
            if method == "original":
                _dot(axes, path[0], epochs[0], values[0])
                points[panel].append((epochs[0], values[0], path[0]["label"], INK))
                continue
            colour, marker = FAMILY[path[0]["family"]] if chain else (PALETTE[drawn % 7], MARKS[drawn % 7])
            gaps = max(2, len(path) // 7)
            # lines that coincide show each other's markers; each has one at its end
            every = [*([] if chain else range(drawn % gaps, len(path) - 1, gaps)), len(path) - 1]
            axes.plot(epochs, values, color=colour, marker=marker, markevery=every, markersize=7, linewidth=1.8)
            if chain:
                axes.axvline(epochs[-1], color=GREY, linewidth=0.7, zorder=1)
                where = ((epochs[0] + epochs[-1]) / 2, 1.01)
                axes.annotate(path[0]["label"], where, xycoords=("data", "axes fraction"), color=darken(colour), fontsize=12, ha="center")
            else:
                points[panel].append((epochs[-1], values[-1], path[0]["label"], darken(colour)))
            drawn += 1
        axes.margins(x=0.02 if chain else 0.1, y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(panel, loc="left", fontsize=13, pad=22 if chain else 6)
        axes.set_xlabel("epoch of the whole chain" if chain else "epoch (0: before unlearning)", fontsize=12)
        axes.grid(alpha=0.25)
        if panel in (CHAIN, *upper[-1:]):
            _name(axes, target)
    for row in mosaic:
        grid[row[0]].set_ylabel(y_label, fontsize=12)
    _settle(figure)
    for panel, placed in points.items():
        place_labels(grid[panel], placed, renderer, near=0)
    return _png(figure)


def _panels(record: Record, by: str = "panel") -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in record:
        groups.setdefault(row[by], []).append(row)
    return groups


def _figure(width: float, height: float, title: str, note: str) -> tuple[Any, Any]:
    """A figure with its title above and the note below, and the renderer that measures text in it."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    wrapped = textwrap.wrap(note, int(width * 11.5))
    low = (0.21 * len(wrapped) + 0.1) / height
    figure.get_layout_engine().set(rect=(0, low, 1, 1 - low))  # type: ignore[union-attr,call-arg]
    figure.suptitle(title, x=0.008, ha="left", fontsize=15, weight="bold")
    figure.text(0.008, 0.1 / height, "\n".join(wrapped), fontsize=11, color=INK, va="bottom")
    return figure, canvas.get_renderer()  # type: ignore[no-untyped-call]


def _settle(figure: Any) -> None:
    """Compute the layout and freeze it: labels are then placed by pixels."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _level(axes: Any, row: Mapping[str, Any], column: str, vertical: bool = False) -> None:
    """Draw the retrained model's value as a dashed line with its band."""
    if (value := row[column]) is not None:
        line, span = (axes.axvline, axes.axvspan) if vertical else (axes.axhline, axes.axhspan)
        line(value, color=GREY, linestyle="--", linewidth=1.6, zorder=1)
        span(row[f"{column}.low"], row[f"{column}.high"], color=GREY, alpha=0.13, linewidth=0, zorder=0)


def _name(axes: Any, value: float | None, vertical: bool = False) -> None:
    """Label the retrained model's line outside the axes, where no point can be."""
    if value is not None:
        upper = value > sum(axes.get_ylim()) / 2
        turned: dict[str, Any] = {"rotation": 270, "ha": "left", "va": "top" if upper else "bottom"}
        style, xy, offset, coordinates = turned, (1.0, value), (5, 4 if upper else -4), ("axes fraction", "data")
        if vertical:
            style, xy, offset, coordinates = {"ha": "center", "va": "bottom"}, (value, 1.0), (0, 4), ("data", "axes fraction")
        text = f"retrained {value:.1f}"
        axes.annotate(text, xy, xytext=offset, xycoords=coordinates, textcoords="offset points", color=GREY, fontsize=11, **style)


def _dot(axes: Any, row: Mapping[str, Any], x: float, y: float) -> None:
    """Draw a point; the original is a ring, wide enough to show around another point."""
    colour, marker = FAMILY[row["family"]]
    ring = {"markersize": 14, "markerfacecolor": "none", "zorder": 4} if row["family"] == "reference" else {"markersize": 9, "zorder": 3}
    axes.plot(x, y, marker, color=colour, markeredgewidth=1.5, **ring)


def _percent(axis: Any, limits: tuple[float, float], set_limits: Any) -> None:
    """Show no tick beyond 100 percent, and little room."""
    low, high = limits
    high = min(high, 100 + 0.06 * (100 - low)) if high > 100 else high
    set_limits(low, high)
    axis.set_ticks([tick for tick in axis.get_ticklocs() if low <= tick <= min(high, 100)])


def _png(figure: Any) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})  # the same numbers give the same bytes
    return image.getvalue()
