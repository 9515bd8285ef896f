"""The arguments of losses and edits as protocols: recipes import neither the data nor the engine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Batch(Protocol):
    """One batch of a stream: inputs [B, ...], labels int64 [B], and their indices in the data int64 [B]."""

    @property
    def images_BCHW(self) -> "Tensor": ...
    @property
    def labels_B(self) -> "Tensor": ...
    @property
    def index_B(self) -> "Tensor": ...


class References(Protocol):
    """Frozen models that a loss or an edit may use: the one that unlearning starts from, and a randomly initialised one."""

    @property
    def original(self) -> "Module": ...
    @property
    def random_init(self) -> "Module": ...


class DataSource(Protocol):
    """The data of a run: labels int64 [N] and, by split, indices int64 into them."""

    @property
    def labels_N(self) -> "Tensor": ...
    @property
    def splits(self) -> "Mapping[str, Tensor]": ...

    def normalised(self, index_B: "Tensor") -> "Tensor":
        """Inputs [B, ...] as the model takes them: uint8 images normalised, other inputs unchanged."""
        ...
