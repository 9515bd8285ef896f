"""One-shot writes to the weights: values that are called with (model, data, refs)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


class Edit(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None: ...


@dataclass(frozen=True)
class Reinitialise:
    """Set every weight and buffer to a randomly initialised network's: the start of training from scratch."""

    name: str = "reinitialise"

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        model.load_state_dict(refs.random_init.state_dict())
