"""Figures of the leaderboard: the gap to the retrained model against cost, and forget accuracy against test accuracy."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from lethe._util.files import atomic_write
from lethe.plots.style import GREY

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKS = "os^DvP"  # not as many as colours, so that 42 methods differ in one of the two
MOST_NAMED = 12  # methods with a colour of their own, those that come nearest; more can't be told apart
COSTS = (1, 3, 5, 10, 20, 30, 50, 100)  # marks of the axes
GAPS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)


def write(rows: Sequence[Mapping[str, Any]], retrained: Mapping[str, float], nothing: float | None, folder: Path) -> None:
    """Write gap.png and forget_against_test.png next to the tables.

    Args:
        rows: method, share, share_of_retrain, forget, test, avg_gap.svc and floor.
        retrained: accuracies of the retrained model in percent, by split; empty if there is none.
        nothing: avg_gap.svc of the original, what doing nothing costs; None: not known.
        folder: where the tables are stored.
    """
    for name, content in (("gap", gap_against_cost(rows, nothing)), ("forget_against_test", forget_against_test(rows, retrained))):
        with atomic_write(folder / f"{name}.png") as path:
            path.write_bytes(content)


def gap_against_cost(rows: Sequence[Mapping[str, Any]], nothing: float | None = None) -> bytes:
    """Draw avg_gap.svc against the share of retraining, a line for each method; the floor is a band.

    Points are means over seeds, and bars go from the least to the largest of them. Beyond the MOST_NAMED nearest methods lines are grey.

    Args:
        rows: as for `write`; rows without a gap are left out.
        nothing: as for `write`; a dashed line.

    Returns:
        A PNG image.
    """
    points: dict[str, dict[float, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["avg_gap.svc"] is not None:
            points[row["method"]][row["share"]].append(row)
    figure, axes = _figure()
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    if floors:
        axes.axhspan(0, max(floors), color=GREY, alpha=0.25, label="floor: a retrained model")
    if nothing is not None:
        axes.axhline(nothing, color=GREY, linestyle="--", label="doing nothing")
    looks = _looks(points)
    for method, by_share in points.items():
        costs = [100 * _mean([row["share_of_retrain"] or row["share"] for row in by_share[share]]) for share in sorted(by_share)]
        costs = [cost or COSTS[0] for cost in costs]  # weights of a file cost nothing, which a logarithmic axis can't show
        seeds = [[row["avg_gap.svc"] for row in by_share[share]] for share in sorted(by_share)]
        axes.plot(costs, [_mean(gaps) for gaps in seeds], **looks[method])
        faint = {key: looks[method].get(key) for key in ("color", "alpha")}
        axes.vlines(costs, [min(gaps) for gaps in seeds], [max(gaps) for gaps in seeds], linewidth=1, **faint)
    axes.set_xlabel("cost (percent of retraining, by work)")
    axes.set_ylabel("avg_gap.svc (points)")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1, linscale=0.5)  # from the floor to a ruined model in one figure
    axes.set_xticks(COSTS, map(str, COSTS))
    axes.set_yticks(GAPS, map(str, GAPS))
    axes.minorticks_off()
    axes.set_xlim(min(2, *axes.get_xlim()), max(100, *axes.get_xlim()))
    axes.set_ylim(0, max(100, *axes.get_ylim()))
    return _png(figure, axes)


def forget_against_test(rows: Sequence[Mapping[str, Any]], retrained: Mapping[str, float]) -> bytes:
    """Draw forget accuracy against test accuracy, a point for each method and share, means over seeds; larger for larger shares. Colours
    are those of `gap_against_cost`.

    Args:
        rows: as for `write`.
        retrained: accuracies of the retrained model, drawn as a cross; empty: no cross.

    Returns:
        A PNG image.
    """
    points: dict[str, dict[float, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        points[row["method"]][row["share"]].append(row)
    figure, axes = _figure()
    if retrained:
        axes.axvline(retrained["test"], color=GREY, alpha=0.5)
        axes.axhline(retrained["forget"], color=GREY, alpha=0.5, label="the retrained model")
    looks = _looks(points)
    for method, by_share in points.items():
        x, y = ([_mean([row[name] for row in by_share[share]]) for share in sorted(by_share)] for name in ("test", "forget"))
        look = {key: value for key, value in looks[method].items() if key != "linewidth"}
        axes.scatter(x, y, [20 + 300 * share for share in sorted(by_share)], **look)
    axes.set_xlabel("test accuracy (percent)")
    axes.set_ylabel("forget accuracy (percent)")
    return _png(figure, axes)


def _figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _looks(points: Mapping[str, Mapping[float, Sequence[Mapping[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """Colour, marker and label of each method: its own for those with the least gap at any share, grey for the others."""

    def least(method: str) -> float:
        by_share = points[method].values()
        return min(
            (_mean(gaps) for rows in by_share if (gaps := [gap for row in rows if (gap := row["avg_gap.svc"]) is not None])), default=inf
        )

    named = sorted(points, key=least)[:MOST_NAMED]
    looks = {
        method: {"color": PALETTE[number % len(PALETTE)], "marker": MARKS[number % len(MARKS)], "label": method}
        for number, method in enumerate(named)
    }
    labels = iter(("other methods",))
    grey = {"color": GREY, "marker": ".", "alpha": 0.4, "linewidth": 0.8}
    return looks | {method: {**grey, "label": next(labels, None)} for method in points if method not in looks}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _png(figure: Any, axes: Any) -> bytes:
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, ncols=2, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
