"""Pareto arithmetic on pairs of objectives: dominance, the front, and the hypervolume it covers."""

from collections.abc import Iterable, Sequence

Point = tuple[float, float]  # (unlearning, lower is better; utility, higher is better)
CurvePoint = tuple[str, int, float, float]  # (phase, epoch within it, unlearning, utility)


def dominates(one: Point, other: Point, margin: float = 0.0) -> bool:
    """Test whether `one` is at least as good in both objectives and better in one.

    Args:
        one: The point that may dominate.
        other: The point that may be dominated.
        margin: Points of utility by which `one` must be ahead.

    Returns:
        Whether it does; no point dominates itself.
    """
    return one != other and one[0] <= other[0] and one[1] >= other[1] + margin


def front(points: Sequence[Point]) -> list[int]:
    """Find the indices of the points that no other point dominates, lowest `unlearning` first."""
    kept = [n for n, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    return sorted(kept, key=lambda n: points[n])


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """Compute the area that the points dominate, bounded by the reference point.

    Args:
        points: Pairs (unlearning, utility).
        reference: The worst corner: 0.5 or the original's distance, and a utility of 0.

    Returns:
        The area, in units of unlearning times utility; 0.0 if no point is better than the reference in both.
    """
    area, reached = 0.0, reference[1]
    for unlearning, utility in sorted(points):
        if unlearning < reference[0] and utility > reached:
            area += (reference[0] - unlearning) * (utility - reached)
            reached = utility
    return area
