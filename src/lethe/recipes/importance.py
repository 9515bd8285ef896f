"""What the weights of a model are worth to a split: sums of gradients, and squared gradients (the diagonal of the Fisher information)."""

import copy
from typing import TYPE_CHECKING

from lethe._util.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References

CONVOLUTION = 4  # dimensions of a weight tensor of two-dimensional convolution
BATCH = 256  # images per forward pass where only the sum over all of them counts

Weights = dict[str, "Tensor"]  # by parameter, of their shapes


def gradient_sum(model: "Module", data: "DataSource", index_N: "Tensor") -> Weights:
    """The gradient of the cross-entropy in eval mode, summed over images.

    Args:
        model: the network; it is not changed.
        data: the images.
        index_N: int64, which of them.

    Returns:
        By parameter, of its shape and dtype.
    """
    import torch

    network = copy.deepcopy(model).eval().requires_grad_(True)
    total: Weights = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for index_B in index_N.split(data.at_once(BATCH)):
        for name, gradient in _gradient(network, data, index_B, "sum").items():
            total[name] += gradient
    return total


def squared_gradients(model: "Module", data: "DataSource", index_N: "Tensor", batch_size: int = 1) -> Weights:
    """The mean over batches of the squared gradient of a batch's mean cross-entropy, in eval mode.

    With batches of one image it is the diagonal of the empirical Fisher information. Larger batches are cheaper, and their squares are
    of another size: the gradients of images cancel before they are squared.

    Args:
        model: the network; it is not changed.
        data: the images.
        index_N: int64, which of them.
        batch_size: images per squared gradient.

    Returns:
        By parameter, of its shape and dtype; at least 0.
    """
    import torch

    network = copy.deepcopy(model).eval().requires_grad_(True)
    total: Weights = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    batches = index_N.split(batch_size)
    for index_B in batches:
        for name, gradient in _gradient(network, data, index_B, "mean").items():
            total[name] += gradient.square() / len(batches)
    return total


def least_telling(data: "DataSource", refs: "References", share: float, seed: int) -> Weights:
    """The weights of each convolution whose gradients on retain and on forget differ least (MSG, the Kookmin team's edit).

    Args:
        data: examples by split; of retain as many images are drawn as forget has.
        refs: `original` is the network whose gradients of the cross-entropy are compared, summed over images.
        share: of the weights of each convolution.
        seed: of the draw.

    Returns:
        bool tensors by name of the weight tensor: True for the share of weights that tell least.

    Raises:
        UserError: the network has no two-dimensional convolution.
    """
    import torch

    if not any(value.ndim == CONVOLUTION for value in refs.original.parameters()):
        raise UserError(f"{type(refs.original).__name__} has no two-dimensional convolution, whose weights msg compares")
    forget_F, retain_R = data.splits["forget"], data.splits["retain"]
    drawn = torch.randperm(len(retain_R), generator=torch.Generator().manual_seed(seed))[: len(forget_F)]
    forget, retain = (gradient_sum(refs.original, data, index_N) for index_N in (forget_F, retain_R[drawn.to(retain_R.device)]))
    masks: Weights = {}
    for name in (name for name, value in forget.items() if value.ndim == CONVOLUTION):
        difference = (retain[name] - forget[name]).abs().flatten()
        masks[name] = torch.zeros_like(difference, dtype=torch.bool)
        masks[name][difference.argsort(stable=True)[: round(share * len(difference))]] = True
        masks[name] = masks[name].view_as(forget[name])
    return masks


def _gradient(network: "Module", data: "DataSource", index_B: "Tensor", reduction: str) -> Weights:
    """The gradient of the cross-entropy of a batch; 0 where the loss does not depend on a weight."""
    import torch
    from torch.nn.functional import cross_entropy

    names, parameters = zip(*network.named_parameters(), strict=True)
    loss = cross_entropy(network(data.normalised(index_B)), data.labels_N[index_B], reduction=reduction)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, gradients, strict=True))
