"""A model is read into logits; everything else is arithmetic on them. N images, C classes."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import Module

from unlearning.data import Data
from unlearning.metrics import accuracy, cross_entropy

BATCH = 512


@torch.no_grad()
def logits(model: Module, data: Data, index_N: Tensor, autocast: Callable[[], AbstractContextManager[None]] = nullcontext) -> Tensor:
    """float32 [N, C] on the data's device, in the order of `index_N`; the model is read in eval mode."""
    was_training = model.training
    model.eval()
    parts = []
    for index_B in index_N.split(BATCH):
        with autocast():
            parts.append(model(data.normalised(index_B)).float())
    model.train(was_training)
    return torch.cat(parts)


def evaluator(
    data: Data,
    splits: Iterable[str],
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    retain: int | None = None,
) -> Callable[..., dict[str, float]]:
    """What the engine is handed: (model, the data it reads) -> `<split>.accuracy` (percent), `<split>.loss` (nats), `gap` (retain - forget
    accuracy). `retain`: of that split only so many images, always the same."""
    names = list(splits)
    chosen = {name: data.splits[name] for name in names}
    if retain is not None and "retain" in chosen:
        order = torch.randperm(len(chosen["retain"]), generator=torch.Generator().manual_seed(0))
        chosen["retain"] = chosen["retain"][order[:retain].to(data.device)]
    index_N = torch.cat(list(chosen.values()))
    sizes = [len(index) for index in chosen.values()]
    labels = data.labels_N[index_N].split(sizes)

    def evaluate(model: Module, source: Data = data) -> dict[str, float]:
        tables = logits(model, source, index_N, autocast).split(sizes)
        measured: dict[str, float] = {}
        for name, logits_NC, labels_N in zip(names, tables, labels, strict=True):
            measured[f"{name}.accuracy"] = accuracy(logits_NC, labels_N)
            measured[f"{name}.loss"] = cross_entropy(logits_NC, labels_N)
        if "retain" in names and "forget" in names:
            measured["gap"] = measured["retain.accuracy"] - measured["forget.accuracy"]
        return measured

    return evaluate
