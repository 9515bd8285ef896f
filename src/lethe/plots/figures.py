"""Figures: a record (the epoch table), then a drawing. Matplotlib without a display; imported when something is drawn."""

import importlib
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers; each with a marker, for prints without colour
STYLE = {"retain": ("#0072B2", "o"), "forget": ("#D55E00", "s"), "validation": ("#009E73", "^")}
DPI = 120


def curves(history: Sequence[Mapping[str, Any]], name: str, reference: Mapping[str, float] | None = None) -> bytes:
    """PNG: accuracy by epoch of retain, forget and validation; the retrained model's as dashed lines of the same colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    except AttributeError:  # matplotlib asks for IPython's version while another thread, with mlflow, is still importing it
        importlib.import_module("IPython")  # waits for that
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for split, (colour, marker) in STYLE.items():
        points = [(row["step"], row[f"{split}.accuracy"]) for row in history if row.get(f"{split}.accuracy") is not None]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, marker=marker, markersize=4, label=f"{split}, now {values[-1]:.1f}")
        if reference and split in reference:
            axes.axhline(reference[split], color=colour, linestyle="--", linewidth=1, label=f"{split}, retrained {reference[split]:.1f}")
    last = ""
    for row in history:
        if row["phase"] not in ("start", last):
            if last:
                axes.axvline(row["step"] - 0.5, color="#999999", linewidth=0.8)
            axes.annotate(row["phase"], (row["step"] - 0.5, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color="#555555")
            last = row["phase"]
    axes.set_xlim(-0.5, max(1, *(row["step"] for row in history)) + 0.5)  # epochs that are not measured too: labels stand inside
    axes.set_xlabel("epoch (0: before unlearning)")
    axes.set_ylabel("accuracy (percent)")
    axes.set_title(name, loc="left", pad=18)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()


# --- the report's figures: a record (the rows of a CSV file), then a drawing ------------------------------------------

Record = Sequence[Mapping[str, Any]]
Point = tuple[float, float, str, str]  # x, y, label, colour
GREY, INK = "#767676", "#222222"
FAMILY = {"model": ("#0072B2", "o"), "hybrid": ("#D55E00", "s"), "other": ("#009E73", "^"), "reference": (INK, "o")}
IN_TURN = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^DvPX"
CHAIN = "as run"
RADII = (10, 20, 34, 52, 76)  # points; the nearest that is free
SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))


def scatter(record: Record, x: str, y: str, title: str, note: str, *, shared: bool = True, corners: tuple[str, str] | None = None) -> bytes:
    """PNG: a panel for each `panel` of the record, a labelled point for each row; x and y name columns of percent.

    `retrained` is a grey cross-hair with a band of plus and minus `<column>.chance`, `original` is hollow. `corners` draws the
    diagonal, and says what lies above and below it. `shared`: all panels have the same axes."""
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
        there = [row for row in rows if row["method"] != "retrained" and None not in (row[x], row[y])]
        _place(axes, [(row[x], row[y], row["label"], _dark(FAMILY[row["family"]][0])) for row in there], renderer, near=11)
    return _png(figure)


def lines(record: Record, y: str, title: str, note: str, says: str) -> bytes:
    """PNG: a panel for each `panel`, a line labelled at its end for each method; the panel `as run` is one long line below the others.

    `retrained`, a row without an epoch, is dashed, with a band of `<y>.chance`; `original` is hollow, at epoch 0."""
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
            colour, marker = FAMILY[path[0]["family"]] if chain else (IN_TURN[drawn % 7], MARKS[drawn % 7])
            gaps = max(2, len(path) // 7)
            # lines that coincide show each other's markers; each has one at its end
            every = [*([] if chain else range(drawn % gaps, len(path) - 1, gaps)), len(path) - 1]
            axes.plot(epochs, values, color=colour, marker=marker, markevery=every, markersize=7, linewidth=1.8)
            if chain:
                axes.axvline(epochs[-1], color=GREY, linewidth=0.7, zorder=1)
                where = ((epochs[0] + epochs[-1]) / 2, 1.01)
                axes.annotate(path[0]["label"], where, xycoords=("data", "axes fraction"), color=_dark(colour), fontsize=12, ha="center")
            else:
                points[panel].append((epochs[-1], values[-1], path[0]["label"], _dark(colour)))
            drawn += 1
        axes.margins(x=0.02 if chain else 0.1, y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(panel, loc="left", fontsize=13, pad=22 if chain else 6)
        axes.set_xlabel("epoch of the whole chain" if chain else "epoch (0: before unlearning)", fontsize=12)
        axes.grid(alpha=0.25)
        if panel in (CHAIN, *upper[-1:]):
            _name(axes, target)
    for row in mosaic:
        grid[row[0]].set_ylabel(says, fontsize=12)
    _settle(figure)
    for panel, there in points.items():
        _place(grid[panel], there, renderer, near=0)
    return _png(figure)


def _panels(record: Record, by: str = "panel") -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in record:
        groups.setdefault(row[by], []).append(row)
    return groups


def _figure(width: float, height: float, title: str, note: str) -> tuple[Any, Any]:
    """A figure with its title above and the note below, and what measures text in it."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    said = textwrap.wrap(note, int(width * 11.5))
    low = (0.21 * len(said) + 0.1) / height
    figure.get_layout_engine().set(rect=(0, low, 1, 1 - low))  # type: ignore[union-attr,call-arg]
    figure.suptitle(title, x=0.008, ha="left", fontsize=15, weight="bold")
    figure.text(0.008, 0.1 / height, "\n".join(said), fontsize=11, color=INK, va="bottom")
    return figure, canvas.get_renderer()  # type: ignore[no-untyped-call]


def _settle(figure: Any) -> None:
    """The layout, once and for all: what is placed by pixels stays where it is."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _level(axes: Any, row: Mapping[str, Any], column: str, vertical: bool = False) -> None:
    """The retrained model's value as a dashed line with its band."""
    if (value := row[column]) is not None:
        line, span = (axes.axvline, axes.axvspan) if vertical else (axes.axhline, axes.axhspan)
        spread = row[f"{column}.chance"]
        line(value, color=GREY, linestyle="--", linewidth=1.6, zorder=1)
        span(value - spread, value + spread, color=GREY, alpha=0.13, linewidth=0, zorder=0)


def _name(axes: Any, value: float | None, vertical: bool = False) -> None:
    """Its name, outside the axes, where no point can be."""
    if value is not None:
        upper = value > sum(axes.get_ylim()) / 2
        turned: dict[str, Any] = {"rotation": 270, "ha": "left", "va": "top" if upper else "bottom"}
        said, xy, offset, coordinates = turned, (1.0, value), (5, 4 if upper else -4), ("axes fraction", "data")
        if vertical:
            said, xy, offset, coordinates = {"ha": "center", "va": "bottom"}, (value, 1.0), (0, 4), ("data", "axes fraction")
        text = f"retrained {value:.1f}"
        axes.annotate(text, xy, xytext=offset, xycoords=coordinates, textcoords="offset points", color=GREY, fontsize=11, **said)


def _dot(axes: Any, row: Mapping[str, Any], x: float, y: float) -> None:
    """The original is a ring, wide enough to show around a point of another."""
    colour, marker = FAMILY[row["family"]]
    ring = {"markersize": 14, "markerfacecolor": "none", "zorder": 4} if row["family"] == "reference" else {"markersize": 9, "zorder": 3}
    axes.plot(x, y, marker, color=colour, markeredgewidth=1.5, **ring)


def _percent(axis: Any, limits: tuple[float, float], set_limits: Any) -> None:
    """No tick beyond 100, and little room."""
    low, high = limits
    high = min(high, 100 + 0.06 * (100 - low)) if high > 100 else high
    set_limits(low, high)
    axis.set_ticks([tick for tick in axis.get_ticklocs() if low <= tick <= min(high, 100)])


def _dark(colour: str) -> str:
    """For text: thin strokes need more contrast than a marker."""
    return "#" + "".join(f"{int(colour[i : i + 2], 16) * 3 // 4:02x}" for i in (1, 3, 5))


def _place(axes: Any, points: Sequence[Point], renderer: Any, near: float) -> None:
    """A label at each point, on no other label, point or line; points within `near` pixels share one."""
    import numpy as np
    from matplotlib.patheffects import withStroke

    pixels = [axes.transData.transform(point[:2]) for point in points]
    shared: dict[int, list[int]] = {}
    for i, (px, py) in enumerate(pixels):
        home = next((j for j in shared if abs(px - pixels[j][0]) <= near and abs(py - pixels[j][1]) <= near), i)
        shared.setdefault(home, []).append(i)
    taken = [(px - 9, py - 9, px + 9, py + 9) for px, py in pixels]
    taken += [text.get_window_extent(renderer).extents for text in axes.texts]
    for line in (line for line in axes.lines if len(line.get_xdata()) > 2):
        path = axes.transData.transform(line.get_xydata())
        for (x0, y0), (x1, y1) in pairwise(path):
            steps = np.linspace(0, 1, 2 + int(np.hypot(x1 - x0, y1 - y0) / 8))
            taken += [(x - 4, y - 4, x + 4, y + 4) for x, y in zip(x0 + steps * (x1 - x0), y0 + steps * (y1 - y0), strict=True)]
    for i, members in sorted(shared.items(), key=lambda item: len(item[1])):
        x, y, _, colour = points[i]
        colours = {points[j][3] for j in members}
        text = axes.annotate(
            _joined([points[j][2] for j in members]), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=12, zorder=5
        )
        text.set_color(colour if len(colours) == 1 else INK)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        obstacles = np.array(taken)
        others = [pixel for j, pixel in enumerate(pixels) if j not in members]
        spot = (RADII[0], 0)
        for radius in RADII:
            free = [(radius * dx, radius * dy) for dx, dy in SIDES if _free(text, (radius * dx, radius * dy), axes, renderer, obstacles)]
            if free:
                spot = max(free, key=lambda spot: min([36.0, *(np.hypot(*(pixels[i] + spot - other)) for other in others)]) // 12)
                break
        _free(text, spot, axes, renderer, obstacles)
        if max(map(abs, spot)) > RADII[0]:
            arrow = {"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.9, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", (x, y), xytext=spot, textcoords="offset points", arrowprops=arrow, zorder=2)
        taken.append(tuple(text.get_window_extent(renderer).padded(4).extents))


def _joined(labels: Sequence[str]) -> str:
    """M1, M2, M3, H3 as M1-3, H3."""
    parts: list[list[str]] = []
    for label in labels:
        last = parts[-1][-1] if parts else ""
        follows = label[:-1] == last[:-1] and label[-1:].isdigit() and last[-1:].isdigit() and int(label[-1]) == int(last[-1]) + 1
        if follows:
            parts[-1].append(label)
        else:
            parts.append([label])
    return ", ".join(f"{part[0]}-{part[-1][-1]}" if len(part) > 2 else ", ".join(part) for part in parts)


def _free(text: Any, spot: tuple[float, float], axes: Any, renderer: Any, obstacles: Any) -> bool:
    """Puts the text there; whether it lies within the axes and on no obstacle (left, bottom, right, top; pixels)."""
    dx, dy = spot
    text.set_position(spot)
    text.set_horizontalalignment("left" if dx > 0 else "right" if dx < 0 else "center")
    text.set_verticalalignment("bottom" if dy > 0 else "top" if dy < 0 else "center")
    left, low, right, high = text.get_window_extent(renderer).extents
    inside = axes.get_window_extent(renderer).extents
    if left < inside[0] or low < inside[1] or right > inside[2] or high > inside[3]:
        return False
    return not ((obstacles[:, 0] < right) & (obstacles[:, 2] > left) & (obstacles[:, 1] < high) & (obstacles[:, 3] > low)).any()


def _png(figure: Any) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})  # the same numbers, the same bytes
    return drawn.getvalue()


# --- the card's figure ------------------------------------------------------------------------------------------------


def histograms(series: Sequence[tuple[str, str, str, Sequence[float]]], log10_edges: Sequence[float]) -> str:
    """SVG, to stand in a page: steps over common bins, in percent of the images, of (words, colour, line); the first is filled."""
    import re

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 2.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    edges = [10**edge for edge in log10_edges]
    for number, (words, colour, line, percent) in enumerate(series):
        if number == 0:
            axes.stairs(percent, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
        axes.stairs(percent, edges, color=_dark(colour), linestyle=line, linewidth=1.8, label=words)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("loss (nats)")
    axes.set_ylabel("percent of images")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    drawn = io.StringIO()
    with rc_context({"svg.hashsalt": "card", "svg.fonttype": "none"}):  # the same numbers, the same bytes; text stays text
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)
