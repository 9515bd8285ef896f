"""Figures of the leaderboard: the gap to the retrained model against cost."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lethe._util.files import atomic_write
from lethe.plots.style import GREY

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^DvPX"


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write gap.png next to the table.

    Args:
        rows: method, share, share_of_retrain, avg_gap.svc and floor.
        folder: where the table is stored.
    """
    with atomic_write(folder / "gap.png") as path:
        path.write_bytes(gap_against_cost(rows))


def gap_against_cost(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw avg_gap.svc against the share of retraining, a line for each method, means over seeds; the floor is a band.

    Args:
        rows: as for `write`; rows without a gap are left out.

    Returns:
        A PNG image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["avg_gap.svc"] is not None:
            points[row["method"]][row["share_of_retrain"] or row["share"]].append(row["avg_gap.svc"])
    figure = Figure((8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    if floors:
        axes.axhspan(0, max(floors), color=GREY, alpha=0.25, label="floor: a retrained model")
    for number, (method, by_share) in enumerate(points.items()):
        shares = sorted(by_share)
        means = [sum(by_share[share]) / len(by_share[share]) for share in shares]
        percent = [100 * share for share in shares]
        colour, mark = PALETTE[number % len(PALETTE)], MARKS[number // len(PALETTE) % len(MARKS)]
        axes.plot(percent, means, color=colour, marker=mark, label=method)
    axes.set_xlabel("cost (percent of retraining, by work)")
    axes.set_ylabel("avg_gap.svc (points)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
