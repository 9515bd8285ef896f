"""Training curves of one run, drawn while it runs. Matplotlib is imported when the first figure is drawn, and needs no display."""

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

# Okabe and Ito's palette, distinguishable for colour-blind readers; markers for prints without colour
STYLE = {"retain": ("#0072B2", "o"), "forget": ("#D55E00", "s"), "validation": ("#009E73", "^")}

PLACE = (0.09, 0.12, 0.585, 0.755)  # of the axes in the figure: left, bottom, width, height; the legend is to the right of them


def accuracy_curves(history: Sequence[Mapping[str, Any]], name: str, reference: Mapping[str, float] | None = None) -> bytes:
    """Draw the accuracy on retain, forget and validation over the epochs of a run.

    Args:
        history: rows of the epoch table: `step`, `phase`, `<split>.accuracy` in percent.
        name: title of the figure.
        reference: accuracies of the retrained model by split, drawn as dashed lines.

    Returns:
        A PNG image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        figure = Figure(figsize=(7.5, 4.5))
    except AttributeError:  # matplotlib reads IPython's version while another thread (mlflow's) is still importing it
        importlib.import_module("IPython")  # blocks until that import is done
        figure = Figure(figsize=(7.5, 4.5))
    FigureCanvasAgg(figure)
    axes = figure.add_axes(PLACE)  # by number: a layout that is computed draws everything twice
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
            axes.annotate(
                row["phase"], (row["step"] - 0.5, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color="#555555", parse_math=False
            )
            last = row["phase"]
    axes.set_xlim(-0.5, max(1, *(row["step"] for row in history)) + 0.5)  # epochs that are not measured too: labels stand inside
    axes.set_xlabel("epoch (0: before unlearning)")
    axes.set_ylabel("accuracy (percent)")
    axes.set_title(name, loc="left", pad=18, parse_math=False)  # a phase or run may be called anything, `$` included
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
