"""What accuracies alone show of a method, by fixed rules: all that is known of published results. Runs with logits tables are judged by
`judge`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from lethe.evaluation import chance, significance, uncertainty
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.words import Verdict
from lethe.recipes.paper_methods import PAPER_METHODS

REFERENCES = ("original", "retrained")
COMPARED = ("retain", "forget", "test")  # splits of the mean distance; validation is excluded, as a search selects by it
BARELY = 0.25  # share of the way from the original's forget accuracy to the retrained model's
TESTED = ("forget", "test")  # splits on which neighbouring methods are compared: forgetting, and its cost

Record = list[dict[str, Any]]  # rows of a CSV file

# kind -> heading, meaning
KINDS = {
    "as retrained": (
        "As the retrained model",
        "Forget accuracy equals the retrained model's within chance. By this measure, and by this one alone, they have forgotten.",
    ),
    "undecided": (
        "Undecided",
        "Forget accuracy equals both the retrained model's and the original's within chance: a decision needs more forget images.",
    ),
    "barely forgets": (
        "Barely forget",
        f"Forget accuracy equals the original's within chance, or covers less than {BARELY * 100:.0f} % of the way to the retrained "
        "model's: the model still recognises the images as training images. This does not satisfy a deletion request.",
    ),
    "partly forgets": (
        "Partly forget",
        "Forget accuracy is between the original's and the retrained model's: part of the memory remains.",
    ),
    "over-forgets": (
        "Over-forget",
        "This is not better forgetting. Images that a model misclassifies more often than unseen images can be identified by that, "
        "just like images that it remembers.",
    ),
}


@dataclass(frozen=True)
class ResultSet:
    """Accuracies of the methods that ran under the same conditions: one group of columns of the report's tables.

    Attributes:
        title: short name, e.g. "independent".
        about: one sentence on the conditions.
        command: the command that produces these results; "" if there is none.
        sizes: number of images by split.
        accuracies: run -> split -> accuracy in percent. `original` and `retrained` are the references.
        epochs: method -> its epoch table, one row per epoch.
        alarms: run -> what is outside the reference's interval, "" for nothing.
        by_seed: method with several seeds -> seed -> split -> accuracy in percent.
        distances_by_seed: the same, minus the accuracy of the retrained model of the same seed, in points.
        unfit: why the retrained model is no reference, in one line: there are then no distances and no verdicts. "" where it is one.
        verdicts: run -> its verdict, from logits tables; empty for published results and for score files of earlier versions.
        floor: mean absolute distance of one retrained model from the mean of the others, in points; None where there are fewer than three.
        estimates: run -> split -> its accuracy with the interval of its score, as far as there is one.
        targets: run -> split -> what retrained models score, as its score says.
    """

    title: str
    about: str
    command: str
    sizes: Mapping[str, int]
    accuracies: Mapping[str, Mapping[str, float]]
    epochs: Mapping[str, Record] = field(default_factory=dict)
    alarms: Mapping[str, str] = field(default_factory=dict)
    by_seed: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)
    distances_by_seed: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)
    unfit: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    floor: float | None = None
    estimates: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The runs that are not references."""
        return [name for name in self.accuracies if name not in REFERENCES]

    def distances(self, name: str) -> dict[str, float]:
        """Split -> accuracy minus the retrained model's, in points, as far as both are known; {} where it is no reference."""
        if self.unfit:
            return {}
        if name in self.distances_by_seed:
            return {split: uncertainty.over_seeds(values).value for split, values in _by_split(self.distances_by_seed[name]).items()}
        retrained = self.accuracies.get("retrained", {})
        return {split: value - retrained[split] for split, value in self.accuracies[name].items() if split in retrained}

    def mean_distance(self, name: str) -> float | None:
        """Mean absolute distance over retain, forget and test, in points, as far as they are known; of several seeds that of their mean."""
        return mean_distance(self.distances(name))

    def mean_distance_of_seeds(self, name: str) -> float | None:
        """Mean over the seeds of each one's mean absolute distance, in points; that of the run itself where there are no seeds."""
        known = [mean_distance(one) for one in self.distances_by_seed.get(name, {}).values()]
        if self.unfit or not known:
            return self.mean_distance(name)
        return sum(one for one in known if one is not None) / len(known)

    def estimate(self, name: str, split: str) -> Estimate:
        """An accuracy of a run with its 95 % interval: that of its score, or the exact one over so many images.

        Args:
            name: the run; its accuracy on the split is known.
            split: retain, forget, validation or test.

        Returns:
            In percent, value and interval.
        """
        return self.estimates.get(name, {}).get(split) or chance.accuracy(self.accuracies[name][split], self.sizes[split])

    def target(self, name: str, split: str) -> Estimate:
        """What retrained models score in place of a run: as its score says, or the single retrained model's accuracy.

        Args:
            name: the run.
            split: retain, forget, validation or test.

        Returns:
            In percent, value and interval.
        """
        return self.targets.get(name, {}).get(split) or self.estimate("retrained", split)

    def by_chance(self, name: str, split: str) -> tuple[float, float]:
        """The range in which a retrained model's accuracy is expected by chance in place of a run: the card's (`chance.chance_range`).

        Args:
            name: the run.
            split: retain, forget, validation or test.

        Returns:
            Low and high end, in percent.
        """
        return chance.chance_range(self.estimate(name, split), self.target(name, split))

    def half_widths(self, name: str) -> dict[str, float]:
        """Split -> half the width of Student's t 95 % interval over seeds; empty for a method with a single run."""
        intervals = {split: uncertainty.over_seeds(values) for split, values in _by_split(self.by_seed.get(name, {})).items()}
        return {split: (each.high - each.low) / 2 for split, each in intervals.items() if each.low is not None and each.high is not None}


def mean_distance(distances: Mapping[str, float]) -> float | None:
    """Average the absolute distances over COMPARED.

    Args:
        distances: signed, in points, by split.

    Returns:
        Points; None where no split of COMPARED is known.
    """
    known = [abs(value) for split, value in distances.items() if split in COMPARED]
    return sum(known) / len(known) if known else None


def floor(retrained: Sequence[Mapping[str, float]]) -> float | None:
    """Compute how far one retrained model is from the mean of the others.

    Args:
        retrained: accuracies in percent by split, of each retrained model.

    Returns:
        Mean over the models of their mean absolute distance, in points; None for fewer than three: two are equally far from each other.
    """
    if len(retrained) < 3:
        return None
    total = {split: sum(one[split] for one in retrained) for split in COMPARED}
    others = len(retrained) - 1
    each = [mean_distance({split: one[split] - (total[split] - one[split]) / others for split in COMPARED}) for one in retrained]
    return sum(one for one in each if one is not None) / len(each)


def _by_split(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, list[float]]:
    first: Mapping[str, float] = next(iter(by_seed.values()), {})
    return {split: [one[split] for one in by_seed.values()] for split in first}


@dataclass(frozen=True)
class Difference:
    """Paired comparison of two neighbouring methods of a table on one split.

    Attributes:
        first, second: the methods.
        split: the split whose accuracy is compared.
        seeds: number of seeds that both have.
        points: mean of first minus second.
        half_width: half of Student's t 95 % interval of that mean.
        p: of the paired t-test.
        adjusted: p adjusted by Holm's method for all tests of the table.
    """

    first: str
    second: str
    split: str
    seeds: int
    points: float
    half_width: float
    p: float
    adjusted: float

    @property
    def more_than_noise(self) -> bool:
        """Whether `adjusted` is below 0.05."""
        return self.adjusted < 1 - uncertainty.CONFIDENCE


def compare_neighbours(results: ResultSet, names: Sequence[str]) -> list[Difference]:
    """Test whether neighbouring methods of a table differ by more than noise.

    Args:
        results: accuracies by seed.
        names: the methods in the order of the table; those that did not run are left out.

    Returns:
        Two differences (forget, test) for each pair of neighbours that share at least two seeds.
    """
    ran = [name for name in names if name in results.accuracies]
    differences = []
    for first, second in pairwise(ran):
        ours, theirs = (results.by_seed.get(name, {}) for name in (first, second))
        common = sorted(set(ours) & set(theirs))
        for split in TESTED if len(common) > 1 else ():
            values = [[one[seed][split] for seed in common] for one in (ours, theirs)]
            mean = uncertainty.over_seeds([a - b for a, b in zip(*values, strict=True)])
            half = (mean.high - mean.low) / 2 if mean.high is not None and mean.low is not None else 0.0
            differences.append(Difference(first, second, split, len(common), mean.value, half, significance.paired(*values), 1.0))
    adjusted = significance.holm({str(n): one.p for n, one in enumerate(differences)})
    return [replace(one, adjusted=adjusted[str(n)]) for n, one in enumerate(differences)]


def label(name: str) -> str:
    """The name used in the project report: Model 1, Hybrid-1."""
    kind, _, number = name.partition("_")
    return (f"Model {number}" if kind == "model" else f"Hybrid-{number}") if name in PAPER_METHODS else name


@dataclass(frozen=True)
class ByAccuracy:
    """What the forget accuracy of a run shows.

    Attributes:
        name: the run.
        kind: a key of KINDS.
        forget: forget accuracy in percent.
        distance: forget accuracy minus the retrained model's, in points.
        below_test: test accuracy minus forget accuracy, in points.
        stands_out: whether `below_test` exceeds the retrained model's by more than chance.
        lost: test accuracy below the retrained model's, in points; 0 within chance.
    """

    name: str
    kind: str
    forget: float
    distance: float
    below_test: float
    stands_out: bool
    lost: float


def assess(results: ResultSet, name: str) -> ByAccuracy | None:
    """Judge a run by its forget accuracy.

    The alarm decides on over-forgetting. Without one, as for published numbers, a run over-forgets if its forget accuracy is below
    the retrained model's, or further below its own test accuracy than the retrained model's is; each by more than chance.

    Args:
        results: accuracies of the run, the original and the retrained model, and the numbers of images.
        name: the run.

    Returns:
        The verdict; None for the references themselves, if one of the three models is unknown, and without a fit reference.
    """
    if results.unfit or name in REFERENCES or any(one not in results.accuracies for one in (name, *REFERENCES)):
        return None
    run, original, retrained = (results.accuracies[one] for one in (name, *REFERENCES))
    forget, test, target, began = run["forget"], run["test"], retrained["forget"], original["forget"]
    low, high = results.by_chance(name, "forget")
    ours = [results.estimate(name, split) for split in ("test", "forget")]
    # if unknown: for the retrained model a random forget set is another test set
    unseen = results.estimate("retrained", "test") if "test" in retrained else chance.accuracy(target, results.sizes["test"])
    stands_out = chance.difference([ours[0], results.estimate("retrained", "forget")], [ours[1], unseen])[0] > 0
    as_original = chance.difference([results.estimate("original", "forget")], [ours[1]])[0] <= 0
    if bool(results.alarms[name]) if name in results.alarms else forget < low or stands_out:
        kind = "over-forgets"
    elif forget <= high:
        kind = "undecided" if as_original else "as retrained"
    else:
        kind = "barely forgets" if as_original or began - forget < BARELY * (began - target) else "partly forgets"
    lost = retrained.get("test", original["test"]) - test
    if "test" in retrained:
        beyond_chance = lost > 0 and test < results.by_chance(name, "test")[0]
    else:
        beyond_chance = chance.difference([results.estimate("original", "test")], [ours[0]])[0] > 0
    return ByAccuracy(name, kind, forget, forget - target, test - forget, stands_out, lost if beyond_chance else 0.0)


def discriminates(results: ResultSet) -> bool:
    """Whether forget accuracy separates the original from the retrained model by more than chance; otherwise it can't judge a method."""
    known = not results.unfit and all(name in results.accuracies for name in REFERENCES)
    return known and results.accuracies["original"]["forget"] > results.by_chance("original", "forget")[1]


def reference_noise(results: ResultSet) -> float:
    """By how many points the original's forget accuracy may be above the retrained models' by chance."""
    return results.by_chance("original", "forget")[1] - results.target("original", "forget").value
