"""Images and splits on disk: written once, and checked against what the configuration asks for."""

import shlex
from typing import Any

from lethe._util.checkout import root
from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import sources, splits
from lethe.data.deletion_request import DeletionRequest
from lethe.data.images import load_images, save_images
from lethe.workspace.layout import Layout
from lethe.workspace.settings import as_words, record, record_data, recorded, repair_command
from lethe.workspace.workspace import Prepared


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


def remember(prepared: Prepared, *prefixes: str) -> None:
    """Record the given keys by which something was just made."""
    record(prepared.config, prepared.hashes["data"], *prefixes)


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
