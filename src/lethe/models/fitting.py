"""Fit tensors of other origin to a network: wrappers, common prefixes and bookkeeping entries are taken off, and logged."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.models.foreign import FLOAT

COUNTER = "num_batches_tracked"  # BatchNorm's; absent from files of before torch 0.4.1, and nothing depends on it
WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # put before the name of any module by what wraps it
BOOKKEEPING = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$")  # AveragedModel's, thop's
AUXILIARY = re.compile(r"^aux", re.IGNORECASE)  # heads that googlenet and inception_v3 have in training only
NOT_THE_NETWORK = re.compile(r"^(criterion|loss|metric|acc|auroc|f1|confusion)", re.IGNORECASE)  # outside of the prefix, as Lightning keeps


@dataclass(frozen=True)
class Normalisation:
    """What a network's own first layer subtracts from the pixels, scaled to [0, 1], and divides them by.

    Args:
        names: of its two tensors.
        mean: one number a channel.
        std: the same.
        unit: what the layer takes white for: 1, or 255.
    """

    names: tuple[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: float = 1.0

    @property
    def left(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that leave the input of the layer as it expects it."""
        return (0.0,) * 3, (round(1 / self.unit, 8),) * 3

    def check(self, mean: Iterable[float], std: Iterable[float], source: str, *, quiet: bool = False) -> None:
        """Compare with data.mean and data.std, which take its place.

        Args:
            mean: data.mean.
            std: data.std.
            source: of the tensors, for messages.
            quiet: log nothing.

        Raises:
            UserError: they differ; the message has the keys that are right.
        """
        ours, theirs = (*mean, *std), (*self.mean, *self.std)
        if len(ours) == len(theirs) and all(abs(one - other) < 1e-3 for one, other in zip(ours, theirs, strict=True)):
            if not quiet:
                log(f"{source}: its {' and '.join(self.names)} are left out: data.mean and data.std are the same")
            return
        keys = (f"--data.{key} {','.join(f'{value:.4g}' for value in values)}" for key, values in (("mean", self.mean), ("std", self.std)))
        raise UserError(
            f"{source} has the network normalise its input itself ({' and '.join(self.names)}); data.mean and data.std do that here: "
            f"give {' '.join(keys)}"
        )


def fit(model: Module, tensors: Mapping[str, Tensor], source: str, *, quiet: bool = False, new_head: bool = False) -> Normalisation | None:
    """Load tensors of other origin into a network.

    Args:
        model: is changed.
        tensors: by name: as its `state_dict()` has them, or behind one common prefix; counters of BatchNorm may be absent.
        source: of the tensors, for messages.
        quiet: log nothing.
        new_head: the last layer keeps its own weights where the file has it for other classes, or not at all.

    Returns:
        The normalisation of a first layer that the file has and the network has not.

    Raises:
        UserError: names what is missing, unexpected, of another shape or type, or not finite.
    """
    wanted, held = model.state_dict(), _unwrapped(tensors)
    prefix = _prefix(wanted, held, source)
    own = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    head = _new_head(model, wanted, own, source, quiet) if new_head else ()
    own = {name: value for name, value in own.items() if name not in head}
    wanted = {name: value for name, value in wanted.items() if name not in head}
    outside = {name: value for name, value in held.items() if not name.startswith(prefix)}
    _check_classes(wanted, own, source)
    missing = [name for name in wanted if name not in own and not name.endswith(COUNTER)]
    more = {name: value for name, value in own.items() if name not in wanted and not AUXILIARY.match(name)}
    more |= {name: value for name, value in outside.items() if not NOT_THE_NETWORK.match(name)}
    normalisation = None if missing else own_normalisation(more)
    unexpected = [name for name in more if normalisation is None or name not in normalisation.names]
    if head and not any(prefix + name in held for name in head):
        unexpected = []  # a head of another kind, such as a projection: all of the network but its own head is there
    if missing or unexpected:
        faults = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has also", unexpected)) if names]
        raise UserError(f"{source} does not fit the model: it {' and '.join(faults)}: another architecture?")
    _check_values(wanted, own, source)
    if not quiet:
        known = normalisation.names if normalisation else ()
        left = [name for name in held if name.removeprefix(prefix) not in (*wanted, *head) and name not in known]
        _log(source, prefix, left, [name for name in wanted if name not in own], normalised=bool(known))
    model.load_state_dict(model.state_dict() | {name: own.get(name, value) for name, value in wanted.items()})
    return normalisation


def _new_head(model: Module, wanted: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, quiet: bool) -> tuple[str, ...]:
    """The names of the last layer's tensors where the file's are of other shapes, or missing; () where they fit."""
    *_, last = (name for name, layer in model.named_modules() if any(True for _ in layer.parameters(recurse=False)))
    names = tuple(name for name in wanted if name.startswith(f"{last}.") or not last)
    if all(name in own and own[name].shape == wanted[name].shape for name in names):
        return ()
    if not quiet:
        theirs = next((f"has {len(own[name])} classes" for name in names if name in own and own[name].dim()), "is not in the file")
        log(f"{source}: all but the head is taken: {last} {theirs} there, and is random here, for {len(wanted[names[0]])} classes")
    return names


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wraps single modules, without bookkeeping, and with the masks of torch.nn.utils.prune applied."""
    held: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for part in WITHIN:
            name = name.replace(part, "")
        if not BOOKKEEPING.search(name):
            held[name] = value
    for name in [name.removesuffix("_mask") for name in held if name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in held]:
        held[name] = held.pop(f"{name}_orig") * held.pop(f"{name}_mask")
    return held


def _prefix(wanted: Mapping[str, Tensor], held: Mapping[str, Tensor], source: str) -> str:
    """The prefix after which the network's names are found; where none has them all, the one that has most, for the error."""
    names = [name for name in wanted if not name.endswith(COUNTER)]
    candidates = dict.fromkeys(
        ["", *(name.removesuffix(own) for own in names[:3] + names[-3:] for name in held if name.endswith(f".{own}"))]
    )
    counts = {prefix: sum(prefix + name in held for name in names) for prefix in candidates}
    whole = [prefix for prefix, count in counts.items() if count == len(names)]
    if len(whole) > 1 and "" not in whole:
        keys = " or ".join(f"#key={prefix.rstrip('.')}" for prefix in whole)
        raise UserError(f"{source} holds {len(whole)} networks that fit; it takes {source}{keys}")
    return "" if "" in whole else max(counts, key=lambda prefix: counts[prefix])


def _check_classes(wanted: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    head = [name for name, value in wanted.items() if name.endswith("bias") and value.dim() == 1]
    for name in head[-1:]:  # the last by the model's order: a file may have another
        if name in own and own[name].shape != wanted[name].shape:
            raise UserError(f"{source} was made for {own[name].numel()} classes, the data has {len(wanted[name])}")


def own_normalisation(tensors: Mapping[str, Tensor]) -> Normalisation | None:
    """Find the mean and standard deviation of a network that normalises its input itself.

    Args:
        tensors: by name.

    Returns:
        The only two tensors of one number, or one number a channel, that are called mean and std; None where there are none or several.
    """
    pairs = [(name, f"{name[:-4]}std") for name in tensors if name.endswith("mean") and f"{name[:-4]}std" in tensors]
    if len(pairs) != 1 or any(tensors[name].numel() not in (1, 3) for name in pairs[0]):
        return None
    mean, std = ([round(float(value), 6) for value in tensors[name].flatten()] * (3 // tensors[name].numel()) for name in pairs[0])
    unit = 255.0 if max(mean) > 1 else 1.0  # for pixels of 0 to 255
    if min(std) <= 0:
        return None
    scaled_mean, scaled_std = (tuple(round(value / unit, 6) for value in values) for values in (mean, std))
    return Normalisation(pairs[0], scaled_mean, scaled_std, unit)


def _check_values(wanted: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    bad: list[str] = []
    for name, value in wanted.items():
        if name not in own:
            continue
        given = own[name]
        if value.shape != given.shape:
            shapes = ["x".join(map(str, t.shape)) or "a number" for t in (given, value)]
            raise UserError(f"{source}: {name} is {shapes[0]} in the file, {shapes[1]} in the model: another architecture?")
        if value.is_floating_point() and not given.is_floating_point():
            kind = str(given.dtype).removeprefix("torch.")
            raise UserError(f"{source}: {name} is {kind} in the file: quantised weights can't be trained; {FLOAT}")
        if given.is_floating_point() and not torch.isfinite(given.float()).all():
            bad.append(name)
    if bad:
        raise UserError(
            f"{source} has values that are not finite (NaN or infinite) in {_few(bad)}: the training that made it diverged; it takes an "
            "earlier checkpoint"
        )


def _log(source: str, prefix: str, left: list[str], absent: list[str], *, normalised: bool) -> None:
    """Log what differs between the file and the network."""
    if prefix:
        log(f"{source}: {prefix!r} is taken off the names")
    first = prefix.rstrip(".").rpartition(".")[2]
    if first.isdigit() and first != "0" and not normalised:
        log(
            f"{source}: the network was part {first} of a Sequential; what a layer before it did to the input is for data.mean and data.std"
        )
    if left:
        log(f"{source}: left out, since the network has no such part: {_few(left)}")
    if absent:
        log(f"{source}: BatchNorm's counters ({COUNTER}) are absent, and begin at 0")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
