"""In which order the batches of an epoch come: integers in, a word out.

A word is a sequence of steps, one optimizer step each: "R" on a retain batch, "F" on a forget batch, "RF" on both at once.
The first letter given leads. Letters come from the streams of a phase's terms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, Protocol

Lengths = Mapping[str, int]  # letter -> number of batches in one pass, in the order of the phase's terms


class Order(Protocol):
    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        """The steps of epoch number `epoch` (from 0)."""
        ...


@dataclass(frozen=True)
class InTurn:
    """One pass of each stream, one stream after the other.

    >>> spell(InTurn(), R=4, F=2)
    'R R R R F F'
    """

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        for letter, length in lengths.items():
            yield from [letter] * length


@dataclass(frozen=True)
class Alternate:
    """One batch of the leading stream, then `ratio` of the other, until one stream ends ("shortest") or both have ("longest").

    >>> spell(Alternate(), R=4, F=2)
    'R F R F'
    >>> spell(Alternate(2, "longest"), R=5, F=4)
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
    """One batch of every stream in each step, as long as the longest; a shorter one is cycled, or drops out.

    >>> spell(Together(), R=3, F=2)
    'RF RF RF'
    >>> spell(Together(cycle=False), R=3, F=2)
    'RF RF R'
    """

    cycle: bool = True

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        for step in range(max(lengths.values())):
            yield "".join(letter for letter, length in lengths.items() if self.cycle or step < length)


@dataclass(frozen=True)
class Every:
    """`inner`; behind every k-th epoch one more pass of the leading stream (a repair). 0: never.

    >>> spell(Every(2, Alternate()), R=3, F=1, epoch=0)
    'R F'
    >>> spell(Every(2, Alternate()), R=3, F=1, epoch=1)
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
    """The first `steps` steps of `inner`: for measuring what a step takes.

    >>> spell(First(3, Alternate()), R=4, F=4)
    'R F R'
    """

    steps: int
    inner: Order

    def __call__(self, lengths: Lengths, epoch: int) -> Iterator[str]:
        return islice(self.inner(lengths, epoch), self.steps)


def spell(order: Order, epoch: int = 0, **lengths: int) -> str:
    """The word of one epoch, written out."""
    return " ".join(order(lengths, epoch))


def short(word: Iterator[str]) -> str:
    """The word of one epoch in short form.

    >>> short(Alternate(2, "longest")({"R": 352, "F": 40}, 0))
    '20x(R F F) 332xR'
    """
    steps = list(word)
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
