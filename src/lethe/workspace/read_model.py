"""Read a model into its logits table, in float32: what all measures are computed from."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lethe._util import memory
from lethe._util.errors import UserError
from lethe._util.files import digest, short
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data.device_data import Data
from lethe.data.splits import SPLITS
from lethe.engine import engine
from lethe.engine.epoch_table import MEASURED
from lethe.engine.options import RunOptions
from lethe.evaluation import inference, representations
from lethe.evaluation.logits_table import COPIES, DRAWS, RESIDUAL, Array, LogitsTable
from lethe.evaluation.measures import TAUS
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import First, InTurn
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.schedules import Constant
from lethe.workspace import numerics
from lethe.workspace.workspace import Prepared

PERTURBED = "perturbed"  # metadata: number of perturbed copies for each radius (evaluate.perturbed)


def reading_hash(prepared: Prepared) -> str:
    """Return a hash of how models are read: a table with another one is out of date."""
    data, evaluate = prepared.config.data, prepared.config.evaluate
    settings = f"{data.mean} {data.std} {TAUS} {evaluate.features} {relearn_recipe(prepared.config) if evaluate.relearn else ()}"
    return short(digest([*numerics.reading(bool(evaluate.relearn)), settings]))


def arithmetic_hash() -> str:
    """Return a hash of the arithmetic by which logits are read."""
    return short(digest(numerics.reading(False)))


def enough_copies(prepared: Prepared, metadata: Mapping[str, str]) -> bool:
    """Return whether a table holds predictions for as many perturbed copies as evaluate.perturbed asks for; more are as good.

    Args:
        prepared: the images and splits.
        metadata: of the table.

    Returns:
        True also for a table that records no number: it has all copies.
    """
    asked = _perturbed(prepared).get(PERTURBED)
    return PERTURBED not in metadata or (asked is not None and int(metadata[PERTURBED]) >= int(asked))


def as_read_now(prepared: Prepared, metadata: Mapping[str, str]) -> bool:
    """Return whether a table was read in the way, and holds at least the columns, that the configuration asks for.

    Args:
        prepared: the images and splits.
        metadata: of the table.

    Returns:
        True if it can be used; False if the model has to be read again.
    """
    return metadata.get("reading") == reading_hash(prepared) and enough_copies(prepared, metadata)


def _perturbed(prepared: Prepared) -> dict[str, str]:
    """What a table says of the number of perturbed copies; nothing where it holds all of every image, as those of earlier versions do."""
    copies, forget = prepared.config.evaluate.perturbed, len(prepared.splits["forget"])
    return {PERTURBED: str(copies)} if copies is not None and copies < COPIES * forget else {}


def read(
    prepared: Prepared,
    name: str,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    perturbed: bool = True,
    relearned: bool = True,
) -> LogitsTable:
    """Return the logits of all images, with columns that need the model: a probe of its features, its predictions on perturbed copies
    of forget images, and where asked for its features and relearning.

    Args:
        prepared: the images and splits.
        name: the run, for messages.
        tensors: its state dict.
        metadata: what the table is to say of its model; it says further how many perturbed copies were classified, if not all.
        perturbed: whether perturbed copies are classified; otherwise `with_perturbed` completes the table.
        relearned: whether evaluate.relearn applies to it.

    Returns:
        The table; logits float32 [N, C] and labels int64 [N] are of all N images, train and held out.

    Raises:
        UserError: a logit is NaN or infinite.
    """
    ids, forget, evaluate = prepared.images.ids, prepared.splits["forget"], prepared.config.evaluate
    also = f", and perturbed copies of {_number_perturbed(prepared):,}," if perturbed else ""
    log(f"{name}: reading {len(ids):,} images{also} into a logits table")
    memory.give_back()  # what the readings before left in holes
    network = prepared.loaded(tensors)
    del tensors  # a model of memory, unless the caller keeps them
    split = np.zeros(len(ids), np.uint8)
    for number, part in enumerate(SPLITS):
        split[prepared.splits[part]] = number
    logits_NC, features_ND = _outputs(prepared, network)
    labels = prepared.images.labels.astype(np.int64)
    if not torch.isfinite(logits_NC).all():
        raise UserError(f"{name}: the model's logits are not all finite: it diverged")
    columns: dict[str, Array] = {}
    memory.give_back()
    if perturbed:
        columns |= _perturbed_columns(prepared, network)
    if evaluate.relearn and relearned:
        log(f"{name}: relearning {len(forget):,} images for {evaluate.relearn} steps")
        columns["relearn"] = np.zeros((len(ids), 1 + evaluate.relearn), np.uint8)
        columns["relearn"][forget] = relearn(network, prepared.data, relearn_recipe(prepared.config))
    del network
    memory.give_back()
    if features_ND is not None:
        columns["probe"] = representations.probe(features_ND.numpy(), labels, prepared.splits["retain"], logits_NC.shape[1])
    if evaluate.features and features_ND is not None:
        shown = np.concatenate([forget, prepared.splits["test"]])
        columns["features"] = np.zeros(features_ND.shape, np.float32)
        columns["features"][shown] = features_ND.numpy()[shown]
    about = {**metadata, **(_perturbed(prepared) if perturbed else {PERTURBED: "0"})}
    return LogitsTable(name, tuple(ids), labels, split, logits_NC.cpu().numpy(), columns, about)


def with_perturbed(prepared: Prepared, table: LogitsTable, tensors: Mapping[str, torch.Tensor]) -> LogitsTable:
    """Return a table with predictions on as many perturbed copies as evaluate.perturbed asks for, in place of those that it holds.

    Args:
        prepared: the images and splits.
        table: of the model.
        tensors: the model's state dict.

    Returns:
        A new table; all other columns are those of `table`.
    """
    log(f"{table.name}: classifying perturbed copies of {_number_perturbed(prepared):,} images")
    memory.give_back()
    network, order = prepared.loaded(tensors), np.argsort(np.array(prepared.images.ids))  # a table is sorted by id
    del tensors
    own = {name: column[order] for name, column in _perturbed_columns(prepared, network).items()}
    del network
    memory.give_back()
    others = {name: column for name, column in table.columns.items() if name not in (RESIDUAL, DRAWS)}
    about = {key: text for key, text in table.about.items() if key != PERTURBED}
    return replace(table, columns=others | own, about=about | _perturbed(prepared))


def _number_perturbed(prepared: Prepared) -> int:
    """The number of forget images whose perturbed copies are classified."""
    forget, copies = len(prepared.splits["forget"]), prepared.config.evaluate.perturbed
    return min(forget, copies or forget)


def _perturbed_columns(prepared: Prepared, network: torch.nn.Module) -> dict[str, Array]:
    forget, copies = prepared.splits["forget"], prepared.config.evaluate.perturbed
    return inference.perturbed_columns(network, prepared.data, forget, prepared.images.ids, TAUS, copies)


def measured(prepared: Prepared, table: LogitsTable) -> dict[str, float]:
    """Return the metrics of an epoch for a model whose logits table is known: what its evaluation would give, to the bit.

    Args:
        prepared: the images and splits.
        table: of the model.

    Returns:
        `<split>.<measure>` -> value, as `inference.evaluator` returns them.
    """
    row = {id_: number for number, id_ in enumerate(table.ids)}
    rows = [row[prepared.images.ids[image]] for image in prepared.outputs.index_N.tolist()]
    logits_NC = torch.from_numpy(table.logits[rows]).to(prepared.compute.device)
    return inference.evaluator(prepared.data, MEASURED, read=lambda *_: logits_NC)(torch.nn.Identity())


def _outputs(prepared: Prepared, network: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits and features of all images; of those that an epoch is measured on where they are known already."""
    known, place = prepared.outputs, prepared.compute.device
    parts = [(known.index_N, *known.take(network))]
    rest = torch.ones(len(prepared.images.ids), dtype=torch.bool, device=place)
    rest[known.index_N] = False
    if rest.any():
        index_N = rest.nonzero().squeeze(1)
        parts.append((index_N, *inference.logits_and_features(network, prepared.data, index_N)))
    order_N = torch.cat([index_N for index_N, _, _ in parts]).argsort()
    features = [features_ND for _, _, features_ND in parts if features_ND is not None]
    every = torch.cat(features)[order_N.cpu()] if len(features) == len(parts) else None
    return torch.cat([logits_NC for _, logits_NC, _ in parts])[order_N], every


def relearn_recipe(config: Config) -> Recipe:
    """Return fine-tuning on forget, with an epoch for each step, so that the model is evaluated after each."""
    evaluate = config.evaluate
    one_step, lr, sgd = First(1, InTurn()), Constant(evaluate.relearn_lr), SGD(0.0, 0.0)
    return (Phase("relearn", evaluate.relearn, (Term("forget"),), evaluate.relearn_batch_size, lr, one_step, optimizer=sgd),)


def relearn(network: torch.nn.Module, data: Data, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Fine-tune a copy of the network on forget, always by seed 0: a table does not depend on who reads the model.

    Args:
        network: it does not change.
        data: with the split forget.
        recipe: of single steps.

    Returns:
        [forget images, 1 + steps]: 1 where the prediction is the label, before the first step and after each.
    """
    forget, correct = data.splits["forget"], []

    def evaluate(model: torch.nn.Module, data: Data) -> dict[str, float]:
        correct.append((inference.logits(model, data, forget).argmax(dim=1) == data.labels_N[forget]).cpu().numpy())
        return {}

    for _ in engine.run(recipe, copy.deepcopy(network), data, RunOptions(evaluate=evaluate)):
        pass
    return np.stack(correct, axis=1).astype(np.uint8)
