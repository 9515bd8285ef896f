"""A workspace: the images and splits that lie in it, held against what the configuration asks for."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch.nn import Module

from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import splits
from lethe.data.device_data import Data
from lethe.data.images import Images
from lethe.data.splits import Splits
from lethe.models import architectures as model
from lethe.models import device as compute
from lethe.models.device import Compute
from lethe.workspace.layout import Layout

AHEAD = 3  # batches that are cut while the device is busy, where it can't hold the images


@dataclass(frozen=True)
class Prepared:
    """The images and their four splits, as they lie in the workspace and as the configuration asks for them."""

    config: Config
    images: Images
    splits: Splits

    @property
    def layout(self) -> Layout:
        return Layout(self.config.workspace)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """`data`: what an original was trained on; `split`: all four splits; `retain`: what a retrained model was trained on."""
        return {
            "data": self.images.train_hash(),
            "split": splits.split_hash(self.splits, self.images),
            "retain": splits.retain_hash(self.splits, self.images),
        }

    @cached_property
    def compute(self) -> Compute:
        found = compute.resolve(self.config.run)
        log(f"device {found}")
        return found

    @cached_property
    def data(self) -> Data:
        device = self.compute.device
        index = {name: torch.from_numpy(index).to(device) for name, index in self.splits.items()}
        index["train"] = torch.arange(self.images.train, device=device)
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (self.config.data.mean, self.config.data.std))
        pixels, labels = torch.from_numpy(self.images.pixels), torch.from_numpy(self.images.labels).to(device)
        if self.compute.holds(pixels.nbytes, self.config.run.images):
            return Data(pixels.to(device), labels, index, mean, std, self.compute.channels_last)
        log(f"{pixels.nbytes / 2**20:,.0f} MiB of images stay in the host's memory")
        return Data(pixels, labels, index, mean, std, self.compute.channels_last, AHEAD)

    def seeded(self, seed: int) -> "Prepared":
        """The same images, where they are now, for a run by another seed."""
        run = self.config.run.model_copy(update={"seed": seed, "seeds": 1})
        other = replace(self, config=replace(self.config, run=run))
        for name in ("hashes", "compute", "data"):
            object.__setattr__(other, name, getattr(self, name))
        return other

    def network(self, seed: int) -> Module:
        fresh = model.build(self.config.model.architecture, len(self.images.classes), seed)
        return self.compute.place(fresh)
