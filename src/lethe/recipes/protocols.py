"""The arguments of losses and edits as protocols: recipes import neither the data nor the engine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Batch(Protocol):
    """One batch of a stream: inputs [B, ...], labels int64 [B], and their indices in the data int64 [B].

    features_BD: what the network's head takes for them, for a loss with `of_features`."""

    @property
    def images_BCHW(self) -> "Tensor":
        """Inputs as the model takes them, [B, ...]."""
        ...

    @property
    def labels_B(self) -> "Tensor":
        """Classes, int64 [B]."""
        ...

    @property
    def index_B(self) -> "Tensor":
        """Positions in the data, int64 [B]."""
        ...

    @property
    def features_BD(self) -> "Tensor | None":
        """What the head takes, [B, D]; None unless the loss has `of_features`."""
        ...

    def of(self, images_BCHW: "Tensor", labels_B: "Tensor", index_B: "Tensor") -> "Batch":
        """Make a batch of other examples.

        Args:
            images_BCHW: inputs as the model takes them, float32 [B, ...].
            labels_B: int64 [B].
            index_B: their indices in the data, int64 [B].

        Returns:
            The batch.
        """
        ...


class References(Protocol):
    """Frozen models that a loss or an edit may use: the one that unlearning starts from, and two randomly initialised ones.

    kept: tensors that edits of a recipe leave for later ones, by name; part of a run's resume state."""

    @property
    def original(self) -> "Module":
        """The network that unlearning starts from, in eval mode."""
        ...

    @property
    def random_init(self) -> "Module":
        """A randomly initialised network of the same architecture, in eval mode: where training from scratch by the run's seed begins.

        An original that was trained by that seed began there, and its features are still aligned to these weights."""
        ...

    @property
    def fresh_init(self) -> "Module":
        """A randomly initialised network of the same architecture, in eval mode, from which no training begins."""
        ...

    @property
    def kept(self) -> "dict[str, Tensor]":
        """Tensors that earlier edits of the recipe left, by name."""
        ...


class DataSource(Protocol):
    """The data of a run: labels int64 [N] and, by split, indices int64 into them."""

    @property
    def labels_N(self) -> "Tensor":
        """Classes of all examples, int64 [N]."""
        ...

    @property
    def splits(self) -> "Mapping[str, Tensor]":
        """Split -> int64 indices of its examples."""
        ...

    def normalised(self, index_B: "Tensor") -> "Tensor":
        """Inputs [B, ...] as the model takes them: uint8 images normalised, other inputs unchanged."""
        ...

    def at_once(self, most: int) -> int:
        """Examples of a forward pass: `most` of 32x32 images, fewer of larger ones."""
        ...

    @property
    def limits(self) -> "tuple[float, float] | None":
        """The lowest and highest value of `pixels`; None: any value."""
        ...

    def pixels(self, index_B: "Tensor") -> "Tensor":
        """Images in [0, 1], [B, ...]; other inputs unchanged."""
        ...

    def as_inputs(self, pixels_BCHW: "Tensor") -> "Tensor":
        """What `pixels` returns, or images near it, as the model takes them."""
        ...

    def augmented(self, index_B: "Tensor", crop: int, flip: bool, resized: float | None = None) -> "Tensor":
        """Return images cropped and flipped at random by torch's global generator.

        Args:
            index_B: int64 [B].
            crop: pixels of padding from which the image is cropped again; 0: none.
            flip: whether half of them are mirrored.
            resized: smallest share of the area that is cropped and resized to the whole; None: not resized.

        Returns:
            Inputs [B, C, H, W] as the model takes them.
        """
        ...
