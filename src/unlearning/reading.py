"""A model, read once into its logits table, in float32; and what that depends on beside the weights."""

from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path

import numpy as np
import torch

from unlearning import features, predict
from unlearning.errors import BadInput
from unlearning.files import digest, short
from unlearning.measuring import TAUS
from unlearning.splits import SPLITS
from unlearning.table import LogitsTable
from unlearning.workspace import Prepared, say

CODE = ("data", "features", "model", "predict", "quick", "reading")


def way(prepared: Prepared) -> str:
    """A hash of how models are read: a table that was read in another way is no longer what its model says."""
    said = prepared.config.data
    return short(digest([*map(_sha256, CODE), f"{said.mean} {said.std} {TAUS}"]))


def _sha256(name: str) -> str:
    with Path(__file__).with_name(f"{name}.py").open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read(prepared: Prepared, name: str, tensors: Mapping[str, torch.Tensor], made_of: Mapping[str, str]) -> LogitsTable:
    """What the model says of all images, and what only it could tell: a probe of its features, and of perturbed forget images."""
    ids, forget = prepared.images.ids, prepared.splits["forget"]
    say(f"{name}: reading {len(ids):,} images, and perturbed copies of {len(forget):,}, into a logits table")
    network, device = prepared.network(0), prepared.compute.device
    network.load_state_dict(dict(tensors))
    split = np.zeros(len(ids), np.uint8)
    for number, part in enumerate(SPLITS):
        split[prepared.splits[part]] = number
    logits_NC, features_ND = predict.logits_and_features(network, prepared.data, torch.arange(len(ids), device=device))
    labels = prepared.images.labels.astype(np.int64)
    if not torch.isfinite(logits_NC).all():
        raise BadInput(f"{name}: the model's logits are not all finite: it diverged")
    columns = {}
    if features_ND is not None:
        columns["probe"] = features.probe(features_ND.numpy(), labels, prepared.splits["retain"], logits_NC.shape[1])
    counts = predict.perturbed(network, prepared.data, torch.from_numpy(forget).to(device), [ids[i] for i in forget], TAUS)
    columns["residual"] = np.zeros((len(ids), len(TAUS)), np.uint8)  # of forget images alone
    columns["residual"][forget] = counts.numpy()
    return LogitsTable(name, tuple(ids), labels, split, logits_NC.cpu().numpy(), columns, made_of)
