"""What accuracies say of forgetting, in words, by rules alone: read beside the original and the retrained model, or not at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from lethe.evaluation import uncertainty as intervals
from lethe.recipes.paper_methods import TEN

REFERENCES = ("original", "retrained")
FAR = ("retain", "forget", "test")  # what the mean distance is over: validation is what a search selects by
BARELY = 0.25  # share of the way from the original's forget accuracy to the retrained model's

Record = list[dict[str, Any]]

# kind -> how the list begins, what it means
KINDS = {
    "as retrained": (
        "As the retrained model",
        "Forget accuracy within chance of the retrained model's. By this measure, and by this one alone, they have forgotten.",
    ),
    "undecided": (
        "Undecided",
        "Forget accuracy within chance of the retrained model's and of the original's: it takes more forget images to tell.",
    ),
    "barely forgets": (
        "Barely forget",
        f"Forget accuracy within chance of the original's, or less than {BARELY * 100:.0f} % of the way to the retrained model's: "
        "the images are still recognised as images of the training set. A deletion request is not met.",
    ),
    "partly forgets": ("Partly forget", "Forget accuracy between the original's and the retrained model's: some of the memory is left."),
    "over-forgets": (
        "Over-forget",
        "This is not better forgetting. Images that a model gets wrong more often than images it never saw can be picked out by that, "
        "as surely as images it remembers.",
    ),
}


@dataclass(frozen=True)
class Reading:
    """One block of columns of the tables: accuracies (percent) of the rows that ran, by split, on `sizes` images."""

    title: str
    about: str
    command: str  # that makes it
    sizes: Mapping[str, int]
    rows: Mapping[str, Mapping[str, float]]
    epochs: Mapping[str, Record] = field(default_factory=dict)
    alarms: Mapping[str, str] = field(default_factory=dict)  # row -> what lies beyond the reference's interval, "" for nothing
    seeds: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)  # row that is a mean -> accuracies by seed
    apart: Mapping[str, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)  # the same, minus the same seed's retrained model

    @property
    def methods(self) -> list[str]:
        return [name for name in self.rows if name not in REFERENCES]

    def distances(self, name: str) -> dict[str, float]:
        """Split -> accuracy minus the retrained model's, in points, where both are known."""
        if name in self.apart:
            return {split: intervals.over_seeds(values).value for split, values in _by_split(self.apart[name]).items()}
        there = self.rows.get("retrained", {})
        return {split: value - there[split] for split, value in self.rows[name].items() if split in there}

    def mean_distance(self, name: str) -> float | None:
        """Of the absolute distances of retain, forget and test, as far as they are known."""
        known = [abs(value) for split, value in self.distances(name).items() if split in FAR]
        return sum(known) / len(known) if known else None

    def half_widths(self, name: str) -> dict[str, float]:
        """Split -> half of Student's t 95 % interval over seeds; none of a row that is one run."""
        found = {split: intervals.over_seeds(values) for split, values in _by_split(self.seeds.get(name, {})).items()}
        return {split: (got.high - got.low) / 2 for split, got in found.items() if got.low is not None and got.high is not None}


def _by_split(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, list[float]]:
    first: Mapping[str, float] = next(iter(by_seed.values()), {})
    return {split: [one[split] for one in by_seed.values()] for split in first}


@dataclass(frozen=True)
class Difference:
    """Of two neighbours in a table, on one split: mean of first minus second over the seeds that both have, in points."""

    first: str
    second: str
    split: str
    seeds: int
    points: float
    half_width: float  # of Student's t 95 % interval of that mean
    p: float  # of the paired t-test, alone
    adjusted: float  # by Holm, for all tests of the table

    @property
    def more_than_noise(self) -> bool:
        return self.adjusted < 1 - intervals.CONFIDENCE


TESTED = ("forget", "test")  # forgetting, and its price


def neighbours(reading: Reading, names: Sequence[str]) -> list[Difference]:
    """Of each pair of rows that stand beside each other in a table of these names, in which only those are that ran: whether they
    differ by more than noise. Both must have been run by at least two common seeds."""
    there = [name for name in names if name in reading.rows]
    found = []
    for first, second in pairwise(there):
        ours, theirs = (reading.seeds.get(name, {}) for name in (first, second))
        common = sorted(set(ours) & set(theirs))
        for split in TESTED if len(common) > 1 else ():
            values = [[one[seed][split] for seed in common] for one in (ours, theirs)]
            mean = intervals.over_seeds([a - b for a, b in zip(*values, strict=True)])
            half = (mean.high - mean.low) / 2 if mean.high is not None and mean.low is not None else 0.0
            found.append(Difference(first, second, split, len(common), mean.value, half, intervals.paired(*values), 1.0))
    adjusted = intervals.holm({str(n): one.p for n, one in enumerate(found)})
    return [replace(one, adjusted=adjusted[str(n)]) for n, one in enumerate(found)]


def label(name: str) -> str:
    """The report's own name: Model 1, Hybrid-1."""
    kind, _, number = name.partition("_")
    return (f"Model {number}" if kind == "model" else f"Hybrid-{number}") if name in TEN else name


def chance(*accuracies: tuple[float, int]) -> float:
    """By how many points a sum or difference of accuracies (percent, n images) may differ by chance: 95 %, Agresti and Caffo's
    interval, which is not 0 at 100 percent. It knows nothing of the spread between seeds.

    >>> round(chance((88.0, 5000), (88.0, 5000)), 2)
    1.27
    """
    shares = [((percent / 100 * n + 1) / (n + 2), n) for percent, n in accuracies]
    return 196 * math.sqrt(sum(share * (1 - share) / (n + 2) for share, n in shares))


@dataclass(frozen=True)
class Verdict:
    """What a row's forget accuracy says beside those of the original and the retrained model; points and percent."""

    name: str
    kind: str  # a key of KINDS
    forget: float
    distance: float  # of forget accuracy
    below_test: float  # the row's test minus its forget accuracy
    stands_out: bool  # that is more than the retrained model's, and chance does not explain it
    lost: float  # test accuracy below the retrained model's; 0 where chance explains it


def verdict(reading: Reading, name: str) -> Verdict | None:
    """None for the references themselves, and where one of the three rows is unknown.

    Over-forgetting is what the alarm says it is. Where there is none, as of published numbers, it is forget accuracy below the
    retrained model's, or further below the row's own test accuracy than the retrained model's is below its own; each by more than
    chance."""
    if name in REFERENCES or any(one not in reading.rows for one in (name, *REFERENCES)):
        return None
    row, original, retrained = (reading.rows[one] for one in (name, *REFERENCES))
    forget, test, F, T = row["forget"], row["test"], reading.sizes["forget"], reading.sizes["test"]
    target, began = retrained["forget"], original["forget"]
    unseen = retrained.get("test", target)  # where unknown: to that model a random forget set is one more test set
    noise = chance((forget, F), (target, F))
    stands_out = (test - forget) - (unseen - target) > chance((test, T), (forget, F), (unseen, T), (target, F))
    as_original = forget >= began - chance((forget, F), (began, F))
    if bool(reading.alarms[name]) if name in reading.alarms else forget < target - noise or stands_out:
        kind = "over-forgets"
    elif forget <= target + noise:
        kind = "undecided" if as_original else "as retrained"
    else:
        kind = "barely forgets" if as_original or began - forget < BARELY * (began - target) else "partly forgets"
    useful = retrained.get("test", original["test"])
    lost = useful - test
    return Verdict(name, kind, forget, forget - target, test - forget, stands_out, lost if lost > chance((useful, T), (test, T)) else 0.0)


def has_power(reading: Reading) -> bool:
    """Whether forget accuracy tells the original from the retrained model by more than chance: else it judges no method."""
    known = all(name in reading.rows for name in REFERENCES)
    return known and reading.rows["original"]["forget"] - reading.rows["retrained"]["forget"] > _noise(reading)


def _noise(reading: Reading) -> float:
    return chance(*((reading.rows[name]["forget"], reading.sizes["forget"]) for name in REFERENCES))


def words(reading: Reading) -> list[str]:
    """What the numbers of one reading say: the items of a list, in Markdown."""
    if not reading.methods:
        return [f"Not run; `{reading.command}` makes it."]
    if any(name not in reading.rows for name in REFERENCES):
        return ["Without an original and a retrained model beside them these numbers say nothing."]
    original, retrained = (reading.rows[name]["forget"] for name in REFERENCES)
    forget, noise = reading.sizes["forget"], _noise(reading)
    lines = [
        f"**There is to forget**: {original - retrained:.1f} points, from forget accuracy {original:.1f} (original) to {retrained:.1f} "
        f"(retrained). On {forget:,} images differences up to {noise:.1f} may be chance."
    ]
    if not has_power(reading):
        return [*lines, "**No power here**: forget accuracy does not tell the original from the retrained model, so it judges no method."]
    lines.append(_nearest(reading))
    verdicts = [found for found in (verdict(reading, name) for name in reading.methods) if found]
    for kind, (head, meaning) in KINDS.items():
        alike = [found for found in verdicts if found.kind == kind]
        if alike:
            fell = kind == "over-forgets" and any(_fell(found) for found in alike)
            said = f"**{head}** (forget accuracy, from retrained): {', '.join(map(_told, alike))}. {meaning}"
            lines.append(
                said + (" Where test accuracy fell with it, the model is damaged, and the images are not singled out." if fell else "")
            )
    if paid := ", ".join(f"{label(each.name)} {-each.lost:+.1f}" for each in sorted(verdicts, key=lambda v: -v.lost) if each.lost):
        against = "the retrained model's" if "test" in reading.rows["retrained"] else "the original's (the retrained model's is not known)"
        lines.append(f"**Paid in accuracy**: {paid} points of test accuracy against {against}.")
    return lines


def beside(reading: Reading, published: Reading) -> str:
    """Whether the methods fall on the same side of the retrained model as in what was published; "" where nothing can be said."""
    pairs = {name: (verdict(reading, name), verdict(published, name)) for name in published.methods}
    known = {name: (ours.kind, theirs.kind) for name, (ours, theirs) in pairs.items() if ours and theirs}
    other = [f"{label(name)} (there {theirs}, here {ours})" for name, (ours, theirs) in known.items() if ours != theirs]
    if not known:
        return ""
    return f"**Beside the published rows**: {len(known) - len(other)} of {len(known)} read the same" + (
        f"; not {', '.join(other)}." if other else "."
    )


def apart(reading: Reading, published: Reading) -> str:
    """How far forget accuracies lie from the published ones, where both are of the same images."""
    far = {name: reading.rows[name]["forget"] - row["forget"] for name, row in published.rows.items() if name in reading.methods}
    worst = max(far, key=lambda name: abs(far[name]), default=None)
    if worst is None:
        return ""
    mean = sum(map(abs, far.values())) / len(far)
    most = f"most in {label(worst)} ({far[worst]:+.1f})"
    return f"**Against the published rows**: forget accuracy differs by {mean:.1f} points on average, {most}."


def _told(found: Verdict) -> str:
    text = f"{label(found.name)} {found.forget:.1f} ({found.distance:+.1f}"
    if found.kind == "over-forgets":
        if found.stands_out:
            text += f"; {found.below_test:.1f} below its own test accuracy"
        elif _fell(found):
            text += "; its test accuracy fell with it"
    return f"{text})"


def _fell(found: Verdict) -> bool:
    return not found.stands_out and found.lost > 0


def _nearest(reading: Reading) -> str:
    far = {name: distance for name in (*reading.methods, "original") if (distance := reading.mean_distance(name)) is not None}
    nothing = far.pop("original")
    ordered = sorted(far, key=lambda name: far[name])
    over = [split for split in FAR if split in reading.distances("original")]
    told = [f"{label(name)} {far[name]:.1f}" for name in ordered]
    nearer = sum(far[name] < nothing for name in ordered)
    return (
        f"**Nearest to retrained** (mean absolute distance over {_and(over)}, points): {', '.join(told[: min(3, nearer)]) or 'none'}. "
        f"The original, which did nothing, is at {nothing:.1f}"
        + (f"; no nearer than that: {', '.join(told[nearer:])}." if told[nearer:] else ".")
    )


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
