"""Geometry of a scatter plot that a page draws as inline SVG: places of points, ticks and labels, in units of its view box."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 340
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 42
FONT = 13  # size of labels
LETTER = 0.56 * FONT  # mean width of a letter
RADII = (9, 16, 26, 40, 58)  # distances of a label from its point to try
SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Place:
    """Where a point and its label are drawn.

    Attributes:
        x, y: the point.
        text_x, text_y: the label's anchor, on its baseline.
        anchor: start, middle or end.
    """

    x: float
    y: float
    text_x: float
    text_y: float
    anchor: str


@dataclass(frozen=True)
class Plane:
    """A plot's area in data coordinates (percent), and how they become units of the view box.

    Attributes:
        x_range, y_range: smallest and largest value.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> "Plane":
        """A plane that holds all points with a margin; none beyond 0 and 100 percent by more than a little."""
        return cls(*(_limits([point[axis] for point in points]) for axis in (0, 1)))

    def x(self, value: float) -> float:
        """Horizontal place of a value."""
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Vertical place of a value."""
        low, high = self.y_range
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def x_ticks(self) -> list[float]:
        """Round values on the horizontal axis."""
        return _ticks(*self.x_range)

    def y_ticks(self) -> list[float]:
        """Round values on the vertical axis."""
        return _ticks(*self.y_range)

    def diagonal(self) -> tuple[float, float] | None:
        """First and last value at which x = y is inside; None if nowhere."""
        low, high = (pick(ends) for pick, ends in ((max, (self.x_range[0], self.y_range[0])), (min, (self.x_range[1], self.y_range[1]))))
        return (low, high) if low < high else None

    def places(self, points: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[Place]:
        """Place points and labels; a label covers no point and no other label where there is room.

        Args:
            points: (x, y) of each point.
            labels: the label of each.

        Returns:
            Where each point and its label are drawn, in the order of `points`.
        """
        spots = [(self.x(x), self.y(y)) for x, y in points]
        taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
        placed = []
        for number, ((x, y), text) in enumerate(zip(spots, labels, strict=True)):
            tried = [_label(x, y, radius, side, text) for radius in RADII for side in SIDES]
            others = taken[:number] + taken[number + 1 :]
            free = [each for each in tried if _inside(each[1]) and not any(_overlap(each[1], box) for box in others)]
            place, box = (free or [each for each in tried if _inside(each[1])] or tried)[0]
            placed.append(place)
            taken.append(box)
        return placed


def _label(x: float, y: float, radius: float, side: tuple[int, int], text: str) -> tuple[Place, Box]:
    width, dx, dy = LETTER * len(text), radius * side[0], radius * side[1]
    anchor = {1: "start", 0: "middle", -1: "end"}[side[0]]
    left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    base = y + dy + {1: 0.75, 0: 0.35, -1: 0.0}[side[1]] * FONT
    return Place(x, y, round(x + dx, 1), round(base, 1), anchor), (left, base - 0.8 * FONT, left + width, base + 0.25 * FONT)


def _inside(box: Box) -> bool:
    return box[0] >= LEFT + 1 and box[1] >= TOP and box[2] <= WIDTH - 2 and box[3] <= HEIGHT - BOTTOM


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(0.12 * (high - low), 2.0)
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2, 5, 10, 20 within 0 to 100, at most six.

    >>> _ticks(81.0, 102.0), _ticks(93.0, 97.0)
    ([85.0, 90.0, 95.0, 100.0], [93.0, 94.0, 95.0, 96.0, 97.0])
    """
    low, high = max(low, 0.0), min(high, 100.0)
    for step in (1, 2, 5, 10, 20):
        first = -int(-low // step)
        ticks = [float(step * n) for n in range(first, int(high // step) + 1)]
        if len(ticks) <= 6:
            return ticks
    return []
