"""Schedules: functions of progress = epoch / epochs of the phase, in [0, 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Schedule = Callable[[float], float]
Shape = Literal["linear", "power", "exponential", "cosine"]


@dataclass(frozen=True)
class Constant:
    """The same value throughout.

    >>> Constant(0.001)(0.7)
    0.001
    """

    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Cosine:
    """From `start` to 0 on half a cosine (Loshchilov and Hutter, arXiv:1608.03983, without restarts).

    >>> Cosine(0.01)(0.5)
    0.005
    """

    start: float

    def __call__(self, progress: float) -> float:
        return self.start * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OneCycle:
    """Up to `peak` during the fraction `warm` of the phase, then down, both on half cosines (Smith, arXiv:1708.07120; the
    fractions are those of torch's OneCycleLR).

    >>> OneCycle(0.1)(0.3)
    0.1
    """

    peak: float
    warm: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000

    def __call__(self, progress: float) -> float:
        low, share = (self.start, progress / self.warm) if progress < self.warm else (self.end, (1 - progress) / (1 - self.warm))
        return self.peak * (low + (1 - low) * (1 - math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class Triangle:
    """Linearly up from `start` times `peak` during the fraction `warm` of the phase, then linearly down to `end` times `peak`
    (arXiv:2404.00498, section 3.1).

    >>> tuple(round(Triangle(1.5, warm=0.2)(progress), 6) for progress in (0.0, 0.1, 0.2, 0.6, 1.0))
    (0.3, 0.9, 1.5, 0.8025, 0.105)
    """

    peak: float
    warm: float = 0.23
    start: float = 0.2
    end: float = 0.07

    def __call__(self, progress: float) -> float:
        low, share = (self.start, progress / self.warm) if progress < self.warm else (self.end, (1 - progress) / (1 - self.warm))
        return self.peak * (low + (1 - low) * share)


@dataclass(frozen=True)
class Drops:
    """From `start`, times `factor` at each fraction of `at` (by default as He et al., arXiv:1512.03385, section 4.2: at 1/2 and 3/4).

    >>> Drops(0.1)(0.4), round(Drops(0.1)(0.5), 6), round(Drops(0.1)(0.8), 6)
    (0.1, 0.01, 0.001)
    """

    start: float
    at: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __call__(self, progress: float) -> float:
        return self.start * self.factor ** sum(progress >= fraction for fraction in self.at)


@dataclass(frozen=True)
class WarmUp:
    """Linearly from 0 to the start of `inner` during the fraction `share` of the phase, then `inner` over the rest.

    >>> WarmUp(0.1, Cosine(0.05))(0.05), WarmUp(0.1, Cosine(0.05))(0.1)
    (0.025, 0.05)
    """

    share: float
    inner: Schedule

    def __call__(self, progress: float) -> float:
        if progress < self.share:
            return self.inner(0.0) * (progress / self.share)
        return self.inner((progress - self.share) / (1 - self.share))


@dataclass(frozen=True)
class Part:
    """The part of a schedule between two fractions of it: a run that is divided into phases keeps one schedule.

    >>> Part(Ramp(1.0), 0.2, 0.6)(0.5)
    0.4
    """

    inner: Schedule
    start: float
    stop: float

    def __call__(self, progress: float) -> float:
        return self.inner(self.start + progress * (self.stop - self.start))


@dataclass(frozen=True)
class Ramp:
    """From 0 towards `peak`: linear (t), power (t ** power), exponential ((e^(power t) - 1) / (e^power - 1)) or cosine.

    The report's "exponential" ramp ran as power 2 in its notebook.

    >>> Ramp(-0.8, "power", 2.0)(0.5)
    -0.2
    """

    peak: float
    shape: Shape = "linear"
    power: float = 1.0

    def __call__(self, progress: float) -> float:
        match self.shape:
            case "linear":
                share = progress
            case "power":
                share = progress**self.power
            case "exponential":
                share = math.expm1(self.power * progress) / math.expm1(self.power)
            case "cosine":
                share = (1 - math.cos(math.pi * progress)) / 2
        return self.peak * share
