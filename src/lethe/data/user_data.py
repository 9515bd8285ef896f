"""A user's own data as batches on the device: a Dataset, a pair of tensors or a DataLoader per split.

N examples, B batch. Read once into memory, so that an epoch is a permutation of indices, as for data of a workspace.
"""

import copy
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lethe._util.errors import UserError
from lethe._util.names import nearest
from lethe.data.device_data import Data, RawInputs
from lethe.data.splits import SPLITS

Examples: TypeAlias = tuple[Any, Any] | Dataset[Any] | DataLoader[Any] | Callable[[], Iterable[Any]]

log = logging.getLogger("lethe")

ACCEPTS = "it takes a torch Dataset of (input, label), a pair of tensors (inputs, labels), or a callable that returns a DataLoader"
BATCH = 512


def as_data(
    splits: Mapping[str, Examples | None],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Data:
    """Read the splits of a user's data into one table of inputs and labels on the device.

    Floating-point inputs are taken as they are, whatever their shape; integer ones (token ids) too. uint8 inputs are images: they stay
    uint8 on the device, and a batch is scaled to [0, 1] and, with `mean` and `std`, normalised.

    Args:
        splits: examples of retain, forget, validation, test, by name; None for a split that is not given. A Dataset is read in its
            order, once, with whatever its transforms draw.
        device: where inputs and labels are kept.
        dtype: what floating-point inputs are cast to, the model's.
        mean: of each channel, pixels scaled to [0, 1]; for uint8 images alone.
        std: the same.

    Returns:
        The data with the given splits, and `train`: retain and forget, as far as they are given.

    Raises:
        UserError: no split has examples, or one has none, or something that is no input and class index; a name is no split's; mean or
            std is of no such pixels; or retain has all of forget in it.
    """
    if not isinstance(splits, Mapping):
        raise UserError(f"data is a {type(splits).__name__}; it takes a dict of examples by split ({', '.join(SPLITS)})")
    for name in splits:
        if name not in SPLITS:
            raise UserError(f"data has {name!r}; nearest: {nearest(str(name), SPLITS)}; it takes {', '.join(SPLITS)}")
    given = {name: _read(name, splits[name]) for name in SPLITS if splits.get(name) is not None}
    if not given:
        raise UserError(f"data has no examples; it takes those of {', '.join(SPLITS)}, as far as there are any")
    _check_alike(given)
    _check_apart(given)
    inputs = torch.cat([inputs for inputs, _ in given.values()])
    labels = torch.cat([labels for _, labels in given.values()]).to(device)
    index = dict(zip(given, torch.arange(len(labels), device=device).split([len(own) for _, own in given.values()]), strict=True))
    if trained := [index[name] for name in ("retain", "forget") if name in index]:
        index["train"] = torch.cat(trained)
    if inputs.dtype != torch.uint8:
        if mean is not None or std is not None:
            raise UserError("mean and std normalise uint8 images; inputs of another type are taken as they are")
        as_they_are = inputs.to(device, dtype) if inputs.is_floating_point() else inputs.to(device)
        zero, one = torch.zeros(1, device=device), torch.ones(1, device=device)
        return RawInputs(as_they_are, labels, index, zero, one)
    channels = inputs.shape[1]
    centre, spread = _per_channel("mean", mean, 0.0, channels), _per_channel("std", std, 1.0, channels)
    return Data(inputs.to(device), labels, index, centre.to(device), spread.to(device))


def check_model(model: Module, data: Data, role: str = "") -> None:
    """Try a model on two examples; it does not change.

    Args:
        model: takes a batch of inputs [B, ...], returns logits [B, C].
        data: what it is to be trained or measured on.
        role: what it is called where there are several.

    Raises:
        UserError: it takes more than one input, fails on the inputs, gives no logits, or has fewer classes than there are labels.
    """
    kind = type(model).__name__
    name = f"{role} ({kind})" if role else kind
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if len(needed) > 1:
        whose = f"{role}: {kind}" if role else kind
        raise UserError(f"{whose}.forward takes {len(needed)} inputs ({', '.join(needed)}); it must take one tensor [B, ...]")
    first = next(index[:2] for index in data.splits.values())
    network = copy.deepcopy(model).to(data.device).eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network(data.normalised(first))
    except Exception as error:  # the user's own code, on inputs of another shape
        shape = list(data.images_NCHW.shape[1:])
        raise UserError(f"{name} fails on inputs [B, {str(shape)[1:-1]}]: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(first):
        what = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{name} gives {what} for a batch of {len(first)}; it must give logits [B, classes]")
    low, high = int(data.labels_N.min()), int(data.labels_N.max())
    if low < 0 or high >= logits.shape[1]:
        raise UserError(f"labels run from {low} to {high}, and {name} has {logits.shape[1]} classes; it takes 0 to {logits.shape[1] - 1}")


def _read(name: str, examples: Any) -> tuple[Tensor, Tensor]:
    """inputs [N, ...] and labels int64 [N] of a split."""
    if isinstance(examples, TensorDataset):
        examples = examples.tensors
    if isinstance(examples, tuple | list):
        if len(examples) != 2:
            raise UserError(f"{name} has {len(examples)} tensors; {ACCEPTS}")
        inputs, labels = (part if isinstance(part, Tensor) else _tensor(name, part) for part in examples)
    else:
        inputs, labels = _collected(name, examples)
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise UserError(f"{name}: labels are {_kind(labels)}; they are class indices, one integer an example")
    if len(inputs) != len(labels):
        raise UserError(f"{name} has {len(inputs)} inputs and {len(labels)} labels")
    if not len(labels):
        raise UserError(f"{name} has no examples")
    if inputs.dtype == torch.uint8 and inputs.ndim != 4:
        raise UserError(f"{name}: inputs are {_kind(inputs)}; uint8 is for images [N, channels, height, width], others are float")
    return inputs.detach(), labels.long()


def _collected(name: str, examples: Any) -> tuple[Tensor, Tensor]:
    if isinstance(examples, Dataset):
        if not hasattr(examples, "__len__"):
            raise UserError(f"{name} is a {type(examples).__name__} without a length; {ACCEPTS}")
        examples = DataLoader(examples, batch_size=BATCH)
    elif not isinstance(examples, DataLoader):
        if not callable(examples):
            raise UserError(f"{name} is a {type(examples).__name__}; {ACCEPTS}")
        examples = examples()
    parts: list[tuple[Tensor, Tensor]] = []
    try:
        for batch in examples:
            if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
                raise UserError(f"{name} gives {_what(batch)} for each example; {ACCEPTS}")
            parts.append((batch[0], batch[1]))
        if not parts:
            raise UserError(f"{name} has no examples")
        return torch.cat([inputs for inputs, _ in parts]), torch.cat([labels for _, labels in parts])
    except (TypeError, RuntimeError) as error:  # default_collate: PIL images, inputs of several sizes
        raise UserError(f"{name} can't be made into tensors ({' '.join(str(error).split())[:160]}); {ACCEPTS}") from None


def _tensor(name: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name} has a {type(values).__name__}; {ACCEPTS}") from None


def _check_alike(given: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    (first, (one, _)), *others = given.items()
    for name, (inputs, _) in others:
        if inputs.shape[1:] != one.shape[1:] or inputs.dtype != one.dtype:
            raise UserError(f"{name} has inputs {_kind(inputs)}, {first} has {_kind(one)}; all splits take the same")


def _check_apart(given: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Retain must not teach what is to be forgotten: the training data as a whole are no retain set.

    Examples are the same if input and label are; the same picture with its label put right belongs in retain."""
    if "retain" not in given or "forget" not in given:
        return
    forget = [*_rows(*given["forget"])]
    wanted = set(forget)
    found = {row for row in _rows(*given["retain"]) if row in wanted}
    here = sum(row in found for row in forget)
    if here == len(forget):
        raise UserError(
            f"retain has {'the example' if here == 1 else f'all {here} examples'} of forget in it, with the same labels; "
            "retain takes the training examples without those to forget"
        )
    if here:
        log.warning("%d of %d examples of forget are in retain, too, with the same labels: a model is taught them again", here, len(forget))


def _rows(inputs: Tensor, labels: Tensor) -> Iterator[tuple[int, bytes]]:
    """Label and bytes of each example."""
    table = inputs.cpu().contiguous().view(len(inputs), -1).view(torch.uint8).numpy()
    return ((label, row.tobytes()) for label, row in zip(labels.tolist(), table, strict=True))


def _per_channel(name: str, values: Sequence[float] | None, fill: float, channels: int) -> Tensor:
    """float32 [1, channels, 1, 1]"""
    try:
        found = [fill] * channels if values is None else [float(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{name} is {values!r}; it takes one number for each channel, e.g. {[0.5] * channels}") from None
    if len(found) != channels:
        raise UserError(f"{name} has {len(found)} numbers; the images have {channels} channels")
    if not all(0 <= value <= 1 and (value or name == "mean") for value in found):  # a NaN is not, either
        accepted = "0 to 1" if name == "mean" else "above 0, at most 1"
        raise UserError(f"{name} is {found}; it takes numbers {accepted}: pixels are scaled to [0, 1] (divide those of 0 to 255 by 255)")
    return torch.tensor(found).view(1, -1, 1, 1)


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _what(batch: Any) -> str:
    if isinstance(batch, tuple | list):
        return f"{len(batch)} values" if len(batch) != 2 else " and ".join(f"a {type(part).__name__}" for part in batch)
    return f"a {type(batch).__name__}"
