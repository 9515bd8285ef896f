"""Pairs of objectives: what dominates what, fronts, the area they cover, when a trial is hopeless, and the front drawn."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]  # unlearning, less is better; utility, more is better
Place = tuple[str, int, float, float]  # phase, epoch in it, and the point there


def dominates(one: Point, other: Point, margin: float = 0.0) -> bool:
    """Not worse in either and better in one; with a `margin`, in utility by at least that."""
    return one != other and one[0] <= other[0] and one[1] >= other[1] + margin


def front(points: Sequence[Point]) -> list[int]:
    """Which points no other dominates, the least `unlearning` first."""
    kept = [n for n, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    return sorted(kept, key=lambda n: points[n])


def hypervolume(points: Iterable[Point], worst: Point) -> float:
    """Area that the points dominate, up to `worst`: (0.5 or the original's distance; utility 0)."""
    area, reached = 0.0, worst[1]
    for unlearning, utility in sorted(points):
        if unlearning < worst[0] and utility > reached:
            area += (worst[0] - unlearning) * (utility - reached)
            reached = utility
    return area


@dataclass(frozen=True)
class Stop:
    """When a trial is stopped before its end. Conservative: these methods lose utility on the way and get it back at the end.

    Of 60 random trials of hybrid_4 on digits none was pruned, to see. One fell 30 points behind the original and ended 3 behind it,
    on the front, so utility alone is no reason before the last phase, except at `chance` (an eighth of the way from guessing to the
    original) twice in a row: those 3 ended 35 or more behind. In the last phase, 20 points of `margin` stop 8 that ended 14 or more
    behind, none on the front; 10 points stop one that ended on it."""

    original: float
    margin: float
    chance: float
    least: int = 5

    def reason(self, curve: Sequence[Place], resting: float | None, others: Sequence[Sequence[Place]]) -> str:
        """Why the trial with this curve is hopeless, or "". `resting`: the share of its last phase that is behind it, if nothing
        climbs in that phase; `others`: the curves of complete trials."""
        phase, epoch, *point = curve[-1]
        if len(curve) > 2 and max(curve[-1][3], curve[-2][3]) <= self.chance:
            return f"utility {point[1]:.1f}, and before: about as good as guessing"
        if resting is not None and resting >= 0.5 and point[1] < self.original - self.margin:
            return f"utility {point[1]:.1f} with half of the last phase behind it: over {self.margin:g} points below the original"
        same = [(other[2], other[3]) for each in others for other in each if (other[0], other[1]) == (phase, epoch)]
        ahead = sum(dominates(other, (point[0], point[1]), self.margin) for other in same)
        if len(same) >= self.least and 2 * ahead >= len(same):
            return f"dominated at {phase} {epoch} by {ahead} of {len(same)} trials, in utility by {self.margin:g} points"
        return ""


def nested(title: str, names: tuple[str, str], grown: Sequence[Sequence[Point]], areas: Sequence[float], first: int = 10) -> bytes:
    """PNG: the front behind 10, 20, 40, ... and all trials; and how the area that it dominates grew. `grown[n]`: points behind n."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trials = len(grown) - 1
    budgets = [first * 2**k for k in range(trials.bit_length()) if first * 2**k < trials] + [trials]
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colours = colormaps["viridis_r"]
    for n, budget in enumerate(budgets):
        best = [grown[budget][k] for k in front(grown[budget])]
        colour = colours((n + 1) / len(budgets))
        if best:
            left.plot(*zip(*best, strict=True), "o-", color=colour, markersize=4, drawstyle="steps-post", label=f"{budget} trials")
        right.plot(budget, areas[budget], "o", color=colour)
    right.plot(range(len(areas)), areas, color="#999999", linewidth=1, zorder=0, drawstyle="steps-post")
    left.set_xlabel(f"{names[0]} (less is better)")
    left.set_ylabel(f"{names[1]} (more is better)")
    right.set_xlabel("trials")
    right.set_ylabel("hypervolume (more is better)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if left.lines:
        left.legend(loc="lower right", frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()


def picture(
    title: str, names: tuple[str, str], points: Sequence[Point], named: Iterable[tuple[str, Point, str, str]], least: float | None
) -> bytes:
    """PNG: the points, their front joined, some by name (label, point, colour, marker), and the least utility of a winner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    best = [points[n] for n in front(points)]
    axes.plot(*zip(*points, strict=True), "o", color="#999999", markersize=5, label=f"{len(points)} complete trials")
    axes.plot(*zip(*best, strict=True), "o-", color="#0072B2", drawstyle="steps-post", label=f"{len(best)} of them: the front")
    for label, point, colour, mark in named:
        axes.plot(*point, color=colour, marker=mark, markersize=13 if mark == "*" else 7, linestyle="none", label=label)
    if least is not None:
        axes.axhline(least, color="#999999", linestyle=":", linewidth=1, label="a winner's least")
    axes.set_xlabel(f"{names[0]} (less is better)")
    axes.set_ylabel(f"{names[1]} (more is better)")
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    return drawn.getvalue()
