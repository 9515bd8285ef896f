"""Score of a model: the content of scores/<run>.json, and how it is computed from a logits table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lethe._util import integrity, manifest
from lethe._util.errors import UserError
from lethe.data.splits import SPLITS
from lethe.evaluation import catalogue, registry, row_blocks
from lethe.evaluation.chance import chance_range
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.registry import Measure
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict import words
from lethe.evaluation.verdict.judge import judge
from lethe.evaluation.verdict.words import REFERENCE_UNFIT, Verdict

FORMAT = 1  # of score files; written into them from version 2 on, so that files of version 1 keep their bytes
DIGITS = 6  # of numbers in score files


@dataclass(frozen=True)
class MeasureResult:
    """Result of one measure (or of one part of it).

    Attributes:
        estimate: the value and its interval; None if it could not be computed.
        missing: what it needs, if it could not be computed.
        reference: what retrained models score, if that is the measure's target.
    """

    estimate: Estimate | None
    missing: str = ""
    reference: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Entry of a score file."""
        if self.estimate is None:
            return {"missing": self.missing}
        reference = {"reference": _estimate_to_json(self.reference)} if self.reference else {}
        return _estimate_to_json(self.estimate) | reference

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "MeasureResult":
        """Read an entry of a score file."""
        if "value" not in entry:
            return cls(None, str(entry.get("missing", "")))
        return cls(_estimate_from_json(entry), "", _estimate_from_json(entry["reference"]) if "reference" in entry else None)


@dataclass(frozen=True)
class SeedScore:
    """What the score of several seeds keeps of each.

    Attributes:
        accuracy: percent, by split.
        over_forgetting: the alarm, "" if there is none.
        distance: accuracy minus that of the retrained model of the same seed, in points, by split; empty without one.
    """

    accuracy: Mapping[str, float]
    over_forgetting: str = ""
    distance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """All measures of a model, or the means over the models of several seeds of a method.

    Attributes:
        accuracy: percent, by split.
        loss: cross-entropy in nats, by split.
        gap: retain minus forget accuracy, in points.
        measures: id -> result.
        tier: the highest tier that the number of models reaches.
        references: number of retrained models that it was compared with.
        distance: for several seeds: accuracy minus the retrained model's, paired by seed, in points, by split.
        seeds: for several seeds: each seed's own.
        tables: short hashes of the logits tables that it was computed from.
        unfit: why the retrained model that exists is no reference, in one line; it was then compared with none. "" otherwise.
        judged: whether it can be distinguished from retrained models; None where there are none, and in files of earlier versions.
        contents: short hash of everything in those tables; "" in files of earlier versions.
    """

    accuracy: Mapping[str, float]
    loss: Mapping[str, float] = field(default_factory=dict)
    gap: float = 0.0
    measures: Mapping[str, MeasureResult] = field(default_factory=dict)
    tier: int = 0
    references: int = 0
    distance: Mapping[str, Estimate] = field(default_factory=dict)
    seeds: Mapping[int, SeedScore] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    unfit: str = ""
    judged: Verdict | None = None
    contents: str = ""

    # --- files ----------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Content of the score file."""
        content: dict[str, Any] = {} if FORMAT == 1 else {"format": FORMAT}
        content |= {"accuracy": dict(self.accuracy), "loss": dict(self.loss), "gap": self.gap}
        content["measures"] = {id_: result.to_json() for id_, result in self.measures.items()}
        content |= {"tier": self.tier, "references": self.references}
        if self.distance:
            content["distance"] = {split: _estimate_to_json(each) for split, each in self.distance.items()}
        if self.seeds:
            content["seeds"] = {str(seed): _seed_to_json(one) for seed, one in self.seeds.items()}
        if self.unfit:
            content |= {"verdict": REFERENCE_UNFIT, REFERENCE_UNFIT: self.unfit}
        elif self.judged:
            content |= {"verdict": self.judged.word, "judged": self.judged.to_json()}
        content |= {"of": dict(self.tables)} if self.tables else {}
        return integrity.sealed(content | ({"contents": self.contents} if self.contents else {}))

    @classmethod
    def from_json(cls, content: Any, name: str) -> "Score":
        """Read the content of a score file.

        Args:
            content: the parsed JSON.
            name: of the file, for the error message.

        Returns:
            The score; what files of earlier formats lack is empty.

        Raises:
            UserError: it is no score file, one of a later format, or not as it was written; names it.
        """
        if isinstance(content, dict) and content.get("format", 1) > FORMAT:
            raise UserError(f"{name} has format {content['format']}; this version reads score files up to format {FORMAT}")
        try:
            integrity.check_json(content, name)
            return cls(
                accuracy=_numbers(content["accuracy"]),
                loss=_numbers(content.get("loss", {})),
                gap=float(content.get("gap", 0.0)),
                measures={id_: MeasureResult.from_json(entry) for id_, entry in content.get("measures", {}).items()},
                tier=int(content.get("tier", 0)),
                references=int(content.get("references", 0)),
                distance={split: _estimate_from_json(each) for split, each in content.get("distance", {}).items()},
                seeds={
                    int(seed): SeedScore(_numbers(one["accuracy"]), one.get("over_forgetting", ""), _numbers(one.get("distance", {})))
                    for seed, one in content.get("seeds", {}).items()
                },
                tables=content.get("of", {}),
                contents=str(content.get("contents", "")),
                unfit=str(content.get(REFERENCE_UNFIT, "")),
                judged=Verdict.from_json(content["verdict"], content["judged"]) if "judged" in content else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"is not a score file: it does not hold the accuracies by split ({error!r})"
            raise manifest.unreadable(Path(name), reason) from None

    # --- what it shows --------------------------------------------------------------------------------------------------

    def value(self, id_: str) -> float | None:
        """Value of a measure; None if it was not computed."""
        result = self.measures.get(id_)
        return result.estimate.value if result and result.estimate else None

    @property
    def verdict(self) -> Verdict | None:
        """Whether it can be distinguished from retrained models; None if there is nothing to compare with."""
        return Verdict(REFERENCE_UNFIT, self.unfit) if self.unfit else self.judged

    @property
    def over_forgetting(self) -> str:
        """The alarm: what is outside the references' interval on the side of over-forgetting, in words; "" if nothing is.

        Where there is a verdict, it decides whether there is an alarm. For several seeds it is that of their mean, with the number of
        seeds that raise it."""
        if self.judged and self.judged.word != words.OVER_FORGETS:
            return ""
        texts = []
        for id_, name, below in (("accuracy.forget", "forget accuracy", True), ("mia.over", "mia.over", False)):
            result = self.measures.get(id_)
            if result and result.estimate and result.reference and result.reference.low is not None:
                low, high = chance_range(result.estimate, result.reference)
                value = result.estimate.value
                if value < low if below else value > high:
                    texts.append(f"{name} {value:.4g} is {f'below {low:.4g}' if below else f'above {high:.4g}'}")
        if not texts and self.judged:
            return self.judged.because
        if not texts:
            return ""
        seeds = sum(bool(one.over_forgetting) for one in self.seeds.values())
        return " and ".join(texts) + (f" (so are {seeds} of {len(self.seeds)} seeds)" if self.seeds else "")

    @property
    def alarm(self) -> str | None:
        """`over_forgetting`; None if there is neither a verdict nor an interval of a retrained model to decide by."""
        if self.judged:
            return self.over_forgetting
        result = self.measures.get("accuracy.forget")
        known = bool(result and result.reference and result.reference.low is not None)
        return self.over_forgetting if known else None

    def distances(self, reference: "Score") -> dict[str, float]:
        """Signed distance of the accuracies from the retrained model, in points, as `<split>.distance`.

        Relative to the bank's mean if there is a bank; paired by seed if there are several; otherwise to `reference`. Empty if unfit."""
        if self.unfit:
            return {}
        measured = {metric_name(id_): value for split in SPLITS if (value := self.value(id_ := f"distance.{split}")) is not None}
        if self.references > 1:
            return measured
        if self.distance:
            return {f"{split}.distance": each.value for split, each in self.distance.items()}
        shared = [split for split in self.accuracy if split in reference.accuracy]
        # the measure first: a difference of two rounded accuracies may differ from it in the last digit
        return {f"{split}.distance": round(self.accuracy[split] - reference.accuracy[split], DIGITS) for split in shared} | measured

    def metrics(self) -> dict[str, float]:
        """MLflow metrics that a finished run logs once: test accuracy and loss, and every measure.

        Accuracies on the other splits are left out, as they are logged by epoch."""
        both = {"accuracy": self.accuracy, "loss": self.loss}
        metrics = {f"test.{kind}": values["test"] for kind, values in both.items() if "test" in values}
        for id_, result in self.measures.items():
            if result.estimate and not id_.startswith("accuracy."):
                metrics[metric_name(id_)] = result.estimate.value
        return metrics


def metric_name(id_: str) -> str:
    """A measure's name in MLflow: `<split>.<measure>` for a measure of a split, so that the UI groups metrics by split.

    >>> metric_name("distance.forget"), metric_name("klom.forget.p95"), metric_name("mia.svc")
    ('forget.distance', 'forget.klom.p95', 'mia.svc')
    """
    parts = id_.split(".")
    split = next((part for part in parts if part in SPLITS), None)
    return ".".join([split, *(part for part in parts if part != split)]) if split else id_


def score_model(
    model: LogitsTable,
    references: Sequence[LogitsTable] = (),
    original: LogitsTable | None = None,
    unlearned: Sequence[LogitsTable] = (),
    at_random: bool = False,
) -> Score:
    """Compute all measures of a model.

    Args:
        model: its logits table.
        references: tables of retrained models, without this one.
        original: table of the model that unlearning started from.
        unlearned: tables of the same method's models, one per seed, including this one.
        at_random: whether the forget images were drawn at random from those of their classes (`judge`).

    Returns:
        The score, with a verdict if there are references. Measures that cannot be computed say what they need.

    Raises:
        UserError: the tables are of different images, labels, classes or splits.
    """
    accuracy, loss = accuracy_and_loss(model)
    context = EvaluationContext(model, references, original, unlearned)
    return Score(
        accuracy,
        loss,
        round(accuracy["retain"] - accuracy["forget"], DIGITS),
        measure_results(context, [each for each in catalogue.all_measures() if not each.depends_on_machine]),
        registry.highest_tier(len(references), len(unlearned) or 1),
        len(references),
        judged=judge([model], references, original, at_random) if references else None,
    )


def accuracy_and_loss(model: LogitsTable) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy in percent and cross-entropy in nats, by split."""
    import torch

    from lethe.evaluation import metrics

    accuracy, loss = {}, {}
    for split in SPLITS:
        rows = model.rows(split)
        if len(rows):
            parts = (
                (torch.from_numpy(row_blocks.gather(model.logits, part)), torch.from_numpy(model.labels[part]))
                for part in row_blocks.parts(rows, model.logits)
            )
            accuracy[split] = round(100.0 * int(model.correct[rows].sum()) / len(rows), DIGITS)
            loss[split] = round(metrics.cross_entropy_of(len(rows), parts), DIGITS)
    return accuracy, loss


def measure_results(context: EvaluationContext, only: Iterable[Measure]) -> dict[str, MeasureResult]:
    """Compute measures of a model, rounded, each with what retrained models score if that is its target.

    Args:
        context: the model and what it is compared with.
        only: the measures to compute.

    Returns:
        Id (`<measure>` or `<measure>.<part>`) -> result; without an estimate if the measure lacks something.
    """
    references, results = catalogue.measure_references(context), {}
    for id_, result in catalogue.measure_model(context, only).items():
        if isinstance(result, str):
            results[id_] = MeasureResult(None, result)
        else:
            results[id_] = MeasureResult(rounded(result), "", rounded(references[id_]) if id_ in references else None)
    return results


def rounded(estimate: Estimate) -> Estimate:
    """An estimate with as many digits as score files have."""
    value, low, high = (None if number is None else round(number, DIGITS) for number in (estimate.value, estimate.low, estimate.high))
    assert value is not None
    return Estimate(value, low, high, estimate.interval, estimate.models)


def _estimate_to_json(estimate: Estimate) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": estimate.value}
    if estimate.low is not None and estimate.high is not None:
        entry |= {"low": estimate.low, "high": estimate.high, "interval": estimate.interval}
    return entry | ({"models": estimate.models} if estimate.models > 1 else {})


def _estimate_from_json(entry: Mapping[str, Any]) -> Estimate:
    return Estimate(entry["value"], entry.get("low"), entry.get("high"), entry.get("interval", ""), entry.get("models", 1))


def _seed_to_json(one: SeedScore) -> dict[str, Any]:
    entry: dict[str, Any] = {"accuracy": dict(one.accuracy), "over_forgetting": one.over_forgetting}
    return entry | ({"distance": dict(one.distance)} if one.distance else {})


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {split: float(value) for split, value in entry.items()}
