"""A network that normalises its input itself: its mean and standard deviation in place of data.mean and data.std that nobody gave."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.config.describe import show
from lethe.config.loader import Config
from lethe.models import architectures, fitting, foreign
from lethe.models.fitting import Normalisation
from lethe.pipeline.given_original import NORMALISATIONS
from lethe.workspace import settings
from lethe.workspace.layout import Layout

KEYS = ("data.mean", "data.std")


def adopted(config: Config) -> Config:
    """Take over the normalisation of the given original, where the configuration has none but the default.

    A file of `Sequential(normalize, network)` says that the layer comes first. Two entries `normalize.mean` and `normalize.std` next to a
    network, as in checkpoints of Unlearn-Sparse and SalUn, do not say what is done with them: they are refused where data.mean and
    data.std differ, with the keys to give (`Normalisation.check`). Of an architecture that has such a layer itself, nothing is left to
    subtract.

    Args:
        config: the configuration of a command.

    Returns:
        The configuration, with data.mean and data.std as if they had been given where they were taken over; it is logged.
    """
    layout, data = Layout(config.workspace), config.data
    made = layout.weights("original").exists() and not settings.is_checkout(layout.root)  # then the settings have them
    given = any(key in layer for key in KEYS for layer in (config.given, config.settings))
    if given or made or (data.mean, data.std) != NORMALISATIONS["CIFAR-10"]:
        return config
    inside = _of_architecture(config)
    found = inside or _of_checkpoint(config)
    if found is None:
        return config
    mean, std = found.left if inside else (found.mean, found.std)
    of, what = (config.model.architecture, "stays in it") if inside else (str(config.pretrain.checkpoint), "is left out of it")
    read_with = f"data.mean is {show(mean)} and data.std {show(std)}; none was given"
    log(f"{of} normalises its input itself ({' and '.join(found.names)}), which {what}: {read_with}")
    values = dict(zip(KEYS, (mean, std), strict=True))
    as_given = {key: show(value) for key, value in values.items()}
    return replace(config, data=data.model_copy(update={"mean": mean, "std": std}), given={**config.given, **as_given})


def _of_architecture(config: Config) -> Normalisation | None:
    """The normalisation that a network of the user's own has among its buffers."""
    if ":" not in config.model.architecture:
        return None
    try:
        found = fitting.own_normalisation(dict(architectures.build(config.model.architecture, 2, 0).named_buffers()))
    except UserError:
        return None  # the command says why
    changes_nothing = found is not None and (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)
    return None if changes_nothing and config.pretrain.checkpoint is None else found  # a checkpoint may fill it


def _of_checkpoint(config: Config) -> Normalisation | None:
    """The normalisation that the given original's file holds as a layer of a Sequential."""
    if config.pretrain.checkpoint is None:
        return None
    try:
        tensors: dict[str, Tensor] = foreign.read(
            config.pretrain.checkpoint, config.path(Path()), Layout(config.workspace).downloads, quiet=True
        )[0]
    except UserError:
        return None  # the command says why
    network = {name: value for name, value in tensors.items() if not fitting.NOT_THE_NETWORK.match(name)}
    found = fitting.own_normalisation(network)
    return found if found and found.names[0].split(".")[-2:-1] == ["0"] else None
