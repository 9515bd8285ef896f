"""Data sources by name: built in, registered by a decorator, from an entry point, or a `package.module:function`.

Built-in sources are imported when they are used, so that checking a name costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest
from lethe._util.plugins import import_reference, installed

if TYPE_CHECKING:
    from lethe.data.images import Images

BUILT_IN = {
    "cifar10": "lethe.data.cifar10:read_cifar10",
    "image_folder": "lethe.data.image_folder:read_folder",
    "digits": "lethe.data.digits:read_digits",
    "csv": "lethe.data.csv_table:read_csv",
    "npz": "lethe.data.arrays:read_npz",
    "idx": "lethe.data.arrays:read_idx",
    "huggingface": "lethe.data.huggingface:read_huggingface",
}
GROUP = "lethe.data_sources"  # of entry points: name -> function
EDITION = "1"  # part of every listing: raise it when the same files would be read into other pixels


@dataclass(frozen=True)
class Reading:
    """How files become images and held-out images, where that is left to the source.

    Args:
        resize: data.resize: `squash`, `crop` or `pad`.
        skip_unreadable: data.skip_unreadable: leave out files that can't be read.
        held_out: data.held_out.fraction: share of the train images that is held out; None: the source has held-out images.
        seed: data.seed, of the held-out images.
    """

    resize: str = "squash"
    skip_unreadable: bool = False
    held_out: float | None = None
    seed: int = 0

    def differences(self) -> list[str]:
        """What differs from the defaults, as texts; the seed where it matters."""
        found = [f"resize {self.resize}"] if self.resize != "squash" else []
        found += ["skip_unreadable"] if self.skip_unreadable else []
        return found + ([f"held_out {self.held_out} {self.seed}"] if self.held_out is not None else [])


@dataclass(frozen=True)
class SourceOptions:
    """Options of reading a source.

    Args:
        root: data.root, resolved.
        image_size: height and width in pixels.
        limit: maximum number of train images per class; None: all.
        cache: folder for downloads, and on whose disk decoded images are kept that memory does not hold.
        reading: how files become images.
    """

    root: Path | None = None
    image_size: int = 32
    limit: int | None = None
    cache: Path = Path()
    reading: Reading = Reading()


Read = Callable[[SourceOptions], Any]
F = TypeVar("F", bound=Read)


@dataclass(frozen=True)
class DataSource:
    """A registered source.

    Args:
        name: of the source.
        read: returns the images.
        listing: returns texts that change when `read` would return other images, without reading them.
        counts: returns class -> number of train images, without reading them.
        image_size: height and width in pixels, of a source that has only one.
        near_copies: whether near copies can be told from different images, which enlarged small ones can't.
    """

    name: str
    read: Read
    listing: Callable[[SourceOptions], Iterable[str]] | None = None
    counts: Callable[[SourceOptions], Mapping[str, int]] | None = None
    image_size: int | None = None
    near_copies: bool = True


_REGISTERED: dict[str, DataSource] = {}


def register_data_source(
    name: str,
    *,
    listing: Callable[[SourceOptions], Iterable[str]] | None = None,
    counts: Callable[[SourceOptions], Mapping[str, int]] | None = None,
    image_size: int | None = None,
    near_copies: bool = True,
) -> Callable[[F], F]:
    """Register a function as the data source `name`: what `data.source` takes.

    The function takes a SourceOptions and returns Images, or two pairs of arrays, `(images, labels)` of train and of held-out: uint8
    [N, 3, H, W], [N, H, W, 3] or [N, H, W], and class indices [N]. It may leave `limit` to the caller.

    Args:
        name: of the source.
        listing: texts that change when the function would return other images. By default names, sizes and times of all files under
            data.root; without a root, the images themselves.
        counts: class -> number of train images, so that `--explain` needs to read none.
        image_size: height and width in pixels, of a source that has only one.
        near_copies: whether near copies can be told from different images, which enlarged small ones can't.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        UserError: another function is registered under this name.
    """

    def register(read: F) -> F:
        held = _REGISTERED.get(name)
        if held is not None and (held.read.__module__, held.read.__qualname__) != (read.__module__, read.__qualname__):
            raise UserError(f"data source {name} is registered already, by {held.read.__module__}:{held.read.__qualname__}")
        _REGISTERED[name] = DataSource(name, read, listing, counts, image_size, near_copies)
        return read

    return register


def names() -> list[str]:
    """Every source that `data.source` takes by name."""
    return list(dict.fromkeys([*BUILT_IN, *_REGISTERED, *installed(GROUP)]))


def summaries() -> dict[str, str]:
    """Source -> the first line of its function's docstring; sources of entry points by the package that installs them."""
    for source in BUILT_IN:
        find(source)
    known = {name: (source.read.__doc__ or "").strip().partition("\n")[0] for name, source in _REGISTERED.items()}
    return {name: point.value for name, point in installed(GROUP).items()} | known


def accepted() -> str:
    """What `data.source` takes, in words."""
    return f"{', '.join(names())}, or package.module:function"


def find(source: str) -> DataSource:
    """The source of a name or a `package.module:function`.

    Raises:
        UserError: there is no such source, or its module can't be imported.
    """
    if source in BUILT_IN:
        import_reference(BUILT_IN[source], "data.source")
    if source in _REGISTERED:
        return _REGISTERED[source]
    points = installed(GROUP) if ":" not in source else {}
    if ":" not in source and source not in points:
        raise UserError(f"data.source is {source}; it takes one of {accepted()}")
    function = import_reference(points[source].value if source in points else source, "data.source")
    if not callable(function):
        raise UserError(f"data.source is {source!r}: a {type(function).__name__}, not a function")
    held = next((each for each in _REGISTERED.values() if each.read is function), DataSource(source, function))
    return replace(held, name=source)


def read(source: str, *, root: Path | None, image_size: int, limit: int | None, cache: Path, reading: Reading = Reading()) -> "Images":
    """Read all images of a source.

    Args:
        source: a name, or `package.module:function`.
        root: folder of the source's files; CIFAR-10 is kept there, or under `cache` when it is None.
        image_size: height and width in pixels.
        limit: keep the first so many train images of each class, and all held-out ones; None keeps all.
        cache: folder for downloads, and on whose disk decoded images are kept that memory does not hold.
        reading: how files become images.

    Returns:
        The images, train first.

    Raises:
        UserError: a key or a file is not accepted; the message names it.
        RunFailed: files can't be written, or a process that reads them ended.
    """
    options = SourceOptions(root, image_size, limit, cache, reading)
    return _limited(_read(_asked(source, options), options), limit, cache)


def listing(source: str, *, root: Path | None, image_size: int, limit: int | None, reading: Reading = Reading()) -> str:
    """Return a hash that changes when `read` would return other images.

    Of a source without a listing of its own it is over names, sizes and times of the files under `root`; without `root`, over the images.

    Args:
        source: a name, or `package.module:function`.
        root: folder of the source's files.
        image_size: height and width in pixels.
        limit: maximum number of train images per class; None: all.
        reading: how files become images.

    Returns:
        SHA-256 in hex.

    Raises:
        UserError: as `read`, except for unreadable images where they are not read.
        RunFailed: as `read`, where images are read.
    """
    options = SourceOptions(root, image_size, limit, reading=reading)
    found = _asked(source, options)
    parts = found.listing(options) if found.listing else _stated(found, options)
    return digest([EDITION, source, str(limit), *parts, *reading.differences()])


def class_counts(
    source: str, *, root: Path | None, image_size: int, limit: int | None, cache: Path, reading: Reading = Reading()
) -> dict[str, int]:
    """Count the train images of each class; they are read only if the source has no `counts`.

    Args:
        source: a name, or `package.module:function`.
        root: folder of the source's files.
        image_size: height and width in pixels.
        limit: maximum number of train images per class; None: all.
        cache: folder for downloads.
        reading: how files become images.

    Returns:
        Class -> number of train images that `read` would return, in the order of classes.

    Raises:
        UserError: as `read`.
        RunFailed: as `read`, where images are read.
    """
    options = SourceOptions(root, image_size, limit, cache, reading)
    found = _asked(source, options)
    if found.counts is None:
        images = _limited(_read(found, options), limit, cache)
        labels = images.labels[: images.train].tolist()
        return {name: labels.count(number) for number, name in enumerate(images.classes)}
    return {name: number if limit is None else min(number, limit) for name, number in found.counts(options).items()}


def _asked(source: str, options: SourceOptions) -> DataSource:
    found = find(source)
    if found.image_size is not None and options.image_size != found.image_size:
        raise UserError(f"data.image_size is {options.image_size}; with data.source {source} it takes {found.image_size}")
    if options.image_size < 1:
        raise UserError(f"data.image_size is {options.image_size}; it takes an integer > 0")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"data.limit is {options.limit}; it takes an integer > 0, or null for all train images")
    return found


def _read(source: DataSource, options: SourceOptions) -> "Images":
    from lethe.data.images import Images, from_arrays

    try:
        found = source.read(options)
    except (UserError, RunFailed):
        raise
    except Exception as error:  # code from outside may raise anything
        raise UserError(f"data.source {source.name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    images = found if isinstance(found, Images) else from_arrays(found, f"data.source {source.name}")
    images.check(f"data.source {source.name}")
    height, width = images.pixels.shape[2:]
    if (height, width) != (options.image_size, options.image_size):
        raise UserError(f"data.image_size is {options.image_size}; data.source {source.name} gives images of {height}x{width}")
    return images


def _stated(source: DataSource, options: SourceOptions) -> Iterable[str]:
    """The listing of a source that has none of its own."""
    if options.root is None:
        from lethe.data.images import as_pieces

        images = _read(source, options)
        return [images.train_hash(), digest([as_pieces(images.pixels[images.train :]), images.labels[images.train :].tobytes()])]
    files = [options.root] if options.root.is_file() else sorted(path for path in options.root.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files]
    return [str(options.image_size), *(f"{stat.st_size} {stat.st_mtime_ns} {path.relative_to(options.root)}" for path, stat in stats)]


def _limited(images: "Images", limit: int | None, folder: Path) -> "Images":
    """The first `limit` train images of each class, and all held-out ones."""
    if limit is None:
        return images
    import numpy as np

    from lethe.data.pixel_store import take

    labels = images.labels[: images.train]
    if np.bincount(labels).max() <= limit:
        return images
    kept = [np.flatnonzero(labels == label)[:limit] for label in range(len(images.classes))]
    chosen = np.concatenate([np.sort(np.concatenate(kept)), np.arange(images.train, len(images.ids))])
    ids = tuple(images.ids[i] for i in chosen)
    return replace(images, pixels=take(images.pixels, chosen, folder), labels=images.labels[chosen], ids=ids)
