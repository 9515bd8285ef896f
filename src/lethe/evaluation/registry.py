"""Registry of measures: what a measure declares, and how one is added here or by another package.

    @lethe.register_measure(id="confidence.forget", about="mean probability of the true class on forget")
    def confidence(context: EvaluationContext) -> Estimate:
        return context.mean(np.exp(context.model.log_p[context.rows("forget")]))

A measure of another package is found by an entry point in the group `lethe.measures`, or named by the key `run.measures` as
`package.module:function`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from lethe._util import plugins
from lethe._util.errors import InsufficientData, UserError
from lethe.evaluation import uncertainty
from lethe.evaluation.context import Estimates, EvaluationContext
from lethe.evaluation.logits_table import SHADOWS, SWAPPED
from lethe.evaluation.uncertainty import Estimate, Range

ENTRY_POINTS = "lethe.measures"
TIERS = {0: 0, 1: 1, 2: 8, 3: 64}  # tier -> fewest retrained models (and unlearned ones, for measures of several)

# Targets that are not a number known in advance
REFERENCE = "value of the retrained model"
HELD_OUT = "value of a held-out retrained model"
BETWEEN = "value between two retrained models"
HALVES = "value between two halves of the bank"
CHANCE = "chance level"
SMALL = "small"

MeasureFunction = Callable[[EvaluationContext], Estimate | Estimates]
Function = TypeVar("Function", bound=MeasureFunction)


def _has_column(name: str) -> Callable[[EvaluationContext], bool]:
    return lambda context: all(name in table.columns for table in (context.model, *context.references))


def _model_has_column(name: str) -> Callable[[EvaluationContext], bool]:
    return lambda context: name in context.model.columns


# need -> its description, whether a context meets it. "unlearned" (several models of the method) is counted, see Measure.missing
NEEDS: dict[str, tuple[str, Callable[[EvaluationContext], bool]]] = {
    "original": ("the original's logits table", lambda context: context.original is not None),
    "swapped": ("a second original and the model that forgot other images from it (evaluate.swap)", _model_has_column(SWAPPED)),
    "shadows": ("models unlearned on other requests (evaluate.shadows)", _model_has_column(SHADOWS[0])),
    "cost": ("the wall-clock time of unlearning", lambda context: context.cost is not None),
    "work": (
        "the counted work of unlearning",
        lambda context: context.cost is not None and context.cost.flops is not None,
    ),
    "retrain_cost": (
        "the counted work of unlearning and of retraining",
        lambda context: context.cost is not None and context.cost.share_of_retrain is not None,
    ),
    "memory": (
        "a device that reports its peak memory",
        lambda context: context.cost is not None and context.cost.peak_bytes is not None,
    ),
    "probe": ("logits tables with the column probe, of models that end in a linear layer", _has_column("probe")),
    "residual": ("logits tables with the column residual", _has_column("residual")),
    "features": ("logits tables with the column features (evaluate.features)", _has_column("features")),
    "relearn": ("logits tables with the column relearn (evaluate.relearn)", _has_column("relearn")),
}


@dataclass(frozen=True)
class Measure:
    """A measure: a function of an EvaluationContext, and what it declares.

    Attributes:
        id: name in score files, MLflow and the documentation, e.g. `mia.svc`.
        about: what it is, in one sentence, with its unit.
        target: the ideal value: a number, or whose value it is (REFERENCE, HELD_OUT, BETWEEN, HALVES, CHANCE, SMALL).
        function: computes one Estimate, or a dict from part to Estimate; part `p` is stored under `<id>.<p>`.
        min_references: fewest retrained models; also fewest unlearned models if "unlearned" is among `needs`. With "shadows" it
            counts models unlearned on other requests instead, and no retrained model is needed.
        needs: what else the context must hold: keys of NEEDS, or "unlearned".
        parts: all parts that it may return; empty for a single number.
        interval: what its confidence interval is taken over; "" for none.
        source: the paper.
        bounds: smallest and largest possible value, one pair or one for each part: no interval reaches beyond.
    """

    id: str
    about: str
    target: float | str
    function: MeasureFunction
    min_references: int = 0
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    interval: str = uncertainty.EXAMPLES
    source: str = ""
    bounds: Range | Mapping[str, Range] = uncertainty.UNBOUNDED

    @property
    def tier(self) -> int:
        """The lowest tier whose number of models suffices."""
        return min((tier for tier, fewest in TIERS.items() if fewest >= self.min_references), default=max(TIERS))

    @property
    def of_several(self) -> bool:
        """Whether it describes several models of a method rather than one."""
        return bool({"unlearned", "shadows"} & {*self.needs})

    @property
    def depends_on_machine(self) -> bool:
        """Whether equal runs may differ in it; then it is logged to MLflow only, so that score files stay reproducible to the byte."""
        return bool({"cost", "work", "retrain_cost", "memory"} & {*self.needs})

    def part_id(self, part: str) -> str:
        """The id of one part; the measure's own id for the part ""."""
        return f"{self.id}.{part}" if part else self.id

    def bounds_of(self, part: str) -> Range:
        """Smallest and largest possible value of a part."""
        return self.bounds.get(part, uncertainty.UNBOUNDED) if isinstance(self.bounds, Mapping) else self.bounds

    def missing(self, context: EvaluationContext) -> str:
        """Describe what the measure needs and the context lacks; "" if nothing is missing."""
        fewest = self.min_references
        references, models = len(context.references), "models" if fewest > 1 else "model"
        if "unlearned" in self.needs:
            unlearned = len(context.unlearned) or 1
            if min(references, unlearned) < fewest:
                return f"needs at least {fewest} retrained and {fewest} unlearned {models}; {references} and {unlearned} available"
        elif "shadows" in self.needs:
            shadows = context.model.columns[SHADOWS[0]].shape[1] if NEEDS["shadows"][1](context) else 0
            if shadows < fewest:
                return f"needs at least {fewest} models unlearned on other requests (evaluate.shadows); {shadows} available"
        elif references < fewest:
            return f"needs at least {fewest} retrained {models}; {references} available"
        unmet = [NEEDS[need][0] for need in self.needs if need in NEEDS and not NEEDS[need][1](context)]
        return f"needs {' and '.join(unmet)}" if unmet else ""

    def __call__(self, context: EvaluationContext) -> Estimates | str:
        """Compute the measure: part -> estimate, or a sentence that says what is missing."""
        return self.missing(context) or self.compute(context)

    def compute(self, context: EvaluationContext) -> Estimates | str:
        """The same for a context in which nothing is missing; a sentence if it holds too few images."""
        try:
            result = self.function(context)
        except InsufficientData as error:
            return str(error)
        parts = result if isinstance(result, dict) else {"": result}
        return {part: estimate.within(self.bounds_of(part)) for part, estimate in parts.items()}


_REGISTERED: dict[str, Measure] = {}


def register_measure(
    *,
    id: str,
    about: str,
    target: float | str = REFERENCE,
    min_references: int = 0,
    needs: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
    interval: str = uncertainty.EXAMPLES,
    source: str = "",
    bounds: Range | Mapping[str, Range] = uncertainty.UNBOUNDED,
) -> Callable[[Function], Function]:
    """Declare the decorated function as a measure: score files, MLflow, the report and the card then include it.

    The function takes an EvaluationContext and returns an Estimate, or a dict from part to Estimate; it raises InsufficientData, with
    what it needs, if there are too few images.

    Args:
        id: name in score files, MLflow and the documentation, e.g. `mia.svc`.
        about: what it is, in one sentence, with its unit.
        target: the ideal value: a number, or whose value it is (REFERENCE, HELD_OUT, BETWEEN, HALVES, CHANCE, SMALL).
        min_references: fewest retrained models; also fewest unlearned models if "unlearned" is among `needs`. With "shadows" it counts
            models unlearned on other requests instead, and no retrained model is needed.
        needs: what else the context must hold: keys of NEEDS, or "unlearned".
        parts: all parts that it may return; empty for a single number.
        interval: what its confidence interval is taken over; "" for none.
        source: the paper.
        bounds: smallest and largest possible value, one pair or one for each part: no interval reaches beyond.

    Returns:
        A decorator that returns the function unchanged, so one function can be registered several times (with functools.partial).

    Raises:
        UserError: a need is unknown; from the decorator, if the id belongs to another function already.
    """
    unknown = [need for need in needs if need not in (*NEEDS, "unlearned")]
    if unknown:
        raise UserError(f"measure {id}: needs names {', '.join(unknown)}; it takes {', '.join((*NEEDS, 'unlearned'))}")

    def register(function: Function) -> Function:
        measure = Measure(id, about, target, function, min_references, needs, parts, interval, source, bounds)
        taken = _REGISTERED.get(id)
        if taken and _where(taken.function) != _where(function):
            raise UserError(f"measure {id} is registered twice: by {_where(taken.function)} and by {_where(function)}")
        _REGISTERED[id] = measure
        return function

    return register


def _where(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a functools.partial
    return f"{getattr(inner, '__module__', '')}:{getattr(inner, '__qualname__', type(inner).__qualname__)}"


def registered() -> tuple[Measure, ...]:
    """All measures in the order of their registration, those of installed packages (entry points) included."""
    find_installed()
    return tuple(_REGISTERED.values())


def load(reference: str, key: str = "run.measures") -> None:
    """Import a function that registers itself as a measure.

    Args:
        reference: `package.module:function`; the current folder is on the path.
        key: the key that names it, for error messages.

    Raises:
        UserError: it can't be imported, or is not registered.
    """
    function = plugins.import_reference(reference, key)
    if _where(function) not in {_where(measure.function) for measure in _REGISTERED.values()}:
        raise UserError(f"{key} is {reference!r}; it takes package.module:function of a function decorated with lethe.register_measure")


@cache
def find_installed() -> None:
    """Import the measures of installed packages: their entry points in the group `lethe.measures`."""
    for name, entry in plugins.installed(ENTRY_POINTS).items():
        load(entry.value, f"entry point {name} of {ENTRY_POINTS}")


def highest_tier(references: int, unlearned: int | None = None) -> int:
    """Find the highest tier that a number of models reaches.

    Args:
        references: number of retrained models.
        unlearned: number of unlearned models; tier 3 takes as many of them as of retrained ones. None: they do not limit the tier.

    Returns:
        A key of TIERS.
    """
    reached = max(tier for tier, fewest in TIERS.items() if references >= fewest)
    return min(reached, 2) if reached == 3 and unlearned is not None and unlearned < TIERS[3] else reached
