"""Phases with frozen layers, and data for them."""

from dataclasses import replace

import torch

from lethe.data.device_data import Data
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import Alternate, InTurn
from lethe.recipes.recipe import Phase, Term
from lethe.recipes.schedules import Constant
from lethe.recipes.trainable import Layers

HEAD = Layers(("layer4", "fc"))
TERMS = (Term("retain"), Term("forget", weight=-0.1))


def data(size: int = 16, part: int = 10) -> Data:
    n = 6 * part
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, size, size), generator=draw, dtype=torch.uint8)
    order = torch.randperm(n, generator=draw)
    splits = dict(zip(("retain", "forget", "validation", "test"), order.split([3 * part, part, part, part]), strict=True))
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    return Data(pixels, torch.arange(n) % 3, splits, mean, std, channels_last=True)


def phase(**changes: object) -> Phase:
    known = Phase("hybrid", 3, TERMS, 8, Constant(0.01), Alternate(2, "longest"), HEAD, SGD(0.9, 0.0005), "eval_frozen")
    return replace(known, **changes)  # type: ignore[arg-type]


def final(**changes: object) -> Phase:
    return phase(name="final", terms=TERMS[:1], order=InTurn(), optimizer=None, **{"epochs": 1, **changes})
