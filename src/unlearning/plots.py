"""Figures: a record (the epoch table), then a drawing. Matplotlib without a display; imported when something is drawn."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers; each with a marker, for prints without colour
STYLE = {"retain": ("#0072B2", "o"), "forget": ("#D55E00", "s"), "validation": ("#009E73", "^")}


def curves(history: Sequence[Mapping[str, Any]], name: str, reference: Mapping[str, float] | None = None) -> bytes:
    """PNG: accuracy by epoch of retain, forget and validation; the retrained model's as dashed lines of the same colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    axes.set_xlabel("epoch (0: before unlearning)")
    axes.set_ylabel("accuracy (percent)")
    axes.set_title(name, loc="left", pad=18)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()


# --- the report's figures: a record (rows of a CSV file), then a drawing ------------------------------------------------

Record = Sequence[Mapping[str, Any]]
GREY, INK = "#8a8a8a", "#222222"
FAMILY = {"model": ("#0072B2", "o"), "hybrid": ("#D55E00", "s"), "other": ("#009E73", "^")}
IN_TURN = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^DvPX"
SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1))


def scatter(
    record: Record, x: str, y: str, title: str, note: str, *, shared: bool = True, corners: tuple[str, str] | None = None
) -> bytes:
    """PNG: one panel for each `panel` of the record, a labelled point for each row; x and y name columns in percent.

    `retrained` is a grey cross-hair with the band of `<column>.chance`, `original` is hollow. `corners`: draw the diagonal, and
    what lies above and below it. `shared`: the panels have the same axes."""
    panels = _panels(record)
    figure, canvas, grid = _figure(len(panels), 1, title, note, sharex=shared, sharey=shared)
    for axes, (panel, rows) in zip(grid[0], panels.items(), strict=True):
        _cross_hair(axes, rows, x, y)
        points = []
        for row in rows:
            if row["method"] == "retrained" or row[x] is None or row[y] is None:
                continue
            original = row["method"] == "original"
            colour, marker = (INK, "o") if original else FAMILY[row["family"]]
            axes.plot(row[x], row[y], marker, color=colour, markersize=9, markerfacecolor="none" if original else colour, zorder=3)
            points.append((row[x], row[y], row["label"], colour))
        axes.margins(0.12)
        axes.set_title(panel, loc="left", fontsize=13)
        axes.set_xlabel(f"{x} accuracy (percent)", fontsize=12)
        axes.points = points  # type: ignore[attr-defined]
    grid[0][0].set_ylabel(f"{y} accuracy (percent)", fontsize=12)
    for axes in grid[0]:
        if corners:
            _diagonal(axes, *corners)
    canvas.draw()
    for axes in grid[0]:
        _place(axes, axes.points)
    return _png(figure)
