"""Forward passes over a whole split, for losses that look at one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource

BATCH = 512  # images per forward pass


class Table:
    """Rows that arrive batch by batch, each put into its place at once. Small tensors that are kept until the end lie between the large
    ones that are freed, which leaves holes that the next ones do not fit: with 5,000 images of 224 pixels 2 GB of them.

    Attributes:
        rows: [N, ...]; None before the first batch.
        filled: number of rows that came.
    """

    def __init__(self, n: int) -> None:
        """Make room for `n` rows."""
        self.rows: Tensor | None = None
        self.filled, self._n = 0, n

    def add(self, rows_B: "Tensor") -> None:
        """Put in the next rows [B, ...]; beyond N they are only counted."""
        if self.rows is None:
            self.rows = rows_B.new_empty((self._n, *rows_B.shape[1:]))
        start, self.filled = self.filled, self.filled + len(rows_B)
        if self.filled <= self._n:
            self.rows[start : self.filled] = rows_B


def logits(model: "Module", data: "DataSource", index_N: "Tensor") -> "Tensor":
    """Logits in eval mode, without gradients.

    Args:
        model: the network; the modes of its modules are restored.
        data: the images.
        index_N: int64, which of them.

    Returns:
        float32 [N, classes].
    """
    import torch

    modes, table = {module: module.training for module in model.modules()}, Table(len(index_N))
    model.eval()
    try:
        with torch.no_grad():
            for index_B in index_N.split(data.at_once(BATCH)):
                table.add(model(data.normalised(index_B)).float())
    finally:
        for module, mode in modes.items():
            module.training = mode
    assert table.rows is not None
    return table.rows
