"""Edits that keep the weights of a moment, and go back to some of those that were kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lethe.recipes import forward
from lethe.recipes.held_out import halves

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.protocols import DataSource, References


@dataclass(frozen=True)
class KeepWeights:
    """Keep the weights and buffers, and their error on forget in eval mode, for `NearestError`; nothing is changed.

    Args:
        name: shown in epoch tables and messages.
    """

    name: str = "keep_weights"

    def writes(self, model: "Module") -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        number = sum(name.startswith("error/") for name in refs.kept)
        refs.kept[f"error/{number}"] = torch.tensor(_error(model, data, data.splits["forget"]))
        refs.kept.update({f"weights/{number}/{name}": value.detach().clone() for name, value in model.state_dict().items()})


@dataclass(frozen=True)
class NearestError:
    """Go back to the kept weights whose error on forget is nearest to the present error on unseen images (SCRUB+R, arXiv:2302.09880).

    Unseen are the images of the shaping half of validation (`held_out.halves`) of the classes of forget, all of it where it has none. Of
    weights that are equally near the last ones count.

    Args:
        name: shown in epoch tables and messages.
    """

    uses_validation: ClassVar[bool] = True
    name: str = "nearest_error"

    def __call__(self, model: "Module", data: "DataSource", refs: "References") -> None:
        import torch

        unseen_V = halves(data.splits["validation"], data.labels_N)[0]
        own_V = unseen_V[torch.isin(data.labels_N[unseen_V], data.labels_N[data.splits["forget"]])]
        wanted, number = _error(model, data, own_V if len(own_V) else unseen_V), sum(name.startswith("error/") for name in refs.kept)
        nearest = min(reversed(range(number)), key=lambda each: abs(float(refs.kept[f"error/{each}"]) - wanted))
        start = f"weights/{nearest}/"
        model.load_state_dict({name.removeprefix(start): value for name, value in refs.kept.items() if name.startswith(start)})


def _error(model: "Module", data: "DataSource", index_N: "Tensor") -> float:
    """The share of images that the model classifies wrongly, in eval mode."""
    return float((forward.logits(model, data, index_N).argmax(1) != data.labels_N[index_N]).double().mean())
