"""Images and splits on disk: written once, and checked against what the configuration asks for."""

import contextlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from filelock import FileLock

from lethe._util import in_use
from lethe._util.checkout import root
from lethe._util.errors import UserError
from lethe._util.files import read_json, write_json, write_text
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import sources, splits
from lethe.data.images import Images, load_images, save_images
from lethe.workspace import erased
from lethe.workspace.layout import Layout
from lethe.workspace.request import request, source_keys
from lethe.workspace.settings import as_words, record, record_data, recorded, repair_command
from lethe.workspace.workspace import Prepared


def prepare(
    config: Config, replace: bool = False, accept: Callable[[Prepared], None] = lambda drawn: None, *, next_request: bool = False
) -> Prepared:
    """Return the images and splits, and write those of their files that are missing.

    data/images.safetensors is only a copy that is faster to read: it is written again when its source has changed.

    Args:
        config: what they must be.
        replace: write files that hold other images or splits again; otherwise they are an error. Where the last request was erased and the
            next one was not given yet, the splits hold none.
        accept: is called before anything is written, and raises where these images and splits can't be used.
        next_request: whether a request that the command gives may follow one that was erased: the splits are then drawn anew.

    Returns:
        The images and splits, as the files hold them.

    Raises:
        UserError: the files hold other images or splits, and `replace` is False; the message names the command that replaces them.
        RunFailed: another process erases in the workspace.
    """
    asked = config.data
    where = source_keys(config)
    _begin(config)
    layout = Layout(config.workspace)
    folder = layout.data
    shared = Layout(config.path(config.run.workspace))  # one for all copies that DVC makes of a checkout
    path = shared.images
    listing = sources.listing(asked.source, **where)
    images, listed = load_images(path) if path.exists() else (None, "")
    other_images = f"{folder} holds other images than data.source {asked.source} asks for; {_repair(config)} replaces them"
    if not replace and recorded(config).get("data.source", asked.source) != asked.source:
        raise UserError(other_images)  # before they are fetched
    if images is None or listed != listing:
        log(f"reading {asked.source} images")
        images, listed = sources.read(asked.source, **where, cache=shared.data), ""
    images = erased.without(images, config)
    _let_finish(layout)
    redraw = replace or _next_request(config, next_request)
    none = replace and erased.awaits_next(config)
    prepared = Prepared(config, images, splits.draw(images, None if none else request(config), asked.seed))
    summaries = {layout.about(part): content for part, content in about(images).items()}
    if not replace:
        _check_files(prepared, summaries, redraw, other_images)
    draw = redraw or not layout.splits.exists()
    accept(prepared)
    layout.state.mkdir(parents=True, exist_ok=True)  # from here on the manifest notes what is written
    _begin(config)
    if draw or listed != listing or not all(file.exists() for file in summaries):
        with _writing(layout):
            if draw and not replace:  # another command may have written them meanwhile
                redraw = _next_request(config, next_request)
                _check_files(prepared, summaries, redraw, other_images)
            if listed != listing:
                save_images(images, path, listing)
            for file, content in summaries.items():
                if replace or not file.exists():
                    write_json(file, content)
            if redraw or not layout.splits.exists():
                splits.write(prepared.splits, images, layout.splits)
    record_data(config, prepared.hashes["data"], redraw)
    if listed != listing:
        prepared = _from_file(prepared, path)
    if config.workspace.resolve() != root().resolve() and not layout.gitignore.exists():
        write_text(layout.gitignore, "*\n")  # no `git add -A` takes someone's images, nor the request to forget them
    return prepared


def _begin(config: Config) -> None:
    """Work in the workspace, so that nothing is erased as long as the command runs; check that no erasure is to be finished first."""
    for folder in (config.workspace, config.path(config.run.workspace)):  # two in a copy that DVC makes of a checkout
        in_use.work_in(folder)
    erased.require_finished(config)


def _next_request(config: Config, allowed: bool) -> bool:
    """Whether the configuration's request follows one that was erased; raises where that is asked for and can't be."""
    layout = Layout(config.workspace)
    if not layout.splits.exists():
        return False
    left = splits.count(layout.splits, "forget")
    follows = allowed and erased.takes_next(config, left)
    if not follows:
        erased.require_request(config, left)
    return follows


def _check_files(prepared: Prepared, summaries: Mapping[Path, Any], redraw: bool, other_images: str) -> None:
    """Raise where files hold other images than `prepared` or, unless they are to be drawn anew, other splits."""
    folder = prepared.layout.splits
    if any(file.exists() and read_json(file) != content for file, content in summaries.items()):
        raise UserError(other_images)
    stored = splits.read(folder, prepared.images) if folder.exists() and not redraw else None
    if stored and splits.split_hash(stored, prepared.images) != prepared.hashes["split"]:
        raise UserError(f"{folder} holds other splits than data.forget and data.seed ask for; {_repair(prepared.config)} draws them again")


def _writing(layout: Layout) -> FileLock:
    """What one process at a time holds that writes images and splits; others wait for it."""
    lock = layout.lock("data")
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock)


def _let_finish(layout: Layout) -> None:
    """Wait for a process that is just writing the splits; where none is, a file that is missing stays an error."""
    if layout.data.exists() and not splits.are_there(layout.splits):
        with contextlib.suppress(OSError), _writing(layout):  # of a folder that can't be written there is none
            pass


def _from_file(prepared: Prepared, path: Path) -> Prepared:
    """The same images as their file holds them, so that what they were read into is free again. A copy that a GPU holds stays there."""
    pixels = load_images(path)[0].pixels
    written = changed(prepared, images=changed(prepared.images, pixels=pixels))
    known = vars(prepared)  # with what it has cached
    on_gpu = "data" in known and known["data"].images_NCHW.device.type != "cpu"
    kept = ("hashes", "compute", *(["data"] if on_gpu else []))
    vars(written).update({name: known[name] for name in kept if name in known})
    return written


def load_existing(config: Config) -> Prepared:
    """Return the images and splits on disk, whatever the configuration asks for; without any, as `prepare` does."""
    layout = Layout(config.workspace)
    if not layout.images.exists():
        return prepare(config)
    _begin(config)
    _let_finish(layout)
    images, _ = load_images(layout.images)
    existing = Prepared(config, images, splits.read(layout.splits, images))
    erased.require_request(config, len(existing.splits["forget"]))
    return existing


def remember(prepared: Prepared, *prefixes: str) -> None:
    """Record the given keys by which something was just made.

    Args:
        prepared: what it was made from.
        *prefixes: of the keys, such as `pretrain.`.
    """
    record(prepared.config, prepared.hashes["data"], *prefixes)


def about(images: Images) -> dict[str, Any]:
    """Return what DVC hashes in place of the images, whose copy holds file times: `train`, on which an original depends, and `held_out`."""
    return {
        "train": {"hash": images.train_hash(), "images": images.train, "classes": list(images.classes)},
        "held_out": {"hash": images.held_out_hash(), "images": images.held_out},
    }


def _repair(config: Config) -> str:
    """Return what the user can do: give the keys again that are recorded but not applied, or replace the files."""
    keys = shlex.join(as_words({key: text for key, text in recorded(config).items() if not key.startswith("methods.")}))
    return f"{f'it was made with {keys}, so give that, or ' if keys else ''}{repair_command('prepare', config)}"
