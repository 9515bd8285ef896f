"""A workspace: the images and splits that lie in it, held against what the configuration asks for."""

import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.nn import Module

from lethe._util.checkout import root
from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import sources, splits
from lethe.data.deletion_request import DeletionRequest
from lethe.data.device_data import Data
from lethe.data.images import Images, load_images, save_images
from lethe.data.splits import Splits
from lethe.models import architectures as model
from lethe.models import device as compute
from lethe.models.device import Compute
from lethe.workspace.layout import Layout
from lethe.workspace.settings import as_words, record, record_data, recorded, repair_command

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


def prepare(config: Config, anew: bool = False) -> Prepared:
    """data/{train,held_out}.json and data/splits/*.csv, where missing. `anew` (the stage itself) replaces what does not belong;
    else that is an error. data/images.safetensors is but a copy that is read faster: made anew when its source has changed."""
    asked = config.data
    where: Any = {"root": config.path(asked.root) if asked.root else None, "image_size": asked.image_size, "limit": asked.limit}
    layout = Layout(config.workspace)
    folder = layout.data
    kept = Layout(config.path(config.run.workspace))  # one for all the copies that DVC makes of a checkout
    path = kept.images
    listing = sources.listing(asked.source, **where)
    images, was = load_images(path) if path.exists() else (None, "")
    others = f"{folder} holds other images than data.source {asked.source} asks for; {_or_give(config)}makes it anew"
    if not anew and recorded(config).get("data.source", asked.source) != asked.source:
        raise UserError(others)  # before they are fetched
    if images is None or was != listing:
        log(f"reading {asked.source} images")
        images, was = sources.read(asked.source, **where, cache=kept.data), ""
    prepared = Prepared(config, images, splits.draw(images, _request(config), asked.seed))
    about = {layout.about(part): said for part, said in _about(prepared).items()}
    if not anew:
        if any(file.exists() and read_json(file) != said for file, said in about.items()):
            raise UserError(others)
        there = splits.read(layout.splits, images) if (layout.splits).exists() else None
        if there and splits.split_hash(there, images) != prepared.hashes["split"]:
            raise UserError(f"{layout.splits} holds other splits than data.forget and data.seed ask for; {_or_give(config)}draws them anew")
    if was != listing:
        save_images(images, path, listing)
    for file, said in about.items():
        if anew or not file.exists():
            write_json(file, said)
    if anew or not (layout.splits).exists():
        splits.write(prepared.splits, images, layout.splits)
    record_data(config, prepared.hashes["data"], anew)
    unseen = layout.gitignore
    if config.workspace.resolve() != root().resolve() and not unseen.exists():
        write_text(unseen, "*\n")  # no `git add -A` takes someone's images, nor the request to forget them
    return prepared


def lying(config: Config) -> Prepared:
    """The images and splits that lie in the workspace, whatever the configuration asks for; fetched by it where there are none."""
    layout = Layout(config.workspace)
    kept = layout.images
    if not kept.exists():
        return prepare(config)
    images, _ = load_images(kept)
    return Prepared(config, images, splits.read(layout.splits, images))


def _about(prepared: Prepared) -> dict[str, Any]:
    """What DVC hashes in place of the images, whose copy holds file times: an original depends on the first alone."""
    images = prepared.images
    n = images.train
    held_out = digest([images.labels[n:].astype("<i8").tobytes(), images.pixels[n:].tobytes()])
    return {
        "train": {"hash": prepared.hashes["data"], "images": n, "classes": list(images.classes)},
        "held_out": {"hash": held_out, "images": images.held_out},
    }


def _request(config: Config) -> DeletionRequest:
    forget = config.data.forget
    return DeletionRequest(forget.fraction, forget.count, forget.classes, config.path(forget.ids) if forget.ids else None)


def _or_give(config: Config) -> str:
    told = shlex.join(as_words({key: text for key, text in recorded(config).items() if not key.startswith("methods.")}))
    return f"{f'it was made with {told}, so give that, or ' if told else ''}{repair_command('prepare', config)} "


def remember(prepared: Prepared, *prefixes: str) -> None:
    """Record the given keys by which something was just made."""
    record(prepared.config, prepared.hashes["data"], *prefixes)
