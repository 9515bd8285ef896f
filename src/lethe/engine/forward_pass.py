"""The forward passes of an optimizer step. B batch, C classes, D features."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Module

from lethe.data.device_data import Batch
from lethe.recipes import blocks
from lethe.recipes.recipe import Phase


def with_logits(module: Module, batches: Sequence[Batch], phase: Phase) -> Iterator[tuple[Batch, Tensor]]:
    """Pass the batches of a step through the network: one after another, each when it is asked for, or all as one batch.

    Args:
        module: the network.
        batches: of a step, one for each stream.
        phase: says whether the batches are joined, and whether a loss wants features.

    Yields:
        Each batch, with its features if a loss wants them, and its logits [B, classes].
    """
    sizes = [len(batch.labels_B) for batch in batches]
    joint = phase.forward == "joint" and len(batches) > 1
    images = _joined([batch.images_BCHW for batch in batches]) if joint else None
    with _features(module, phase) as seen:
        each = module(images).split(sizes) if joint else map(module, (batch.images_BCHW for batch in batches))
        for number, (batch, logits_BC) in enumerate(zip(batches, each, strict=True)):
            features = seen[0].split(sizes)[number] if joint and seen else seen[-1] if seen else None
            yield batch if features is None else replace(batch, features_BD=features.flatten(1).float()), logits_BC


def _joined(images: list[Tensor]) -> Tensor:
    form = torch.channels_last if images[0].is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return torch.cat(images).contiguous(memory_format=form)


@contextmanager
def _features(module: Module, phase: Phase) -> Iterator[list[Tensor]]:
    """What the head takes in every forward pass, if a loss of the phase is of features."""
    seen: list[Tensor] = []
    if not any(getattr(term.loss, "of_features", False) for term in phase.terms):
        yield seen
        return
    hook = module.get_submodule(blocks.head(module)).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
