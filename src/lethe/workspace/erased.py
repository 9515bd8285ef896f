"""Which images were erased from a workspace, as pseudonyms: no later read of their source brings them back, and a check can look for them.

The list is also the journal of an erasure: an entry is written before anything is removed, and is `pending` until the last step."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lethe._util.errors import UserError
from lethe._util.files import atomic_write, read_json
from lethe.config.loader import Config
from lethe.config.source_map import REQUEST
from lethe.data import copies, pixel_store, sources, splits
from lethe.data.images import Images
from lethe.workspace.layout import Layout
from lethe.workspace.pseudonyms import Pseudonyms, existing
from lethe.workspace.settings import is_checkout, repair_command
from lethe.workspace.workspace import Prepared

PENDING, DONE = "pending", "done"


@dataclass(frozen=True)
class Erasure:
    """One deletion request whose images are erased.

    Attributes:
        request: pseudonym of the ids.
        method: the accepted result's run.
        accepted: hash of its weights.
        state: PENDING or DONE.
        images: number of images.
        ids: their pseudonyms.
        pixels: pseudonyms of their pixels.
        lengths: lengths of the ids in bytes, by which they are looked for in text.
        prefix: what all the ids begin with, up to a slash ("train/"); "" where they share nothing.
        data: hash of the train images before the erasure: whatever was trained on them learned the erased ones,
        retain: unless it is a retrained model of these ids. A hash.
        models: hashes of the weights that learned the images, other than the accepted result's.
        tensors: SHA-256 of the bytes of a tensor of each, by which they are found in files of other kinds.
        source: whether the files of the source are erased, too.
        near: perceptual hashes of the images, hidden by the secret; () where the images are too small to tell near copies from others.
        places: what was erased: of each place a pseudonym of its name, its store, what was done, bytes, and the day.
        derived: what had been made from models that learned the images: logged models, registered versions, exports.
        starts: what else to look for begins with: the columns of data.forget.where, as `user=`; whole conditions are among `ids`.
        keep: remotes and caches of DVC that its command left alone; so does the one that finishes it.
    """

    request: str
    method: str
    accepted: str
    state: str
    images: int
    ids: tuple[str, ...]
    pixels: tuple[str, ...]
    lengths: tuple[int, ...]
    prefix: str
    data: str
    retain: str
    models: tuple[str, ...]
    tensors: tuple[str, ...]
    source: bool
    near: tuple[str, ...] = ()
    places: tuple[Sequence[Any], ...] = ()
    derived: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def done(self) -> "Erasure":
        """The same erasure, in state DONE."""
        return replace(self, state=DONE)


def read(config: Config) -> tuple[Erasure, ...]:
    """Return the erasures of a workspace, oldest first.

    Args:
        config: names the workspace.

    Raises:
        UserError: the file is damaged.
    """
    path = _path(config)
    if not path.exists():
        return ()
    try:
        return tuple(Erasure(**{key: _frozen(value) for key, value in one.items()}) for one in read_json(path)["erasures"])
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no list of erasures; restore it from a backup") from None


def write(config: Config, erasures: Sequence[Erasure]) -> None:
    """Write the erasures of a workspace, readable by their owner alone.

    Args:
        config: names the workspace.
        erasures: all of them.

    Raises:
        RunFailed: the file could not be written.
    """
    import json

    with atomic_write(_path(config), private=True) as temporary:
        temporary.write_text(json.dumps({"erasures": [asdict(one) for one in erasures]}, indent=1) + "\n", encoding="utf-8")


def pending(config: Config) -> Erasure | None:
    """Return the erasure that was begun and not finished; None if there is none."""
    return next((one for one in read(config) if one.state == PENDING), None)


def require_finished(config: Config) -> None:
    """Check that no erasure was interrupted: until it is finished, files of the workspace do not belong together.

    Raises:
        UserError: one was; names the command that finishes it.
    """
    if one := pending(config):
        again = repair_command("erase", config, method=one.method)
        raise UserError(f"an erasure in {config.workspace} was interrupted; {again.rstrip('`')} --yes` finishes it")


def require_request(config: Config, forget: int) -> None:
    """Check that there is something to forget.

    Args:
        config: names the workspace.
        forget: number of images in the split forget.

    Raises:
        UserError: the images of the last request were erased, and there is no next one; names the command that takes it.
    """
    if forget == 0 and read(config):
        again = repair_command("unlearn", config, method=config.method, **{"data.forget.ids": "<list>"})
        raise UserError(f"{config.workspace} has no deletion request: the images of the last one were erased; {again} takes the next")


def takes_next(config: Config, forget: int) -> bool:
    """Whether a command's request is the next one: that before was erased, so nothing in the workspace still belongs to it.

    Args:
        config: names the workspace.
        forget: number of images in the split forget.

    Returns:
        False also where the command itself gives no request: what params.yaml says is not meant as one.
    """
    return forget == 0 and not REQUEST.isdisjoint(config.given.keys() - config.laid.keys()) and bool(read(config))


def awaits_next(config: Config) -> bool:
    """Whether the last request was erased, and nothing asks for the next one: params.yaml's default is not meant as one.

    Args:
        config: names the workspace. In the checkout itself the next request is in params.yaml.

    Returns:
        False also where splits that exist hold a request.
    """
    folder = Layout(config.workspace).splits
    if is_checkout(config.workspace) or not REQUEST.isdisjoint(config.settings) or takes_next(config, 0) or not read(config):
        return False
    return not splits.are_there(folder) or splits.count(folder, "forget") == 0


def is_of_erased(config: Config, retain: str) -> bool:
    """Whether a retrained model served a request that was erased since, so that another one may take its place.

    Args:
        config: names the workspace.
        retain: hash of the retain images that it was trained on.

    Returns:
        False while that erasure is not finished.
    """
    return retain in {one.retain for one in read(config) if one.state == DONE}


def without(images: Images, config: Config) -> Images:
    """Leave erased images out.

    Args:
        images: as read from a source, or from a file that may be older than the erasure.
        config: names the workspace.

    Returns:
        The same value if none of them was erased.
    """
    erasures, hashed = read(config), existing(config)
    if not erasures:
        return images
    if hashed is None:
        raise UserError(f"{_path(config)} lists erased images, and the secret by which they are known is missing; restore it from a backup")
    gone = {id_ for one in erasures for id_ in one.ids}
    kept = [i for i, id_ in enumerate(images.ids) if hashed.of_id(id_) not in gone]
    return images if len(kept) == len(images.ids) else select(images, kept, _path(config).parent)


def select(images: Images, kept: Sequence[int], folder: Path) -> Images:
    """Return some of the images, copied: nothing of the others is referenced.

    Args:
        images: all of them.
        kept: indices of those to keep, ascending.
        folder: on whose disk they are kept if memory does not hold them.

    Returns:
        Images, labels and ids of `kept`, in that order.
    """
    index = np.array(kept, np.int64)
    held_out = int((index >= images.train).sum())
    ids = tuple(images.ids[i] for i in kept)
    return replace(images, pixels=pixel_store.take(images.pixels, index, folder), labels=images.labels[index], ids=ids, held_out=held_out)


def new(
    prepared: Prepared, hashed: Pseudonyms, *, method: str, accepted: str, models: Iterable[str], tensors: Iterable[str], source: bool
) -> Erasure:
    """Describe the erasure of the images of the present request.

    Args:
        prepared: the images and splits.
        hashed: the workspace's pseudonyms.
        method: the accepted result's run.
        accepted: hash of its weights.
        models: hashes of the weights that learned the images.
        tensors: hashes of a tensor of each.
        source: whether the files of the source are erased, too.

    Returns:
        The erasure, in state PENDING; ids and images are in it as pseudonyms alone.
    """
    images, forget = prepared.images, prepared.splits["forget"]
    ids = [images.ids[i] for i in forget]
    conditions = prepared.config.data.forget.where or ()
    spellings = sorted({text for named in (*ids, *conditions) for text in spelt(named)})
    heads = {id_.partition("/")[0] for id_ in ids if "/" in id_}
    told = copies.tells_near(images) and sources.find(prepared.config.data.source).near_copies
    return Erasure(
        request=hashed.of_request(ids),
        method=method,
        accepted=accepted,
        state=PENDING,
        images=len(ids),
        ids=tuple(sorted(map(hashed.of_id, spellings))),
        pixels=tuple(sorted(hashed.of_pixels(one) for one in pixel_store.some(images.pixels, forget))),
        lengths=tuple(sorted({len(text.encode()) for text in spellings})),
        prefix=f"{heads.pop()}/" if len(heads) == 1 and all("/" in id_ for id_ in ids) else "",
        data=prepared.hashes["data"],
        retain=prepared.hashes["retain"],
        models=tuple(sorted(set(models) - {accepted})),
        tensors=tuple(sorted(tensors)),
        source=source,
        starts=tuple(sorted({f"{condition.partition('=')[0]}=" for condition in conditions})),
        near=tuple(sorted(hashed.hidden(copies.perceptual_hash(one)) for one in pixel_store.some(images.pixels, forget))) if told else (),
    )


def spelt(id_: str) -> set[str]:
    """Return how an id is spelled in a text and in JSON."""
    import json

    return {id_, json.dumps(id_)[1:-1], json.dumps(id_, ensure_ascii=False)[1:-1]}


def _path(config: Config) -> Path:
    return Layout(config.path(config.run.workspace)).erased


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
