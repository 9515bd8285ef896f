"""A workspace: the images and splits that lie in it, held against what the configuration asks for."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.nn import Module

from lethe._util.checkout import command, root
from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, write_json, write_text
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

FOUND = ("data.source", "data.root", "data.image_size", "data.limit", "data.seed", "data.forget.")  # what images and splits show
AHEAD = 3  # batches that are cut while the device is busy, where it can't hold the images


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
        say(f"device {found}")
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
        say(f"{pixels.nbytes / 2**20:,.0f} MiB of images stay in the host's memory")
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
    if not anew and _told(config).get("data.source", asked.source) != asked.source:
        raise UserError(others)  # before they are fetched
    if images is None or was != listing:
        say(f"reading {asked.source} images")
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
    _tell(prepared, anew)
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


def mend(stage: str, config: Config, **more: str) -> str:
    """The command that makes what is missing or does not belong, with the keys that were given, now and when the workspace was made."""
    method = more.get("method", "")
    given = {k: v for k, v in config.given.items() if k != "method" and not k.startswith("methods.")} | more
    if stage != "prepare":
        asks = any(key.startswith("data.forget.") for key in given)
        told = {k: v for k, v in _told(config).items() if not (asks and k.startswith("data.forget."))}
        leave = ("pretrain.", "retrain.") if stage in ("pretrain", "retrain") else ()  # what makes anew does so by what is asked now
        told = {k: v for k, v in told.items() if not k.startswith(("methods.", *leave)) or (method and k.startswith(f"methods.{method}."))}
        given = told | given
    return f"`{command(stage, *_words(given))}`"


def _words(given: Mapping[str, str]) -> list[str]:
    return [word for key, value in given.items() for word in (f"--{key}", value)]


def _told(config: Config) -> dict[str, str]:
    """The keys by which the images that lie here were asked for, beside params.yaml: who looks at them later need not know by heart."""
    layout = Layout(config.workspace)
    path, train = layout.given, layout.about("train")
    said: Any = read_json(path) if path.exists() and train.exists() else None
    told: dict[str, str] = said["given"] if said and said.get("of") == read_json(train)["hash"] else {}
    return told


def _tell(prepared: Prepared, anew: bool) -> None:
    """Of a workspace that was there only what this call has found to be so may be said otherwise."""
    config, told = prepared.config, _told(prepared.config)
    given = {key: value for key, value in config.given.items() if key.startswith(("data.", "model."))}
    if told:
        kept = {key: value for key, value in told.items() if not anew or not key.startswith("data.")}
        if any(key.startswith("data.forget.") for key in given):
            kept = {key: value for key, value in kept.items() if not key.startswith("data.forget.")}
        given = kept | (given if anew else {key: value for key, value in given.items() if key.startswith(FOUND)})
    if given != told:
        write_json(prepared.layout.given, {"of": prepared.hashes["data"], "given": given})


def remember(prepared: Prepared, section: str) -> None:
    """The keys of a section by which something was just made."""
    told = _told(prepared.config)
    given = {key: value for key, value in prepared.config.given.items() if key.startswith(section)}
    now = {key: value for key, value in told.items() if not key.startswith(section)} | given
    if now != told:
        write_json(prepared.layout.given, {"of": prepared.hashes["data"], "given": now})


def _or_give(config: Config) -> str:
    told = shlex.join(_words({key: value for key, value in _told(config).items() if not key.startswith("methods.")}))
    return f"{f'it was made with {told}, so give that, or ' if told else ''}{mend('prepare', config)} "
