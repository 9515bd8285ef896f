"""The two halves of validation: images whose losses shape a result, and images by which results are selected.

A method may use the losses of images that no model was trained on, for example as the losses that forgotten images should have. These
images then say nothing any more about how well it generalises, or whether forget can be distinguished from unseen images. So such a
method uses one half of validation, the shaping half, and everything that selects (the best epoch, a search) measures the other."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lethe._util.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def halves(validation_N: "Tensor", labels_N: "Tensor") -> "tuple[Tensor, Tensor]":
    """Divide validation in two, class by class; the division depends on the indices and labels alone.

    Args:
        validation_N: int64, indices of the validation images.
        labels_N: int64, labels of all images.

    Returns:
        Indices of the shaping half and of the half for selection, both in ascending order. A class's first, third, ... image shapes, so
        that a class with a single image has it in the shaping half.
    """
    import torch

    ordered = validation_N.sort().values
    by_class = ordered[labels_N[ordered].sort(stable=True).indices]
    labels = labels_N[by_class]
    first = torch.searchsorted(labels, labels)  # where the image's class begins
    rank = torch.arange(len(labels), device=labels.device) - first
    return by_class[rank % 2 == 0].sort().values, by_class[rank % 2 == 1].sort().values


def shapes(recipe: Iterable[object]) -> bool:
    """Return whether a loss, a rule or an edit of the recipe uses the shaping half of validation."""
    recipe = [*recipe]
    users = [user for step in recipe for term in getattr(step, "terms", ()) for user in (term.loss, getattr(term, "inputs", None))]
    users += [*recipe, *(getattr(step, "stop", None) for step in recipe)]
    return any(getattr(user, "uses_validation", False) for user in users)


def for_selection(recipe: Iterable[object], splits: "Mapping[str, Tensor]", labels_N: "Tensor") -> "Mapping[str, Tensor]":
    """The splits by which results of a recipe may be selected: without the shaping half of validation if the recipe uses it.

    Args:
        recipe: of the run.
        splits: indices by split.
        labels_N: int64, labels of all images.

    Returns:
        `splits` itself, or a copy whose validation is the other half.

    Raises:
        UserError: no image is in that half.
    """
    if not shapes(recipe) or "validation" not in splits:
        return splits
    left_V = halves(splits["validation"], labels_N)[1]
    if not len(left_V):
        raise UserError(
            f"validation has {len(splits['validation'])} images, one of a class at most; half of each class's shape the method's result, "
            "so none is left to measure it by: it takes two images of a class"
        )
    return {**splits, "validation": left_V}
