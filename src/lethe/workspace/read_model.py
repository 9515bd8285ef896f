"""A model, read once into its logits table, in float32; and what that depends on beside the weights."""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from lethe._util.errors import UserError
from lethe._util.files import digest, short
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data.device_data import Data
from lethe.data.splits import SPLITS
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.evaluation import inference as predict
from lethe.evaluation import representations as features
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.measures import TAUS
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import First, InTurn
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.schedules import Constant
from lethe.workspace import numerics
from lethe.workspace.workspace import Prepared


def way(prepared: Prepared) -> str:
    """A hash of how models are read: a table that was read in another way is no longer what its model says."""
    said, more = prepared.config.data, prepared.config.evaluate
    settings = f"{said.mean} {said.std} {TAUS} {more.features} {relearning(prepared.config) if more.relearn else ()}"
    return short(digest([*numerics.reading(bool(more.relearn)), settings]))


def code() -> str:
    """A hash of the arithmetic by which logits are read."""
    return short(digest(numerics.reading(False)))


def read(prepared: Prepared, name: str, tensors: Mapping[str, torch.Tensor], made_of: Mapping[str, str]) -> LogitsTable:
    """What the model says of all images, and what only it could tell: a probe of its features, and of perturbed forget images."""
    ids, forget = prepared.images.ids, prepared.splits["forget"]
    log(f"{name}: reading {len(ids):,} images, and perturbed copies of {len(forget):,}, into a logits table")
    network, device = prepared.network(0), prepared.compute.device
    network.load_state_dict(dict(tensors))
    split = np.zeros(len(ids), np.uint8)
    for number, part in enumerate(SPLITS):
        split[prepared.splits[part]] = number
    logits_NC, features_ND = predict.logits_and_features(network, prepared.data, torch.arange(len(ids), device=device))
    labels = prepared.images.labels.astype(np.int64)
    if not torch.isfinite(logits_NC).all():
        raise UserError(f"{name}: the model's logits are not all finite: it diverged")
    columns = {}
    if features_ND is not None:
        columns["probe"] = features.probe(features_ND.numpy(), labels, prepared.splits["retain"], logits_NC.shape[1])
    counts = predict.perturbed(network, prepared.data, torch.from_numpy(forget).to(device), [ids[i] for i in forget], TAUS)
    columns["residual"] = np.zeros((len(ids), len(TAUS)), np.uint8)  # of forget images alone
    columns["residual"][forget] = counts.numpy()
    more = prepared.config.evaluate
    if more.features and features_ND is not None:
        shown = np.concatenate([forget, prepared.splits["test"]])
        columns["features"] = np.zeros(features_ND.shape, np.float32)
        columns["features"][shown] = features_ND.numpy()[shown]
    if more.relearn:
        log(f"{name}: relearning {len(forget):,} images for {more.relearn} steps")
        columns["relearn"] = np.zeros((len(ids), 1 + more.relearn), np.uint8)
        columns["relearn"][forget] = relearned(network, prepared.data, relearning(prepared.config))
    return LogitsTable(name, tuple(ids), labels, split, logits_NC.cpu().numpy(), columns, made_of)


def relearning(config: Config) -> Recipe:
    """Fine-tuning on forget, each step an epoch of its own, so that it can be looked at behind every one."""
    said = config.evaluate
    one = First(1, InTurn())
    lr, sgd = Constant(said.relearn_lr), SGD(0.0, 0.0)
    return (Phase("relearn", said.relearn, (Term("forget"),), said.relearn_batch_size, lr, one, optimizer=sgd),)


def relearned(network: torch.nn.Module, data: Data, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """[forget, 1 + steps], 1 where the model says the label: before the first step of the recipe and behind each. The network stays as
    it is. Always by seed 0: a table is the same whoever reads the model."""
    forget, said = data.splits["forget"], []

    def look(model: torch.nn.Module, seen: Data) -> dict[str, float]:
        said.append((predict.logits(model, seen, forget).argmax(dim=1) == data.labels_N[forget]).cpu().numpy())
        return {}

    for _ in engine.run(recipe, copy.deepcopy(network), data, RunOptions(evaluate=look)):
        pass
    return np.stack(said, axis=1).astype(np.uint8)
