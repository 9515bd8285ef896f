"""The ten methods of the report. A method is a function of numbers that returns a recipe; params.yaml holds the numbers.

Source of all: the report "Efficient Machine Unlearning for Deep Neural Networks" and its notebook. R is an optimizer step on a
retain batch, F one on a forget batch at a negative scale (gradient reversal).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from lethe.recipes.ordering import Alternate, Every, InTurn, Order
from lethe.recipes.recipe import SGD, Phase, Recipe, Term
from lethe.recipes.schedules import Constant, Cosine, Ramp, Schedule, Shape
from lethe.recipes.trainable import Layers, Select, Stages

RETAIN = (Term("retain"),)


def reversal(scale: float | Schedule) -> tuple[Term, ...]:
    return (Term("forget", weight=scale),)


@dataclass(frozen=True)
class Training:
    """What every method's section of params.yaml says about its optimizer steps."""

    lr: float
    lr_schedule: Literal["constant", "cosine"]
    momentum: float
    weight_decay: float
    batch_size: int
    trains: tuple[str, ...]
    batchnorm: Literal["train", "eval_frozen", "eval"]
    keep: Literal["last", "best"]

    def first(self, name: str, epochs: int, terms: tuple[Term, ...], order: Order = InTurn(), **changes: Any) -> Phase:
        """A phase with an optimizer of its own."""
        lr = Cosine(self.lr) if self.lr_schedule == "cosine" else Constant(self.lr)
        said: dict[str, Any] = {
            "lr": lr,
            "trains": Layers(self.trains),
            "optimizer": SGD(self.momentum, self.weight_decay),
            "batchnorm": self.batchnorm,
        }
        return Phase(name, epochs, terms, self.batch_size, order=order, **(said | changes))

    def then(self, name: str, epochs: int, terms: tuple[Term, ...], **changes: Any) -> Phase:
        """A phase that goes on with the running optimizer, at the constant rate."""
        return self.first(name, epochs, terms, **({"optimizer": None, "lr": Constant(self.lr)} | changes))


def model_1(training: Training, epochs: int) -> Recipe:
    """Fine-tune on retain, whole network.

    Word: R R R. Source: report, Model 1 (5 epochs; notebook 100).
    Weakness: nothing pushes the forget images out; what they left in the weights stays."""
    return (training.first("retain", epochs, RETAIN, keep=training.keep),)


def model_2(training: Training, epochs: int) -> Recipe:
    """Fine-tune on retain, head only.

    Word: R R R. Source: report, Model 2 (5 epochs; notebook 100, started from Model 1's result).
    Weakness: as Model 1, and the frozen layers keep everything."""
    return model_1(training, epochs)


def model_3(training: Training, epochs: int, scale: float) -> Recipe:
    """Fine-tune the head on retain, then climb the loss of forget once.

    Word: R R R, and one F F behind the last epoch, same optimizer. Source: report, Model 3 (10 epochs, scale -1).
    Weakness: no repair follows the reversal."""
    return (
        training.first("retain", epochs, RETAIN),
        training.then("reversal", min(1, epochs), reversal(scale), keep=training.keep),
    )


def model_4(training: Training, epochs: int, scale: float) -> Recipe:
    """A pass of retain, then a pass of reversed forget, every epoch.

    Word: R R R R F F. Source: report, Model 4 (10 epochs, scale -0.1).
    Weakness: each epoch ends on damage that the next pass of retain undoes."""
    return (training.first("in_turn", epochs, RETAIN + reversal(scale), InTurn(), keep=training.keep),)


def model_5(training: Training, epochs: int, scale: float | Schedule) -> Recipe:
    """Retain and reversed forget by turns, until forget is used up.

    Word: R F R F. Source: report, Model 5 (50 epochs of 40 pairs, scale -0.5).
    Weakness: sees a ninth of retain an epoch, and loses accuracy everywhere."""
    return (training.first("alternate", epochs, RETAIN + reversal(scale), Alternate(), keep=training.keep),)


def model_6(training: Training, epochs: int, scale: float | Schedule, final_epochs: int) -> Recipe:
    """Model 5, then retain epochs.

    Word: R F R F, in the end R R R. Source: report, Model 6 (50 + 5 epochs, scale -0.5).
    Weakness: the final epochs bring much of forget back."""
    return (
        training.first("alternate", epochs, RETAIN + reversal(scale), Alternate()),
        training.then("final", final_epochs, RETAIN, keep=training.keep),
    )


def hybrid_1(training: Training, epochs: int, peak: float, shape: Shape, power: float) -> Recipe:
    """Model 5 with a scale that grows from 0.

    Word: R F R F. Source: report, Hybrid-1 (50 epochs, linear; peak not stated, notebook -0.6).
    Weakness: ends at the peak with no repair, and loses accuracy everywhere."""
    return model_5(training, epochs, Ramp(peak, shape, power))


def hybrid_2(training: Training, epochs: int, peak: float, shape: Shape, power: float, final_epochs: int) -> Recipe:
    """Model 6 with a scale that grows from 0.

    Word: R F R F, in the end R R R. Source: report, Hybrid-2 (numbers not stated; notebook 50 + 10,
    peak -0.8, "exponential" ran as t ** 2).
    Weakness: as Model 6."""
    return model_6(training, epochs, Ramp(peak, shape, power), final_epochs)


def hybrid_3(training: Training, epochs: int, peak: float, shape: Shape, power: float, repair_every: int, final_epochs: int) -> Recipe:
    """All of retain with two reversed forget batches behind each until forget is used up; a repair pass now and then; retain epochs.

    Word: R F F R F F R R R, behind every 10th epoch also R R R R R; in the end R R R. Source: report, Hybrid-3 (numbers not stated;
    notebook 50 + 10, peak -1, t ** 2, head only).
    Weakness: the head alone forgets; what the frozen layers know of forget stays."""
    return _hybrid(training, Layers(training.trains), epochs, Ramp(peak, shape, power), repair_every, final_epochs)


def hybrid_4(
    training: Training,
    epochs: int,
    peak: float,
    shape: Shape,
    power: float,
    repair_every: int,
    final_epochs: int,
    unfreeze: tuple[str, ...],
    unfreeze_at: float,
) -> Recipe:
    """Hybrid-3; from a share of its epochs on, early layers train too.

    Word: as Hybrid-3. Source: report, Hybrid-4 (layer1 and layer2 from 30 % on; notebook 50 + 10, peak -1, t ** 2).
    Weakness: at the report's numbers it over-forgets: forget accuracy far below a retrained model's."""
    everyone = Layers(training.trains + unfreeze)
    stages = Stages(((0.0, Layers(training.trains)), (unfreeze_at, everyone)))
    return _hybrid(training, stages, epochs, Ramp(peak, shape, power), repair_every, final_epochs, everyone)


def _hybrid(
    training: Training, trains: Select, epochs: int, ramp: Ramp, repair_every: int, final_epochs: int, finally_: Select | None = None
) -> Recipe:
    order = Every(repair_every, Alternate(2, "longest"))
    return (
        training.first("hybrid", epochs, RETAIN + reversal(ramp), order, trains=trains),
        training.then("final", final_epochs, RETAIN, trains=finally_ or trains, keep=training.keep),
    )


METHODS: dict[str, Callable[..., Recipe]] = {
    function.__name__: function
    for function in (model_1, model_2, model_3, model_4, model_5, model_6, hybrid_1, hybrid_2, hybrid_3, hybrid_4)
}

# the report's own, whatever else is registered
TEN = (*(f"model_{n}" for n in range(1, 7)), *(f"hybrid_{n}" for n in range(1, 5)))


def as_run(training: Training, share: float) -> dict[str, Recipe]:
    """The notebook's chain: ten runs, each from the result before it, with the faults it had: HEAD alone
    trains from Model 2 on, Model 3 reverses in BatchNorm's eval mode, Hybrid-4 begins with layer1 and layer2 unfrozen.

    The numbers are the notebook's, so they stand here and not in params.yaml; `share` multiplies the epochs (1: the notebook's)."""

    def part(epochs: int) -> int:
        return max(1, round(epochs * share))

    head = training
    whole = replace(training, trains=("all",))
    cosine: dict[str, Any] = {"lr_schedule": "cosine"}
    thawed = replace(head, trains=("layer1", "layer2", *head.trains))  # the second optimizer was built after unfreezing
    quadratic: dict[str, Any] = {"shape": "power", "power": 2.0}
    hybrid: dict[str, Any] = {"epochs": part(50), "peak": -1.0, **quadratic, "repair_every": 10, "final_epochs": part(10)}
    half = replace(head, **cosine).first("retain", part(50), RETAIN)
    return {
        "model_1": model_1(replace(whole, **cosine), part(100)),
        "model_2": model_2(replace(head, **cosine), part(100)),
        "model_3": (
            replace(head, **cosine).first("retain", part(60), RETAIN),
            head.then("reversal", 1, reversal(-1.0), batchnorm="eval"),
        ),
        "model_4": (half, head.first("in_turn", part(50), RETAIN + reversal(-0.3))),
        "model_5": model_5(head, part(100), -0.4),
        "model_6": model_6(head, part(100), -0.6, part(15)) + model_6(head, part(100), -0.5, part(5)),
        "hybrid_1": hybrid_1(head, part(50), -0.6, "linear", 1.0),
        "hybrid_2": hybrid_2(head, part(50), -0.8, **quadratic, final_epochs=part(10)),
        "hybrid_3": hybrid_3(head, **hybrid),
        "hybrid_4": hybrid_3(thawed, **hybrid),
    }
