"""The optimizer settings that methods share, and the phases made with them."""

from dataclasses import dataclass
from typing import Any

from lethe._util.errors import UserError
from lethe.recipes.optimizers import SGD, Adam, AdamW, OptimizerRecipe
from lethe.recipes.ordering import InTurn, Order
from lethe.recipes.parameters import (
    Augmentation,
    BatchNormMode,
    BatchSize,
    EarlierCheckpoint,
    ForgetLearningRate,
    ForgetOptimizer,
    Keep,
    LearningRate,
    LearningRateSchedule,
    Momentum,
    NegatedLayers,
    Noise,
    OptimizerName,
    ReinitialisedLayers,
    ReinitShare,
    StopRule,
    Trains,
    WarmUpShare,
    WeightDecay,
)
from lethe.recipes.recipe import Augment, Edit, Phase, Recipe, Term, last_epoch
from lethe.recipes.schedules import Constant, Cosine, Part, Schedule, WarmUp
from lethe.recipes.stopping import LossOfUnseen
from lethe.recipes.trainable import Layers
from lethe.recipes.weight_edits import AddNoise, Negate, ReinitialiseLayers, Rewind

RESIZED, SMALLEST_PART = "resized_crop", 0.08  # the share of torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Training:
    """Optimizer settings. If a method has a parameter of this type, its section of params.yaml has these fields as arguments.

    A section may leave out the arguments that have a default here."""

    lr: LearningRate
    lr_schedule: LearningRateSchedule
    momentum: Momentum
    weight_decay: WeightDecay
    batch_size: BatchSize
    trains: Trains
    batchnorm: BatchNormMode
    keep: Keep
    optimizer: OptimizerName = "sgd"
    warmup: WarmUpShare = 0.0
    augment: Augmentation = ()
    forget_optimizer: ForgetOptimizer = "none"
    forget_lr: ForgetLearningRate = 0.0001
    negate: NegatedLayers = ()
    reinit: ReinitialisedLayers = ()
    reinit_share: ReinitShare = 1.0
    noise: Noise = 0.0
    stop: StopRule = "none"
    rewind: EarlierCheckpoint = ""

    @property
    def schedule(self) -> Schedule:
        """The learning rate of the first phase."""
        schedule = Cosine(self.lr) if self.lr_schedule == "cosine" else Constant(self.lr)
        return WarmUp(self.warmup, schedule) if self.warmup else schedule

    def first(self, name: str, epochs: int, terms: tuple[Term, ...], order: Order = InTurn(), **changes: Any) -> Phase:
        """Make a phase with a new optimizer.

        Args:
            name: of the phase, in epoch tables and messages.
            epochs: number of epochs.
            terms: losses, by stream.
            order: how batches of the streams follow each other.
            **changes: further fields of Phase; they override the settings.

        Returns:
            The phase; forget_optimizer and stop of the settings are left out where no term is on forget.
        """
        settings: dict[str, Any] = {
            "lr": self.schedule,
            "trains": Layers(self.trains),
            "optimizer": self._optimizer(self.optimizer),
            "batchnorm": self.batchnorm,
            "augment": augmentation(self.augment),
            "lr_steps": "batch" if self.warmup else "epoch",
        }
        if self.forget_optimizer != "none" and any(term.stream == "forget" for term in terms):
            settings |= {"forget_optimizer": self._optimizer(self.forget_optimizer), "forget_lr": Constant(self.forget_lr)}
        if self.stop == "unseen" and any(term.stream == "forget" for term in terms):
            settings |= {"stop": LossOfUnseen()}
        return Phase(name, epochs, terms, self.batch_size, order=order, **(settings | changes))

    def then(self, name: str, epochs: int, terms: tuple[Term, ...], **changes: Any) -> Phase:
        """Make a phase that keeps the running optimizer with its momentum, at the constant learning rate `lr`.

        Args:
            name: of the phase, in epoch tables and messages.
            epochs: number of epochs.
            terms: losses, by stream.
            **changes: `order`, or further fields of Phase; they override the settings.

        Returns:
            The phase.
        """
        return self.first(name, epochs, terms, **({"optimizer": None, "lr": Constant(self.lr), "lr_steps": "epoch"} | changes))

    def part(
        self, name: str, passes: float, start: float, stop: float, terms: tuple[Term, ...], epochs: int | None = None, **changes: Any
    ) -> Phase:
        """Make a phase of a run that has one optimizer and one schedule of the learning rate, followed per batch, over all its phases.

        Args:
            name: of the phase, in epoch tables and messages.
            passes: over the leading stream, of the whole run; may be a fraction.
            start: share of the run at which the phase begins; at 0 it gets a new optimizer.
            stop: share of the run at which it ends.
            terms: losses, by stream.
            epochs: into how many the phase is divided; None: about one for each pass.
            **changes: `order`, or further fields of Phase; they override the settings.

        Returns:
            The phase, whose epochs are equal parts of its share of the passes.
        """
        own = passes * (stop - start)
        number = epochs or max(1, round(own))
        lr = self.schedule if (start, stop) == (0, 1) else Part(self.schedule, start, stop)
        settings: dict[str, Any] = {"lr": lr, "lr_steps": "batch", "part": own / number} | ({"optimizer": None} if start else {})
        return self.first(name, number, terms, **(settings | changes))

    def complete(self, recipe: Recipe) -> Recipe:
        """Put the edits that the settings ask for before a method's phases and edits; a recipe without an epoch or an edit stays as it is.

        Args:
            recipe: what the method returned.
        """
        edits: list[Edit] = []
        if self.rewind:
            edits.append(Rewind(*self.rewind.rsplit("@", 1)))
        if self.negate:
            edits.append(Negate(self.negate))
        if self.reinit:
            edits.append(ReinitialiseLayers(self.reinit, init="fresh_init", share=self.reinit_share))
        if self.noise:
            edits.append(AddNoise(self.noise))
        return (*edits, *recipe) if last_epoch(recipe) else recipe

    def _optimizer(self, name: str) -> OptimizerRecipe:
        return optimizer(name, self.momentum, self.weight_decay)


def optimizer(name: str, momentum: float, weight_decay: float) -> OptimizerRecipe:
    """An optimizer by its name in the configuration.

    Args:
        name: sgd, adam or adamw.
        momentum: of SGD; the others have betas of 0.9 and 0.999.
        weight_decay: of each one's own kind.

    Returns:
        What the engine builds the optimizer from; the learning rate is the schedule's.
    """
    if name == "sgd":
        return SGD(momentum, weight_decay)
    return Adam(weight_decay) if name == "adam" else AdamW(weight_decay)


def augmentation(names: tuple[str, ...], streams: tuple[Any, ...] | None = None) -> Augment | None:
    """The augmentation of a list of names: flip, crop with the pixels of its padding, or resized_crop with the smallest share of the area.

    Args:
        names: such as ("crop4", "flip") or ("resized_crop0.5",); empty: none.
        streams: those that are augmented; None: all.

    Returns:
        None for an empty list: images are taken as they are.

    Raises:
        UserError: several kinds of crop are named.
    """
    if len(crops := [name for name in names if name != "flip"]) > 1:
        raise UserError(f"augment is {','.join(names)}; it takes one kind of crop: {' or '.join(crops)}")
    crop = max((int(name.removeprefix("crop")) for name in names if name.startswith("crop")), default=0)
    resized = next((float(name.removeprefix(RESIZED) or SMALLEST_PART) for name in names if name.startswith(RESIZED)), None)
    return Augment(crop, "flip" in names, streams, resized) if names else None
