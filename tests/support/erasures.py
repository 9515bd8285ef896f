"""An erasure of three images and of a model, and what is looked for after it."""

import numpy as np
import torch

from lethe.erasure.erase import _telling
from lethe.erasure.sought import Sought
from lethe.models import checkpoint
from lethe.workspace.erased import DONE, Erasure, spelt
from lethe.workspace.pseudonyms import Pseudonyms

HASHED = Pseudonyms(bytes(range(32)))
IDS = ("train/cat/0003.png", "train/cat/a b.png", "train/dög/1.png")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), np.uint8)
MODEL = {"body": torch.arange(20.0), "head": torch.ones(2, 3)}
ACCEPTED = {"body": torch.arange(20.0), "head": torch.zeros(2, 3)}


def erasure(ids=IDS, prefix="train/"):
    spellings = sorted({text for id_ in ids for text in spelt(id_)})
    return Erasure(
        request=HASHED.of_request(ids),
        method="model_1",
        accepted=checkpoint.weights_hash(ACCEPTED),
        state=DONE,
        images=len(ids),
        ids=tuple(map(HASHED.of_id, spellings)),
        pixels=tuple(map(HASHED.of_pixels, PIXELS)),
        lengths=tuple(sorted({len(text.encode()) for text in spellings})),
        prefix=prefix,
        data="the images before",
        retain="those that are left",
        models=(checkpoint.weights_hash(MODEL),),
        tensors=(_telling(MODEL, ACCEPTED),),
        source=False,
    )


SOUGHT = Sought([erasure()], HASHED, 8)
