"""Placement of text labels next to points in a scatter or line plot."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lethe.plots.style import INK

Point = tuple[float, float, str, str]  # x, y, label, colour
RADII = (10, 20, 34, 52, 76)  # distances from the point to try, in points
SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))


def place_labels(axes: Any, points: Sequence[Point], renderer: Any, near: float) -> None:
    """Label every point, without covering other labels, points or lines.

    Args:
        axes: the axes that hold the points.
        points: x and y in data coordinates, label, colour.
        renderer: the renderer that measures text.
        near: points within this many pixels share one label.
    """
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
            join_labels([points[j][2] for j in members]), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=12, zorder=5
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


def join_labels(labels: Sequence[str]) -> str:
    """Join labels, with runs of consecutive numbers abbreviated.

    >>> join_labels(["M1", "M2", "M3", "H3"])
    'M1-3, H3'
    """
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
    """Move the text to `spot`; whether it is inside the axes and overlaps no obstacle (left, bottom, right, top; pixels)."""
    dx, dy = spot
    text.set_position(spot)
    text.set_horizontalalignment("left" if dx > 0 else "right" if dx < 0 else "center")
    text.set_verticalalignment("bottom" if dy > 0 else "top" if dy < 0 else "center")
    left, low, right, high = text.get_window_extent(renderer).extents
    inside = axes.get_window_extent(renderer).extents
    if left < inside[0] or low < inside[1] or right > inside[2] or high > inside[3]:
        return False
    return not ((obstacles[:, 0] < right) & (obstacles[:, 2] > left) & (obstacles[:, 1] < high) & (obstacles[:, 3] > low)).any()
