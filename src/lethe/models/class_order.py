"""The classes of a given model in the order of the data: its outputs are reordered once, when it is taken over."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from lethe._util.errors import UserError


def positions(own: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return at which output a model has each class of the data.

    Args:
        own: the classes in the order of the model's outputs (pretrain.classes).
        classes: the classes of the data, in the order of their labels.

    Returns:
        For each label of the data, the index of its output.

    Raises:
        UserError: `own` does not name each class of the data once.
    """
    if sorted(own) != sorted(classes):
        other, missing = [name for name in own if name not in classes], [name for name in classes if name not in own]
        wrong = f"the data have no {', '.join(other[:3])}" if other else f"{', '.join(missing[:3])} missing" if missing else "a class twice"
        raise UserError(
            f"pretrain.classes is {','.join(own)} ({wrong}); it takes the {len(classes)} classes of the data, each once, "
            f"in the order in which the model was trained: {','.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"
        )
    return [list(own).index(name) for name in classes]


@torch.no_grad()
def reorder(network: Module, order: Sequence[int], images_BCHW: Tensor) -> None:
    """Reorder a network's outputs, by the rows of its last layer, in place.

    Args:
        network: in eval mode; its last layer that has parameters makes the logits.
        order: for each class of the data the output that has it so far.
        images_BCHW: some inputs as the network takes them, to check the result with.

    Raises:
        UserError: the outputs do not follow the rows of the last layer.
    """
    index = torch.tensor(order, device=images_BCHW.device)
    before = network(images_BCHW)
    *_, last = (layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False)))
    for name, parameter in last.named_parameters(recurse=False):
        if len(parameter) == len(order):
            setattr(last, name, Parameter(parameter[index].clone(), parameter.requires_grad))
    if not torch.allclose(network(images_BCHW), before[:, index], 1e-3, 1e-4):
        raise UserError(
            f"pretrain.classes: the outputs of {type(network).__name__} can't be reordered, since its last layer "
            f"({type(last).__name__}) does not make them; give a checkpoint with the classes in the order of the data"
        )
