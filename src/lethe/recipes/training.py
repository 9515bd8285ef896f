"""The optimizer settings that methods share, and the phases made with them."""

from dataclasses import dataclass
from typing import Any

from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import InTurn, Order
from lethe.recipes.parameters import BatchNormMode, BatchSize, Keep, LearningRate, LearningRateSchedule, Momentum, Trains, WeightDecay
from lethe.recipes.recipe import Phase, Term
from lethe.recipes.schedules import Constant, Cosine
from lethe.recipes.trainable import Layers


@dataclass(frozen=True)
class Training:
    """Optimizer settings. If a method has a parameter of this type, its section of params.yaml has these fields as arguments."""

    lr: LearningRate
    lr_schedule: LearningRateSchedule
    momentum: Momentum
    weight_decay: WeightDecay
    batch_size: BatchSize
    trains: Trains
    batchnorm: BatchNormMode
    keep: Keep

    def first(self, name: str, epochs: int, terms: tuple[Term, ...], order: Order = InTurn(), **changes: Any) -> Phase:
        """Make a phase with a new optimizer.

        Args:
            name: of the phase, in epoch tables and messages.
            epochs: number of epochs.
            terms: losses, by stream.
            order: how batches of the streams follow each other.
            **changes: further fields of Phase; they override the settings.
        """
        settings: dict[str, Any] = {
            "lr": Cosine(self.lr) if self.lr_schedule == "cosine" else Constant(self.lr),
            "trains": Layers(self.trains),
            "optimizer": SGD(self.momentum, self.weight_decay),
            "batchnorm": self.batchnorm,
        }
        return Phase(name, epochs, terms, self.batch_size, order=order, **(settings | changes))

    def then(self, name: str, epochs: int, terms: tuple[Term, ...], **changes: Any) -> Phase:
        """Make a phase that keeps the running optimizer with its momentum, at the constant learning rate `lr`.

        Args:
            name: of the phase, in epoch tables and messages.
            epochs: number of epochs.
            terms: losses, by stream.
            **changes: `order`, or further fields of Phase; they override the settings.
        """
        return self.first(name, epochs, terms, **({"optimizer": None, "lr": Constant(self.lr)} | changes))
