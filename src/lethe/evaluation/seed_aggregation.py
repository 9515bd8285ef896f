"""Several seeds of one method, from one original: which files are theirs, and what stands for all of them.

The model of seed k is <method>.seed<k>; <method> itself is the first seed's, and names the others and their weights in its metadata.
So who has that file, from DVC or from elsewhere, knows which seeds belong to it, whatever else lies beside it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lethe._util.files import digest, short
from lethe.evaluation import catalogue
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.uncertainty import Estimate

Scores = dict[str, Any]

KEY = "seeds"  # of the metadata: seed -> short hash of its weights, as JSON


def listed(metadata: Mapping[str, str]) -> dict[int, str]:
    """Seed -> short hash of its weights, of a file that stands for several; else empty."""
    return {int(seed): weights for seed, weights in json.loads(metadata.get(KEY, "{}")).items()}


def noted(weights: Mapping[int, str]) -> dict[str, str]:
    """For the metadata."""
    return {KEY: json.dumps({str(seed): short(weights[seed]) for seed in sorted(weights)})}


def result(weights: str, metadata: Mapping[str, str]) -> str:
    """The short hash by which a result's row is found: of its weights, or of those of all its seeds."""
    several = listed(metadata)
    return short(digest(several[seed] for seed in sorted(several)) if several else weights)


def seed_range(seeds: Sequence[int]) -> str:
    """Describe seeds.

    >>> seed_range([0, 1, 2]), seed_range([1, 4]), seed_range([7])
    ('0 to 2', '1, 4', '7')
    """
    dense = len(seeds) > 2 and [*seeds] == [*range(seeds[0], seeds[-1] + 1)]
    return f"{seeds[0]} to {seeds[-1]}" if dense else ", ".join(map(str, seeds))


# --- their scores -----------------------------------------------------------------------------------------------------


def together(each: Mapping[int, Scores], retrained: Mapping[int, Mapping[str, float]], alarm: Any) -> Scores:
    """Means over the seeds' score files, in the same words; measures with Student's t interval.

    `seeds`: accuracy and alarm of each; `distance`: accuracy minus the retrained model's, `retrained` (by seed), paired by seed.
    `alarm`: of scores, in words."""
    first = next(iter(each.values()))
    mean: Scores = {}
    for kind in ("accuracy", "loss"):
        mean[kind] = {split: _mean(one[kind][split] for one in each.values()) for split in first[kind]}
    mean["gap"] = _mean(one["gap"] for one in each.values())
    models = [
        {id_: Estimate(got["value"]) if "value" in got else str(got["missing"]) for id_, got in one["measures"].items()}
        for one in each.values()
    ]
    mean["measures"] = {}
    for id_, got in catalogue.over_seeds(models).items():
        beside = {"reference": first["measures"][id_]["reference"]} if "reference" in first["measures"][id_] else {}
        mean["measures"][id_] = {"missing": got} if isinstance(got, str) else numbers(got) | beside
    mean |= {key: first[key] for key in ("tier", "references")}
    apart = {
        seed: {split: round(value - retrained[seed][split], 6) for split, value in one["accuracy"].items() if split in retrained[seed]}
        for seed, one in each.items()
        if seed in retrained
    }
    if len(apart) == len(each):
        splits = next(iter(apart.values()))
        mean["distance"] = {split: numbers(intervals.over_seeds([one[split] for one in apart.values()])) for split in splits}
    mean["seeds"] = {
        str(seed): {"accuracy": one["accuracy"], "over_forgetting": alarm(one)} | ({"distance": apart[seed]} if seed in apart else {})
        for seed, one in each.items()
    }
    return mean


def numbers(estimate: Estimate) -> dict[str, Any]:
    """As score files have it."""
    known: dict[str, Any] = {"value": round(estimate.value, 6)}
    if estimate.low is not None and estimate.high is not None:
        known |= {"low": round(estimate.low, 6), "high": round(estimate.high, 6), "interval": estimate.interval}
    return known | ({"models": estimate.models} if estimate.models > 1 else {})


def half_width(got: Mapping[str, Any] | None) -> float | None:
    """Of an interval over seeds; None of any other."""
    over = got is not None and got.get("interval") == intervals.SEEDS
    return (got["high"] - got["low"]) / 2 if got and over else None


def _mean(values: Iterable[float]) -> float:
    return round(intervals.over_seeds([*values]).value, 6)
