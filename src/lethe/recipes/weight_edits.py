"""Edits: one-shot changes of a model's weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


class Edit(Protocol):
    """A change of the weights between phases; a frozen dataclass, so that `recipe.parse` can read its repr."""

    @property
    def name(self) -> str:
        """Shown in epoch tables and messages."""
        ...

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        """Change the model in place.

        Args:
            model: the network.
            data: examples by split.
            refs: frozen models to compare with or to copy from.
        """
        ...


@dataclass(frozen=True)
class Reinitialise:
    """Set every weight and buffer to a randomly initialised network's: the start of training from scratch."""

    name: str = "reinitialise"

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        model.load_state_dict(refs.random_init.state_dict())
