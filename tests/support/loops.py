"""The ten methods as plain loops: the quickest way to read what a method does, and what the engine is held against.

Written from the report and its notebook, not from the engine; tests/contract/test_contract.py demands that both end in the same weights
and BatchNorm buffers, to the bit. Every loop trains `model` in place. SGD holds all parameters; a frozen one gets no gradient
(`zero_grad` sets it to None), so neither decay nor momentum moves it. BatchNorm is in train mode throughout, frozen layers too.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Module
from torch.nn.functional import cross_entropy
from torch.optim import SGD


@dataclass
class Table:
    """images float32 [N, 3, H, W], normalised; labels int64 [N]; `batches(split, k)`: index tensors, one a batch, of pass k over
    a split (from 0, counted over the whole run: every pass is shuffled anew)."""

    images: Tensor
    labels: Tensor
    batches: Callable[[str, int], Iterable[Tensor]]


@dataclass
class Numbers:
    """What every optimizer step goes by; `trains` names blocks, or "all"."""

    trains: tuple[str, ...]
    lr: float
    momentum: float
    weight_decay: float


def step(model: Module, optimizer: SGD, data: Table, batch: Tensor, scale: float = 1.0) -> None:
    """One optimizer step on scale x cross-entropy; a negative scale is a reversal."""
    optimizer.zero_grad(set_to_none=True)
    loss = scale * cross_entropy(model(data.images[batch]), data.labels[batch])
    loss.backward()
    optimizer.step()


def train_only(model: Module, blocks: tuple[str, ...]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("all" in blocks or name.split(".")[0] in blocks)


def begin(model: Module, sgd: Numbers) -> SGD:
    model.train()
    train_only(model, sgd.trains)
    return SGD(model.parameters(), lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay)


def cosine(optimizer: SGD, lr: float, epoch: int, epochs: int) -> None:
    """Cosine annealing that steps once an epoch: lr in epoch 0, 0 behind the last."""
    optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * (epoch / epochs))) / 2


def model_1(model: Module, data: Table, sgd: Numbers, epochs: int) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)


def model_2(model: Module, data: Table, sgd: Numbers, epochs: int) -> None:
    model_1(model, data, sgd, epochs)


def model_3(model: Module, data: Table, sgd: Numbers, epochs: int, scale: float) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)
    optimizer.param_groups[0]["lr"] = sgd.lr
    if epochs:  # no epochs, no reversal
        for forget in data.batches("forget", 0):
            step(model, optimizer, data, forget, scale)


def model_4(model: Module, data: Table, sgd: Numbers, epochs: int, scale: float) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)
        for forget in data.batches("forget", epoch):
            step(model, optimizer, data, forget, scale)


def model_5(model: Module, data: Table, sgd: Numbers, epochs: int, scale: float) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        for retain, forget in zip(data.batches("retain", epoch), data.batches("forget", epoch), strict=False):
            step(model, optimizer, data, retain)
            step(model, optimizer, data, forget, scale)


def model_6(model: Module, data: Table, sgd: Numbers, epochs: int, scale: float, final_epochs: int) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        for retain, forget in zip(data.batches("retain", epoch), data.batches("forget", epoch), strict=False):
            step(model, optimizer, data, retain)
            step(model, optimizer, data, forget, scale)
    for epoch in range(epochs, epochs + final_epochs):
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)


def hybrid_1(model: Module, data: Table, sgd: Numbers, epochs: int, peak: float) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        scale = peak * (epoch / epochs)
        for retain, forget in zip(data.batches("retain", epoch), data.batches("forget", epoch), strict=False):
            step(model, optimizer, data, retain)
            step(model, optimizer, data, forget, scale)


def hybrid_2(model: Module, data: Table, sgd: Numbers, epochs: int, peak: float, final_epochs: int) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        scale = peak * (epoch / epochs) ** 2
        for retain, forget in zip(data.batches("retain", epoch), data.batches("forget", epoch), strict=False):
            step(model, optimizer, data, retain)
            step(model, optimizer, data, forget, scale)
    for epoch in range(epochs, epochs + final_epochs):
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)


def hybrid_3(model: Module, data: Table, sgd: Numbers, epochs: int, peak: float, repair_every: int, final_epochs: int) -> None:
    optimizer = begin(model, sgd)
    passes = count()
    for epoch in range(epochs):
        scale = peak * (epoch / epochs) ** 2
        forget = iter(data.batches("forget", epoch))
        for retain in data.batches("retain", next(passes)):
            step(model, optimizer, data, retain)
            for reverse in islice(forget, 2):
                step(model, optimizer, data, reverse, scale)
        for reverse in forget:  # only where forget is more than twice as long as retain
            step(model, optimizer, data, reverse, scale)
        if repair_every and (epoch + 1) % repair_every == 0:
            for retain in data.batches("retain", next(passes)):
                step(model, optimizer, data, retain)
    for _ in range(final_epochs):
        for retain in data.batches("retain", next(passes)):
            step(model, optimizer, data, retain)


def hybrid_4(
    model: Module,
    data: Table,
    sgd: Numbers,
    epochs: int,
    peak: float,
    repair_every: int,
    final_epochs: int,
    unfreeze: tuple[str, ...],
    unfreeze_at: float,
) -> None:
    optimizer = begin(model, sgd)
    passes = count()
    for epoch in range(epochs):
        if epoch / epochs >= unfreeze_at:
            train_only(model, sgd.trains + unfreeze)
        scale = peak * (epoch / epochs) ** 2
        forget = iter(data.batches("forget", epoch))
        for retain in data.batches("retain", next(passes)):
            step(model, optimizer, data, retain)
            for reverse in islice(forget, 2):
                step(model, optimizer, data, reverse, scale)
        for reverse in forget:
            step(model, optimizer, data, reverse, scale)
        if repair_every and (epoch + 1) % repair_every == 0:
            for retain in data.batches("retain", next(passes)):
                step(model, optimizer, data, retain)
    train_only(model, sgd.trains + unfreeze)
    for _ in range(final_epochs):
        for retain in data.batches("retain", next(passes)):
            step(model, optimizer, data, retain)


# Two settings that any method may have, each shown on one


def model_6_keeping_the_best(
    model: Module, data: Table, validation: Tensor, sgd: Numbers, epochs: int, scale: float, final_epochs: int
) -> None:
    """`keep: best` chooses within the final phase only; an epoch is kept as a copy (`state_dict()` is a view)."""
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        for retain, forget in zip(data.batches("retain", epoch), data.batches("forget", epoch), strict=False):
            step(model, optimizer, data, retain)
            step(model, optimizer, data, forget, scale)
    best, most = copy.deepcopy(model.state_dict()), -1
    for epoch in range(epochs, epochs + final_epochs):
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)
        model.eval()
        with torch.no_grad():
            correct = int((model(data.images[validation]).argmax(dim=1) == data.labels[validation]).sum())
        model.train()
        if correct > most:  # the first of equally good epochs
            best, most = copy.deepcopy(model.state_dict()), correct
    model.load_state_dict(best)


def model_2_with_frozen_statistics(model: Module, data: Table, sgd: Numbers, epochs: int) -> None:
    """`batchnorm: eval_frozen`: a BatchNorm that does not train normalises by its running statistics and keeps them."""
    optimizer = begin(model, sgd)
    for module in model.modules():
        if isinstance(module, BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for retain in data.batches("retain", epoch):
            step(model, optimizer, data, retain)
