"""A prepared workspace: its images and splits, on the device, with what every stage asks of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import splits
from lethe.data.device_data import Data
from lethe.data.images import Images
from lethe.data.pixel_store import Rows, as_tensor
from lethe.data.splits import Splits
from lethe.engine.epoch_table import MEASURED
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.options import RunOptions
from lethe.evaluation.outputs import Outputs
from lethe.models import architectures, checkpoint, device, initial
from lethe.models.device import Compute
from lethe.models.redraw import unrelated_seed
from lethe.recipes import recipe
from lethe.recipes.recipe import Recipe
from lethe.workspace.layout import Layout

PREFETCH = 3  # batches that are prepared while the device is busy, if it can't hold the images


@dataclass(frozen=True)
class Prepared:
    """The images and their four splits, as the workspace holds them and the configuration asks for them."""

    config: Config
    images: Images
    splits: Splits

    @property
    def layout(self) -> Layout:
        """The paths of the workspace."""
        return Layout(self.config.workspace)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of what an original is trained on (`data`), of all four splits (`split`), of what a retrained model is trained on (`retain`); and
        in words how the pixels reach a model (`normalisation`)."""
        return {
            "data": self.images.train_hash(),
            "split": splits.split_hash(self.splits, self.images),
            "retain": splits.retain_hash(self.splits, self.images),
            "normalisation": normalisation(self.config),
        }

    @cached_property
    def compute(self) -> Compute:
        """Device, precision and memory format, resolved and logged at first use."""
        resolved = device.resolve(self.config.run)
        log(f"device {resolved}")
        return resolved

    @cached_property
    def data(self) -> Data:
        """Images uint8 [N, 3, H, W], labels and splits as tensors on the device; images that do not fit there stay in the host's memory."""
        place = self.compute.device
        index = {name: torch.from_numpy(index).to(place) for name, index in self.splits.items()}
        index["train"] = torch.arange(self.images.train, device=place)
        mean, std = (torch.tensor(v, device=place).view(1, -1, 1, 1) for v in (self.config.data.mean, self.config.data.std))
        pixels, labels = as_tensor(self.images.pixels), torch.from_numpy(self.images.labels).to(place)
        rows = Rows(self.images.pixels)
        stored = rows if rows.large else None
        if self.compute.holds(pixels.nbytes, self.config.run.images):
            held = pixels.to(place)
            return Data(held, labels, index, mean, std, self.compute.channels_last, stored=stored if held is pixels else None)
        where = "in their file" if stored else "in the host's memory"
        log(f"{pixels.nbytes / 2**20:,.0f} MiB of images stay {where}")
        return Data(pixels, labels, index, mean, std, self.compute.channels_last, PREFETCH, stored)

    @cached_property
    def outputs(self) -> Outputs:
        """What the model that was read last gives for the images that an epoch is measured on."""
        return Outputs(self.data, MEASURED)

    def seeded(self, seed: int) -> "Prepared":
        """Return the same images, without a copy, configured for a run by another seed."""
        run = self.config.run.model_copy(update={"seed": seed, "seeds": 1})
        other = replace(self, config=replace(self.config, run=run))
        for name in ("hashes", "compute", "data", "outputs"):
            object.__setattr__(other, name, getattr(self, name))
        return other

    def reference_recipe(self, kind: str) -> Recipe:
        """Return the recipe of a reference on these images (see pretrain.min_steps).

        Args:
            kind: original or retrained.
        """
        return self.config.reference_recipe(kind, None if self._trained_as_set else self.images.train)

    @cached_property
    def _trained_as_set(self) -> bool:
        return _trained_as_set(self.config)

    def run_options(self, seed: int, **others: Any) -> RunOptions:
        """Return how the engine runs a recipe on these images: the workspace's precision, and the networks that edits and losses draw.

        Args:
            seed: of the run.
            **others: fields of RunOptions, such as what is measured.
        """
        return RunOptions(
            seed=seed,
            autocast=self.compute.autocast,
            random_init=partial(self.network, seed),
            fresh_init=partial(self.fresh_network, seed),
            **others,
        )

    def feature_cache(self, log: Callable[[str], None] = lambda text: None) -> Prefix:
        """Return a cache of what frozen layers give, as `run.cache` says.

        Args:
            log: called with one line when what is cached changes.
        """
        return Prefix(self.config.run.cache, self.compute.autocast, log, self.layout.data)

    def untrained(self, seed: int, *, quiet: bool = True) -> Module:
        """Return the network as the training of a reference starts: pretrain.init, or random weights.

        Args:
            seed: of the weights that are random.
            quiet: do not log where pretrain.init comes from.

        Returns:
            The network, on the device.

        Raises:
            UserError: pretrain.init does not exist or does not fit.
        """
        network, text = self.network(seed), self.config.pretrain.init
        if text:
            normalisation = self.config.data.mean, self.config.data.std
            initial.load(network, text, *_init_place(self.config), normalisation=normalisation, quiet=quiet)
        return network

    def network(self, seed: int) -> Module:
        """Return a network with random initial weights, on the device."""
        return self._build(seed, drawn=True)

    def fresh_network(self, seed: int) -> Module:
        """Return a network with random initial weights from which no training begins, on the device.

        Args:
            seed: of the run; that of the weights is another (`unrelated_seed`).
        """
        return self.network(unrelated_seed(seed))

    def loaded(self, tensors: Mapping[str, Tensor], seed: int = 0) -> Module:
        """Return a network with given weights, on the device.

        Args:
            tensors: a state dict of the network.
            seed: of what the network draws besides weights, if it is the user's own.
        """
        network = self._build(seed, drawn=False)
        network.load_state_dict(dict(tensors))
        return network

    def bare_network(self) -> Module:
        """Return a network of which only the modules count: its weights are undefined."""
        return self._build(0, drawn=False)

    def _build(self, seed: int, *, drawn: bool) -> Module:
        network = architectures.build(self.config.model.architecture, len(self.images.classes), seed, drawn=drawn)
        return self.compute.place(network)


def reference_recipe(config: Config, kind: str, images: int) -> Recipe:
    """Return the recipe of a reference, as `Prepared.reference_recipe`, before any image is read.

    Args:
        config: the configuration.
        kind: original or retrained.
        images: number of train images.

    Returns:
        The recipe (see pretrain.min_steps).

    Raises:
        UserError: as `Config.reference_recipe`.
    """
    return config.reference_recipe(kind, None if _trained_as_set(config) else images)


def _trained_as_set(config: Config) -> bool:
    """Whether the references that exist were trained by the numbers as they are set, whatever number of steps that took, as earlier
    versions did: they stay valid, and whatever is compared with them is trained alike."""
    if config.names("min_steps"):
        return False
    for kind in ("original", "retrained"):
        path = Layout(config.workspace).weights(kind)
        if path.exists() and (found := checkpoint.metadata(path).get("recipe")):
            return recipe.same(found, repr(config.reference_recipe(kind)))
    return False


def normalisation(config: Config) -> str:
    """Return in words how the pixels reach a model.

    Args:
        config: the configuration.
    """
    mean, std = (",".join(map(str, values)) for values in (config.data.mean, config.data.std))
    return f"data.mean {mean} and data.std {std}"


def initial_weights(config: Config) -> str:
    """Return what identifies the weights that references are trained from; "": random weights.

    Args:
        config: the configuration.

    Raises:
        UserError: there are no such weights.
    """
    text = config.pretrain.init
    return initial.identity(text, *_init_place(config)) if text else ""


def _init_place(config: Config) -> tuple[str, Path, Path]:
    return config.model.architecture, config.path(Path()), Layout(config.workspace).downloads
