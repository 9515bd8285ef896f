"""Batch orders: the sequence of optimizer steps in an epoch, from the number of batches of each stream.

A step is written as the letters of the streams whose batches it sums: "R" a retain batch, "F" a forget batch, "RF" both at once. Letters
come from the streams of a phase's terms; the first one leads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, Protocol

from lethe.recipes.values import Value, later

Lengths = Mapping[str, int]  # number of batches per pass by letter, in the order of the phase's terms


class Order(Protocol):
    """A batch order."""

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        """Yield the optimizer steps of an epoch.

        Args:
            lengths: number of batches per pass, by letter; the first letter leads.
            epoch: index within the phase, from 0.

        Yields:
            For each step the letters of the streams whose batches it sums.
        """
        ...


@dataclass(frozen=True)
class InTurn:
    """One pass over each stream, one stream after the other.

    >>> order_text(InTurn(), R=4, F=2)
    'R R R R F F'
    """

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        for letter, length in lengths.items():
            yield from [letter] * length


@dataclass(frozen=True)
class Alternate:
    """One batch of the leading stream, then `ratio` of the other, until one stream ends ("shortest") or both have ("longest").

    >>> order_text(Alternate(), R=4, F=2)
    'R F R F'
    >>> order_text(Alternate(2, "longest"), R=5, F=4)
    'R F F R F F R R R'
    """

    ratio: int = 1
    until: Literal["shortest", "longest"] = "shortest"

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        (lead, leads), (other, others) = lengths.items()
        while leads and others and (self.until == "longest" or others >= self.ratio):
            take = min(self.ratio, others)
            yield from [lead] + [other] * take
            leads, others = leads - 1, others - take
        if self.until == "longest":
            yield from [lead] * leads + [other] * others


@dataclass(frozen=True)
class Together:
    """One batch of every stream in each step, as many as the longest stream has; a shorter stream is cycled, or drops out.

    >>> order_text(Together(), R=3, F=2)
    'RF RF RF'
    >>> order_text(Together(cycle=False), R=3, F=2)
    'RF RF R'
    """

    cycle: bool = True

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        for step in range(max(lengths.values())):
            yield "".join(letter for letter, length in lengths.items() if self.cycle or step < length)


@dataclass(frozen=True, repr=False)
class Alongside(Value):
    """One batch of every stream in each step, as many as the leading stream has; a shorter stream is cycled, or drops out; a longer one
    is cut.

    >>> order_text(Alongside(), R=3, F=2)
    'RF RF RF'
    >>> order_text(Alongside(cycle=False), R=3, F=2)
    'RF RF R'
    >>> order_text(Alongside(), R=2, F=3)
    'RF RF'
    """

    cycle: bool = later(True)

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        for step in range(next(iter(lengths.values()))):
            yield "".join(letter for letter, length in lengths.items() if (length if self.cycle else step < length))


@dataclass(frozen=True)
class Ahead:
    """One pass over the leading stream, with a batch of the other before every k-th batch of it, from the first; the other is cycled.

    >>> order_text(Ahead(2), R=5, F=1)
    'F R R F R R F R'
    """

    k: int

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        (lead, leads), (other, others) = lengths.items()
        for step in range(leads):
            if step % self.k == 0 and others:
                yield other
            yield lead


@dataclass(frozen=True)
class Every:
    """`inner`, with a repair after every k-th epoch: one more pass over the leading stream. 0: no repairs.

    >>> order_text(Every(2, Alternate()), R=3, F=1, epoch=0)
    'R F'
    >>> order_text(Every(2, Alternate()), R=3, F=1, epoch=1)
    'R F R R R'
    """

    k: int
    inner: Order

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        yield from self.inner(lengths, epoch)
        if self.k and (epoch + 1) % self.k == 0:
            lead, length = next(iter(lengths.items()))
            yield from [lead] * length


@dataclass(frozen=True)
class First:
    """The first `steps` steps of `inner`; for measuring the duration of a step.

    >>> order_text(First(3, Alternate()), R=4, F=4)
    'R F R'
    """

    steps: int
    inner: Order

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        return islice(self.inner(lengths, epoch), self.steps)


def order_text(order: Order, epoch: int = 0, **lengths: int) -> str:
    """Return the batch order of one epoch as text.

    Args:
        order: the batch order.
        epoch: index within the phase, from 0.
        **lengths: number of batches per pass, by letter; the first letter leads.

    Returns:
        The steps, separated by spaces.
    """
    return " ".join(order(lengths, epoch))


def shorten(order: Iterator[str]) -> str:
    """A batch order in short form, with repetitions as factors.

    >>> shorten(Alternate(2, "longest")({"R": 352, "F": 40}, 0))
    '20x(R F F) 332xR'
    """
    steps = list(order)
    parts: list[str] = []
    at = 0
    while at < len(steps):
        period, times = max(
            ((p, _repeats(steps, at, p)) for p in range(1, 5)),
            key=lambda found: (found[0] * found[1] if found[1] > 1 else 1, -found[0]),
        )
        if times == 1:
            period = 1
        unit = " ".join(steps[at : at + period])
        parts.append(unit if times == 1 else f"{times}x{unit}" if period == 1 else f"{times}x({unit})")
        at += period * times
    return " ".join(parts)


def _repeats(steps: list[str], at: int, period: int) -> int:
    unit = steps[at : at + period]
    starts = range(at, len(steps), period)
    same = next(groupby(starts, key=lambda start: steps[start : start + period] == unit))
    return len(list(same[1])) if len(unit) == period else 1
