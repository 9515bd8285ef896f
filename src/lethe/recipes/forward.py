"""Forward passes over a whole split, for losses that look at one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource

BATCH = 512  # images per forward pass


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

    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            parts = [model(data.normalised(index_B)).float() for index_B in index_N.split(data.at_once(BATCH))]
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(parts)
