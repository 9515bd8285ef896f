"""Several seeds of one method, unlearned from the same original: which files belong to it, and their aggregated score.

The model of seed k is the run <method>.seed<k>. The file of <method> itself holds the first seed's model and lists all seeds with the
hashes of their weights in its metadata, so it is known which of the files in a folder belong together."""

import json
from collections.abc import Iterable, Mapping, Sequence

from lethe._util.files import digest, short
from lethe.evaluation import catalogue, uncertainty
from lethe.evaluation.score import DIGITS, MeasureResult, Score, SeedScore, rounded
from lethe.evaluation.uncertainty import POINTS, Estimate

# What the interval of several seeds leaves out (arXiv:2510.26714; `replication`)
ONE_ORIGINAL = "all unlearned from one original, so how originals differ is not in it (run.originals)"
KEY = "seeds"  # of the metadata: seed -> short hash of its weights, as JSON


def listed(metadata: Mapping[str, str]) -> dict[int, str]:
    """Seed -> short hash of its weights, from the metadata of a file that represents several seeds; otherwise empty."""
    return {int(seed): weights for seed, weights in json.loads(metadata.get(KEY, "{}")).items()}


def noted(weights: Mapping[int, str]) -> dict[str, str]:
    """Metadata of a file that represents several seeds, from seed -> hash of its weights."""
    return {KEY: json.dumps({str(seed): short(weights[seed]) for seed in sorted(weights)})}


def result(weights: str, metadata: Mapping[str, str]) -> str:
    """Compute the short hash that identifies a result's MLflow run.

    Args:
        weights: hash of the result's weights; used if it represents a single model.
        metadata: of its file; if it lists several seeds, their weights are hashed instead.

    Returns:
        12 hex digits.
    """
    several = listed(metadata)
    return short(digest(several[seed] for seed in sorted(several)) if several else weights)


def seed_range(seeds: Sequence[int]) -> str:
    """Describe seeds.

    >>> seed_range([0, 1, 2]), seed_range([1, 4]), seed_range([7])
    ('0 to 2', '1, 4', '7')
    """
    dense = len(seeds) > 2 and [*seeds] == [*range(seeds[0], seeds[-1] + 1)]
    return f"{seeds[0]} to {seeds[-1]}" if dense else ", ".join(map(str, seeds))


def aggregate(each: Mapping[int, Score], retrained: Mapping[int, Mapping[str, float]]) -> Score:
    """Aggregate the scores of several seeds: means, for measures with Student's t interval over seeds.

    Args:
        each: seed -> its score.
        retrained: seed -> accuracies in percent by split of the retrained model that it is paired with; seeds may be missing.

    Returns:
        Their score; `distance` only if every seed has a retrained model.
    """
    scores = [*each.values()]
    first = scores[0]
    models = [{id_: one.estimate or one.missing for id_, one in score.measures.items()} for score in scores]
    measures = {}
    for id_, mean in catalogue.over_seeds(models).items():
        reference = first.measures[id_].reference
        measures[id_] = MeasureResult(None, mean) if isinstance(mean, str) else MeasureResult(rounded(mean), "", reference)
    distances = {
        seed: {split: round(value - retrained[seed][split], DIGITS) for split, value in score.accuracy.items() if split in retrained[seed]}
        for seed, score in each.items()
        if seed in retrained
    }
    paired = next(iter(distances.values())) if len(distances) == len(each) else {}
    return Score(
        {split: _mean(score.accuracy[split] for score in scores) for split in first.accuracy},
        {split: _mean(score.loss[split] for score in scores) for split in first.loss},
        _mean(score.gap for score in scores),
        measures,
        first.tier,
        first.references,
        {split: rounded(uncertainty.over_seeds([one[split] for one in distances.values()], POINTS)) for split in paired},
        {seed: SeedScore(score.accuracy, score.over_forgetting, distances.get(seed, {})) for seed, score in each.items()},
    )


def half_width(estimate: Estimate | None) -> float | None:
    """Half the width of Student's t interval over seeds, before it is cut off at the range of the measure; None for any other interval."""
    if estimate is None or estimate.low is None or estimate.high is None or estimate.interval != uncertainty.SEEDS:
        return None
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def _mean(values: Iterable[float]) -> float:
    return round(uncertainty.over_seeds([*values]).value, DIGITS)
