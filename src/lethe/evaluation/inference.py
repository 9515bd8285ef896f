"""Inference: a model's logits and features on all images. N images, B batch, C classes, D features."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import Linear, Module

from lethe._util.files import digest
from lethe.data.device_data import Data
from lethe.evaluation.logits_table import COPIES, DRAWS, RESIDUAL, Array, Ints
from lethe.evaluation.metrics import accuracy, cross_entropy
from lethe.recipes.forward import Table

BATCH = 512
PERTURBED = 1000  # perturbed copies for each radius where no key says how many: the default of evaluate.perturbed


@torch.no_grad()
def logits(model: Module, data: Data, index_N: Tensor, autocast: Callable[[], AbstractContextManager[None]] = nullcontext) -> Tensor:
    """Compute the logits of a model in eval mode.

    Args:
        model: takes a batch of inputs [B, ...].
        data: the images.
        index_N: which images, in this order.
        autocast: context of the forward pass, for reduced precision.

    Returns:
        float32 [N, C] on the data's device.
    """
    was_training = model.training
    model.eval()
    table = Table(len(index_N))
    for index_B in index_N.split(data.at_once(BATCH)):
        with autocast():
            table.add(model(data.normalised(index_B)).float())
    model.train(was_training)
    assert table.rows is not None
    return table.rows


@torch.no_grad()
def logits_and_features(model: Module, data: Data, index_N: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute the logits, and the features that the last linear layer takes.

    Args:
        model: takes a batch of inputs [B, ...].
        data: the images.
        index_N: which images, in this order.

    Returns:
        Logits, float32 [N, C], and features, float32 [N, D] on the CPU; None instead of features if there is no linear layer, or if it
        does not take a single vector per image.
    """
    heads = [layer for layer in model.modules() if isinstance(layer, Linear)]
    seen, single = Table(len(index_N)), True

    def see(_: Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal single
        single = single and inputs[0].ndim == 2
        if single:
            seen.add(inputs[0].detach().float().cpu())

    hook = heads[-1].register_forward_pre_hook(see) if heads else None
    try:
        outputs = logits(model, data, index_N)
    finally:
        if hook:
            hook.remove()
    return outputs, seen.rows if single and seen.filled == len(index_N) else None


def perturbed_sample(ids: Sequence[str], copies: int | None) -> tuple[Ints, int]:
    """Choose the images whose perturbed copies are classified, and how many copies of each.

    As many images as possible: images differ far more than copies of one image do, so a second image narrows the interval more than
    a second copy. Which images depends on their ids alone, so it is the same for every model; a smaller sample is part of a larger one.

    Args:
        ids: of the images to choose from, N of them.
        copies: number of copies for each radius; None: COPIES of every image.

    Returns:
        Rows [n], ascending, and the number of copies of each, 1 to COPIES.
    """
    if copies is None or copies >= COPIES * len(ids):
        return np.arange(len(ids)), COPIES
    if copies >= len(ids):
        return np.arange(len(ids)), copies // len(ids)
    order = sorted(range(len(ids)), key=lambda row: digest([ids[row]]))
    return np.sort(np.array(order[:copies], np.int64)), 1


@torch.no_grad()
def perturbed(model: Module, data: Data, index_N: Tensor, ids: Sequence[str], taus: Sequence[float], draws: int = COPIES) -> Tensor:
    """Count the perturbed copies of each image that a model (eval mode, float32) classifies correctly. Hsu et al., arXiv:2601.22359.

    Perturbations are uniform in the L2 ball of radius tau x sqrt(number of pixel values), for pixels in [0, 1], without clipping. They
    depend on the image's id and the number of copies only, and have the same direction for every tau.

    Args:
        model: takes a batch of inputs [B, ...].
        data: the images.
        index_N: which images, in this order.
        ids: their ids.
        taus: radii.
        draws: number of copies per image and radius.

    Returns:
        uint8 [N, taus].
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(len(index_N), len(taus), dtype=torch.uint8)
    shape = data.images_NCHW.shape[1:]
    size = shape.numel()
    form = torch.channels_last if data.channels_last else torch.contiguous_format
    for rows in torch.arange(len(index_N)).split(max(1, data.at_once(BATCH) // draws)):
        drawn = torch.stack([_in_the_unit_ball(draws, size, ids[row]) for row in rows.tolist()]).to(data.device)
        index_B = index_N[rows.to(index_N.device)]
        images, labels_B = data.normalised(index_B)[:, None], data.labels_N[index_B][:, None]
        for number, tau in enumerate(taus):
            noisy = (drawn.view(len(rows), draws, *shape) * (tau * size**0.5 / data.std)).add_(images)
            batch = noisy.flatten(0, 1).contiguous(memory_format=form)
            del noisy  # a batch of memory while the model runs
            predicted = model(batch).argmax(dim=1).view(len(rows), draws)
            counts[rows, number] = (predicted == labels_B).sum(dim=1).to("cpu", torch.uint8)
    model.train(was_training)
    return counts


def perturbed_columns(
    model: Module, data: Data, forget: Ints, ids: Sequence[str], taus: Sequence[float], copies: int | None
) -> dict[str, Array]:
    """Compute the columns of a logits table that the measure residual needs.

    Args:
        model: takes a batch of inputs [B, ...].
        data: the images.
        forget: rows of the forget images.
        ids: of all images, N of them.
        taus: radii, see `perturbed`.
        copies: number of perturbed copies for each radius, spread as by `perturbed_sample`; None: COPIES of every forget image.

    Returns:
        RESIDUAL, uint8 [N, taus], 0 for other images; and DRAWS, uint8 [N], unless there are COPIES of every forget image.
    """
    rows, draws = perturbed_sample([ids[row] for row in forget], copies)
    sampled = forget[rows]
    columns: dict[str, Array] = {RESIDUAL: np.zeros((len(ids), len(taus)), np.uint8)}
    index = torch.from_numpy(sampled).to(data.device)
    columns[RESIDUAL][sampled] = perturbed(model, data, index, [ids[row] for row in sampled], taus, draws).numpy()
    if draws < COPIES:
        columns[DRAWS] = np.zeros(len(ids), np.uint8)
        columns[DRAWS][sampled] = draws
    return columns


def _in_the_unit_ball(draws: int, size: int, id_: str) -> Tensor:
    """Points [draws, size], uniform in the unit ball, seeded by the id: a direction from normal draws, a radius from a uniform one."""
    generator = torch.Generator().manual_seed(int(digest([id_])[:15], 16))
    direction = torch.randn(draws, size, generator=generator)
    radius = torch.rand(draws, 1, generator=generator).pow(1 / size)
    return direction.div(direction.norm(dim=1, keepdim=True)).mul(radius)


def evaluator(
    data: Data,
    splits: Iterable[str],
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    retain: int | None = None,
    read: Callable[[Module, Data, Tensor], Tensor] | None = None,
) -> Callable[..., dict[str, float]]:
    """Build the function that the engine evaluates a model with after an epoch.

    Args:
        data: the images.
        splits: the splits to evaluate on.
        autocast: context of the forward pass, for reduced precision.
        retain: number of retain images to evaluate on, always the same sample; None for all.
        read: returns the logits of a model on images, as `logits`, which it replaces: `Outputs.read` knows some already.

    Returns:
        A function (model, data) -> `<split>.accuracy` (percent), `<split>.loss` (nats), `gap` (retain minus forget accuracy, points).
    """
    names = list(splits)
    chosen = {name: data.splits[name] for name in names}
    if retain is not None and retain < len(chosen.get("retain", ())):  # of all of them the order stays: the same batches, the same bits
        order = torch.randperm(len(chosen["retain"]), generator=torch.Generator().manual_seed(0))
        chosen["retain"] = chosen["retain"][order[:retain].to(data.device)]
    index_N = torch.cat(list(chosen.values()))
    sizes = [len(index) for index in chosen.values()]
    labels = data.labels_N[index_N].split(sizes)

    def evaluate(model: Module, source: Data = data) -> dict[str, float]:
        tables = (read(model, source, index_N) if read else logits(model, source, index_N, autocast)).split(sizes)
        measured: dict[str, float] = {}
        for name, logits_NC, labels_N in zip(names, tables, labels, strict=True):
            measured[f"{name}.accuracy"] = accuracy(logits_NC, labels_N)
            measured[f"{name}.loss"] = cross_entropy(logits_NC, labels_N)
        if "retain" in names and "forget" in names:
            measured["gap"] = measured["retain.accuracy"] - measured["forget.accuracy"]
        return measured

    return evaluate
