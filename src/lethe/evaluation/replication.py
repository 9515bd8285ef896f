"""Independent replication: a method run by several seeds from each of several originals, and what each of the two adds to the variance.

I originals, J unlearning runs from each: v_ij = mean + a_i + b_ij, where the variance of a is that between originals (`train`) and the
variance of b that between unlearning runs from one original (`unlearn`). The mean of all has the variance train / I + unlearn / (I J)
(arXiv:2510.26714): seeds from a single original never show the first term."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lethe.evaluation import catalogue, uncertainty
from lethe.evaluation.score import DIGITS, MeasureResult, Score, rounded
from lethe.evaluation.uncertainty import UNBOUNDED, Estimate, Range
from lethe.evaluation.verdict.words import Verdict

ORIGINALS = "Student-t over originals"  # what an interval is taken over


@dataclass(frozen=True)
class Spread:
    """Variances of a measure, in its squared unit.

    Attributes:
        train: between originals, without what the unlearning seeds add to it; 0 where that explains all of it.
        unlearn: between unlearning seeds from one original; None for one run from each, which do not show it: it is then in `train`.
    """

    train: float
    unlearn: float | None

    def of_mean(self, originals: int, seeds: int) -> float:
        """Compute the variance of the mean of a design.

        Args:
            originals: their number.
            seeds: unlearning runs from each.

        Returns:
            Its square root is the standard error of the mean.
        """
        return self.train / originals + (self.unlearn or 0.0) / (originals * seeds)


def spread(values_IJ: Sequence[Sequence[float]]) -> Spread:
    """Split the variance of a balanced design: one-way analysis of variance with random effects.

    Args:
        values_IJ: one number for each unlearning run, at least 2 originals.

    Returns:
        Both variances; unbiased but for the limit of 0.
    """
    values = np.asarray(values_IJ, np.float64)
    seeds = values.shape[1]
    between = float(values.mean(axis=1).var(ddof=1))
    if seeds == 1:
        return Spread(between, None)
    within = float(values.var(axis=1, ddof=1).mean())
    return Spread(max(0.0, between - within / seeds), within)


def mean(values_IJ: Sequence[Sequence[float]], bounds: Range = UNBOUNDED) -> Estimate:
    """Mean over all runs with Student's t interval over the originals' means, so that both sources of variance are in it.

    Args:
        values_IJ: one number for each unlearning run.
        bounds: smallest and largest possible value; the interval ends there.

    Returns:
        The mean; without an interval for a single original, and where the means are all equal.
    """
    of_originals = uncertainty.over_seeds([float(np.mean(each)) for each in values_IJ], bounds)
    interval = ORIGINALS if of_originals.low is not None else ""
    return Estimate(of_originals.value, of_originals.low, of_originals.high, interval, of_originals.models)


@dataclass(frozen=True)
class Replication:
    """A method's runs from several originals.

    Attributes:
        originals: seed of each original -> seeds of the unlearning runs from it, as many of each.
        measures: id -> mean over all runs, with the interval over originals.
        spreads: id -> the two variances.
        judged: the verdict on all runs together; None without a reference.
        unfit: why the retrained model that exists is no reference; "" otherwise.
        tables: what it was computed from: a hash.
        split: hash of the splits.
    """

    originals: Mapping[int, Sequence[int]]
    measures: Mapping[str, MeasureResult] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    judged: Verdict | None = None
    unfit: str = ""
    tables: str = ""
    split: str = ""

    @property
    def seeds(self) -> int:
        """Number of unlearning runs from each original."""
        return len(next(iter(self.originals.values())))

    @property
    def size(self) -> str:
        """The design in words.

        >>> Replication({0: [0, 1], 1: [1, 2], 2: [2, 3]}).size
        '3 originals x 2 seeds'
        """
        return f"{len(self.originals)} originals x {self.seeds} seed{'s' if self.seeds > 1 else ''}"

    def to_json(self) -> dict[str, Any]:
        """Content of its file."""
        variances = {
            id_: {"variance": {"train": one.train} | ({} if one.unlearn is None else {"unlearn": one.unlearn})}
            for id_, one in self.spreads.items()
        }
        content: dict[str, Any] = {"originals": {str(seed): [*runs] for seed, runs in self.originals.items()}}
        content["measures"] = {id_: result.to_json() | variances.get(id_, {}) for id_, result in self.measures.items()}
        content |= {"verdict": self.judged.word, "judged": self.judged.to_json()} if self.judged else {}
        return content | ({"reference_unfit": self.unfit} if self.unfit else {}) | {"of": self.tables, "split": self.split}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Replication":
        """Read the content of its file."""
        spreads = {id_: entry["variance"] for id_, entry in content["measures"].items() if "variance" in entry}
        return cls(
            {int(seed): runs for seed, runs in content["originals"].items()},
            {id_: MeasureResult.from_json(entry) for id_, entry in content["measures"].items()},
            {id_: Spread(one["train"], one.get("unlearn")) for id_, one in spreads.items()},
            Verdict.from_json(content["verdict"], content["judged"]) if "judged" in content else None,
            str(content.get("reference_unfit", "")),
            str(content.get("of", "")),
            str(content.get("split", "")),
        )


def aggregate(each: Mapping[int, Mapping[int, Score]], judged: Verdict | None = None, tables: str = "", split: str = "") -> Replication:
    """Aggregate the scores of a method's runs.

    Args:
        each: seed of the original -> seed of the unlearning run -> its score, next to the same references; as many runs of each original.
        judged: the verdict on all runs together.
        tables: a hash of what they were computed from.
        split: hash of the splits.

    Returns:
        Means of the measures of single models; a measure that one run lacks is missing, with the first reason. Measures of several models
        (klom, epsilon, neurips, the gap of means) are left out: they describe the runs from one original.
    """
    runs = [[*scores.values()] for scores in each.values()]
    first = runs[0][0]
    known = {one.part_id(part): one for one in catalogue.all_measures() for part in one.parts or ("",)}
    measures, spreads = {}, {}
    for id_ in first.measures:
        measure = known.get(id_) or next((one for one in known.values() if one.id == id_), None)
        if measure is None or measure.of_several:
            continue
        results = [[score.measures[id_] if id_ in score.measures else MeasureResult(None, "not computed") for score in of] for of in runs]
        lacking = next((one.missing for of in results for one in of if one.estimate is None), None)
        if lacking is not None:
            measures[id_] = MeasureResult(None, lacking)
            continue
        values = [[one.estimate.value for one in of if one.estimate] for of in results]
        bounds = measure.bounds_of(id_.removeprefix(measure.id).removeprefix("."))
        measures[id_] = MeasureResult(rounded(mean(values, bounds)), "", results[0][0].reference)
        if len(values) > 1:
            found = spread(values)
            spreads[id_] = Spread(round(found.train, DIGITS), None if found.unlearn is None else round(found.unlearn, DIGITS))
    return Replication({seed: [*scores] for seed, scores in each.items()}, measures, spreads, judged, first.unfit, tables, split)
