"""A model's outputs on the measured images, computed once as long as its weights are the same.

An epoch's metrics and a logits table need the same outputs: of the last epoch and of the result, of a given model and of its table, of the
original and of the start of unlearning. N images, C classes, D features."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Module

from lethe.data.device_data import Data
from lethe.evaluation import inference


class Outputs:
    """Outputs in float32 on the images of some splits, kept for one model at a time.

    Attributes:
        data: the images.
        index_N: the images, in the order in which an evaluator of the splits reads them: the same batches give the same bits.
    """

    def __init__(self, data: Data, splits: Iterable[str]) -> None:
        self.data = data
        self.index_N = torch.cat([data.splits[name] for name in splits])
        self._weights: dict[str, Tensor] | None = None
        self._logits_NC = torch.empty(0)
        self._features_ND: Tensor | None = None

    def read(self, model: Module, data: Data, index_N: Tensor) -> Tensor:
        """Compute what `inference.logits` gives, or return it where it is known: of these images, read in this order.

        Args:
            model: takes a batch of inputs [B, ...].
            data: the images.
            index_N: which images, in this order.

        Returns:
            float32 [N, C] on the data's device.
        """
        same = data.images_NCHW is self.data.images_NCHW and data.mean is self.data.mean and torch.equal(index_N, self.index_N)
        if not same:
            return inference.logits(model, data, index_N)
        if not self._knows(model):
            self._compute(model)
        return self._logits_NC

    def take(self, model: Module) -> tuple[Tensor, Tensor | None]:
        """Return what `inference.logits_and_features` gives on these images: what is known of the model, which is given up, or computed now
        and not kept. What is known of another model stays.

        Args:
            model: takes a batch of inputs [B, ...].

        Returns:
            Logits, float32 [N, C], and features, float32 [N, D] on the CPU, or None.
        """
        if not self._knows(model):
            return inference.logits_and_features(model, self.data, self.index_N)
        logits_NC, features_ND = self._logits_NC, self._features_ND
        self._weights, self._logits_NC, self._features_ND = None, torch.empty(0), None
        return logits_NC, features_ND

    def share_weights(self, model: Module) -> None:
        """Let a model on the CPU whose outputs are known have the copy of its weights that is kept here, in place of its own. It must not
        be changed any more.

        Args:
            model: takes a batch of inputs [B, ...].
        """
        if self._weights is None or self.data.device.type != "cpu" or not self._knows(model):
            return
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            tensor.data = self._weights.get(name, tensor.data)

    def _compute(self, model: Module) -> None:
        self._logits_NC, self._features_ND = inference.logits_and_features(model, self.data, self.index_N)
        self._weights = _copied(model)

    def _knows(self, model: Module) -> bool:
        tensors = model.state_dict()
        return (
            self._weights is not None
            and tensors.keys() == self._weights.keys()
            and all(torch.equal(tensor.cpu(), self._weights[name]) for name, tensor in tensors.items())
        )


def _copied(model: Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
