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
