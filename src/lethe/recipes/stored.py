"""Weights from files: of an earlier checkpoint, or of another model."""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lethe._util.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from lethe.recipes.losses import Loss
    from lethe.recipes.protocols import Batch, DataSource, References


def state_dict(file: str, sha256: str, model: "Module", purpose: str) -> "dict[str, Tensor]":
    """Read the tensors of a network's state dict.

    Args:
        file: safetensors file.
        sha256: of its bytes.
        model: a network of the same architecture.
        purpose: begins the error messages.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: the file can't be read, has other bytes, or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{purpose}: {file} can't be read ({error.strerror})") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{purpose}: the SHA-256 of {file} is {found}, not {sha256}")
    try:
        tensors = load(content)
    except SafetensorError:
        how = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        raise UserError(f"{purpose}: {file} is no safetensors file; {how} makes one of a state dict") from None
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise UserError(f"{purpose}: the tensors of {file} are not those of this network")
    return tensors


@dataclass(frozen=True)
class MatchModel:
    """Mean squared difference from the logits of another model, such as a retrained one: oracle matching (arXiv:2410.23232).

    With a retrained model it is no unlearning method, but the upper bound of what training towards its answers can reach.

    Args:
        file: safetensors file with the tensors of that network's state dict.
        sha256: of the file's bytes; another content is refused, so that the recipe says what was loaded.
    """

    file: str
    sha256: str

    def prepare(self, model: "Module", data: "DataSource", refs: "References") -> "Loss":
        """The loss with the other model.

        Args:
            model: not used.
            data: not used.
            refs: `original` has the architecture of the other model.

        Returns:
            The loss with the other model as its teacher.

        Raises:
            UserError: the file can't be read, has other bytes, or holds another network.
        """
        teacher = copy.deepcopy(refs.original)
        teacher.load_state_dict(state_dict(self.file, self.sha256, teacher, "match"))
        return _TowardsModel(teacher)

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        raise TypeError("MatchModel has no model before `prepare`")


@dataclass(frozen=True, eq=False)
class _TowardsModel:
    """`MatchModel` with the model, frozen and in eval mode; part of no recipe."""

    teacher: "Module"

    def __call__(self, logits_BC: "Tensor", batch: "Batch", refs: "References") -> "Tensor":
        import torch
        from torch.nn.functional import mse_loss

        with torch.no_grad():
            wanted_BC = self.teacher(batch.images_BCHW).float()
        return mse_loss(logits_BC, wanted_BC)
