"""A folder of images as a data source: train/<class>/* and test/<class>/*, or class folders of which a share is held out."""

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.data.decoding import File, Fit, read_files
from lethe.data.images import Images
from lethe.data.sources import SourceOptions, register_data_source

K = TypeVar("K", bound=Hashable)

LAYOUT = "it takes a folder with train/<class>/* and test/<class>/*"
# What systems leave among images: Windows, macOS and its zip files, Synology; dot files (.DS_Store, ._x) go too
JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx", "icon\r", "@eadir"}
HELD_OUT = ("test", "val", "valid", "validation")  # folders of held-out images; the first that exists is read
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def _listing(options: SourceOptions) -> list[str]:
    train, test, classes = _scan(_root(options), options)
    return [str(options.image_size), *classes, *(f"{file.size} {file.mtime_ns} {file.id}" for file in train + test)]


def _counts(options: SourceOptions) -> dict[str, int]:
    train, _, classes = _scan(_root(options), options)
    numbers = Counter(file.label for file in train)
    return {name: numbers[label] for label, name in enumerate(classes)}


@register_data_source("image_folder", listing=_listing, counts=_counts)
def read_folder(options: SourceOptions) -> Images:
    """Images of data.root/train and data.root/test, class by class, in each class by file name.

    With data.held_out.fraction there is no folder test: that share of each class is held out. Class folders may hold folders.

    Raises:
        UserError: the folder is of another layout, a symlink leads out of it, or a file is not an image.
    """
    root = _root(options)
    train, test, classes = _scan(root, options)
    _log_choices(root, classes, options.reading.held_out)
    files = train + test
    fit = Fit(options.image_size, options.reading.resize)
    pixels, kept = read_files(files, fit, skip=options.reading.skip_unreadable, source=str(root), folder=options.cache)
    files = [files[i] for i in kept]
    held_out = sum(i >= len(train) for i in kept)
    labels = np.array([file.label for file in files], np.int64)
    if missing := set(range(len(classes))) - set(labels[: len(files) - held_out].tolist()):
        raise UserError(f"data.root is {root} (no image of train/{classes[min(missing)]} can be read); it takes one or more in each class")
    return Images(pixels, labels, tuple(file.id for file in files), classes, held_out)


def _root(options: SourceOptions) -> Path:
    root = options.root
    if root is None:
        raise UserError(f"data.root is not set, and data.source is image_folder; {LAYOUT}")
    if root.is_file() and root.suffix.lower() in ARCHIVES:
        raise UserError(f"data.root is {root} (an archive: unpack it); {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"data.root is {root} ({'not a' if root.exists() else 'no such'} folder); {LAYOUT}")
    share, held_out = options.reading.held_out, _held_out(root)
    if share is None:
        if not (root / "train").is_dir():
            raise UserError(f"data.root is {root} (it has no folder train{_instead(root)}); {LAYOUT}")
        if held_out is None:
            split = "data.held_out.fraction 0.2 takes a fifth of train as held-out images"
            raise UserError(f"data.root is {root} (it has no folder test{_instead(root)}); {LAYOUT}; {split}")
    elif held_out == "test":
        raise UserError(f"data.held_out.fraction is {share}, and {root} has a folder test; it takes one of them")
    return root


def _held_out(root: Path) -> str | None:
    """The folder of held-out images; None where there is none."""
    return next((name for name in HELD_OUT if (root / name).is_dir()), None)


def _instead(root: Path) -> str:
    """Say what a folder has in place of train and test, where that helps."""
    if any(root.glob("data_batch_*")):
        return "; it holds CIFAR's Python batches, which data.source cifar10 reads with the folder above as data.root"
    folders = [entry.name for entry in _entries(root, root) if entry.is_dir()]
    inside = next((name for name in folders if (root / name / "train").is_dir()), None)
    return f"; {root / inside} has one" if inside else f"; it has {', '.join(folders[:5])}" if folders else ""


def _log_choices(root: Path, classes: Sequence[str], share: float | None) -> None:
    """Log what is not plain about the folders: which of several is held out, classes that differ in case alone."""
    held_out = [name for name in HELD_OUT if (root / name).is_dir()] if (root / "train").is_dir() else []
    read = held_out.pop(0) if held_out and share is None else ""
    if read and read != "test":
        log(f"{root}: the images of {read} are held out (half of them are validation, half test), since there is no folder test")
    if held_out:
        log(f"{root}: {' and '.join(held_out)} is not read; held out are {f'the images of {read}' if read else 'images of train'}")
    folded: dict[str, str] = {}
    for name in classes:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            log(f"{root}: {other} and {name} differ only in upper and lower case, and are two classes here")


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name, without junk. Raises UserError for symlinks that lead out of the root."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in JUNK]
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error.strerror}); {LAYOUT}") from None
    for entry in found:
        if entry.is_symlink():
            _inside(Path(entry.path), root)
    return sorted(found, key=lambda entry: entry.name)


def _inside(link: Path, root: Path) -> None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        raise UserError(f"{link} is a symlink that leads nowhere ({link.readlink()})") from None
    if not target.is_relative_to(root.resolve()) and not in_dvc_cache(target, root):
        raise UserError(
            f"{link} is a symlink that leads out of data.root (to {target}); it takes files within {root}, and those in "
            "the DVC cache of its repository"
        )


def in_dvc_cache(target: Path, root: Path) -> bool:
    """Whether a file is in the cache of the DVC repository that a folder is part of: with `cache.type symlink` its images are links there.

    A cache elsewhere (`cache.dir`) does not count: whoever made the folder could name any place of this machine in its .dvc/config.

    Args:
        target: where a link leads, resolved.
        root: data.root.

    Returns:
        False also where the cache is a link itself, or the target is no file.
    """
    caches = (above / ".dvc" / "cache" for above in (root.resolve(), *root.resolve().parents) if (above / ".dvc").is_dir())
    cache = next(caches, None)
    return cache is not None and not cache.is_symlink() and target.is_relative_to(cache) and target.is_file()


def _class_names(folder: Path, root: Path) -> list[str]:
    entries = _entries(folder, root)
    for entry in entries:
        if not entry.is_dir():
            raise UserError(f"{entry.path} is not a class folder; {LAYOUT}")
        _check_name(entry)
    return [entry.name for entry in entries]


def _check_name(entry: os.DirEntry[str]) -> None:
    """Ids are written one a line to UTF-8 files."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{entry.path!a} has a name that is not UTF-8; rename it") from None
    if entry.name.splitlines() != [entry.name]:
        raise UserError(f"{entry.path!r} has a line break in its name; rename it")


def _class_files(folder: Path, label: int, root: Path) -> list[File]:
    """Files of a class, in folders of any depth: folder by folder, in each by name, as torchvision's ImageFolder orders them."""
    found: list[File] = []
    above = {folder.resolve()}

    def collect(here: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        entries = _entries(here, root)
        for entry in entries:
            if not entry.is_file() and not entry.is_dir():  # reading a pipe would block for ever
                raise UserError(f"{entry.path} is not a file; {LAYOUT}")
            _check_name(entry)
        yield str(here), [entry for entry in entries if entry.is_file()]
        for entry in (one for one in entries if one.is_dir()):
            if (target := Path(entry.path).resolve()) in above:
                raise UserError(f"{entry.path} is a symlink that leads to a folder above it")
            above.add(target)
            yield from collect(Path(entry.path))
            above.discard(target)

    name, above_files = folder.relative_to(root).as_posix(), len(str(folder))
    for _, entries in sorted(collect(folder), key=lambda one: one[0]):
        for entry in entries:
            stat, id_ = entry.stat(), name + entry.path[above_files:].replace(os.sep, "/")
            found.append(File(id_, entry.path, label, stat.st_size, stat.st_mtime_ns))
    return found


def _scan(root: Path, options: SourceOptions) -> tuple[list[File], list[File], tuple[str, ...]]:
    """Train files, held-out files, class names; sorted by class, then by file name, both by code points."""
    share, limit = options.reading.held_out, options.limit
    part = _held_out(root) or "test"
    for name in ("train", part) if share is None else ("train",):
        if (root / name).is_symlink():
            _inside(root / name, root)
    home = root / "train" if (root / "train").is_dir() else root
    classes = _class_names(home, root)
    held_out = _class_names(root / part, root) if share is None else classes
    for name in classes:
        if name not in held_out:
            near = next((f", but {part}/{other}" for other in held_out if other.casefold() == name.casefold()), "")
            raise UserError(f"data.root is {root} (train/{name} has no {part}/{name}{near}); {LAYOUT}, the same classes in both")
    for name in held_out:
        if name not in classes:
            raise UserError(f"data.root is {root} ({part}/{name} has no train/{name}); {LAYOUT}, the same classes in both")
    if len(classes) < 2:
        raise UserError(f"data.root is {root} (classes in train: {', '.join(classes) or 'none'}); it takes two or more")
    train: list[File] = []
    test: list[File] = []
    for label, name in enumerate(classes):
        files = _class_files(home / name, label, root)
        if share is None:
            test += _class_files(root / part / name, label, root)
        else:
            chosen = divide_ids({file.id: (file.id, label) for file in files}, share, options.reading.seed)
            test += [file for file in files if file.id in chosen]
            files = [file for file in files if file.id not in chosen]
        if not files:
            raise UserError(f"data.root is {root} (train/{name} is empty); it takes one image or more in each class")
        train += files[:limit]
    if len(test) < 2:
        count = "1 image" if test else "no image"
        raise UserError(
            f"data.root is {root} ({count} {'held out' if share else f'under {part}'}); it takes two or more, for validation and test"
        )
    return train, test, tuple(classes)


def divide_ids(images: Mapping[K, tuple[str, int]], share: float, seed: int) -> set[K]:
    """Choose a share of the images of each class as held-out ones.

    Which they are depends on seed and id alone, so that an image more or less moves few others across the division.

    Args:
        images: id and label, by whatever names an image for the caller.
        share: of each class that is held out.
        seed: of the choice.

    Returns:
        The held-out ones. One image at least of each class stays in train.
    """
    classes: dict[int, list[tuple[bytes, K]]] = {}
    for key, (id_, label) in images.items():
        classes.setdefault(label, []).append((hashlib.sha256(f"{seed} {id_}".encode()).digest(), key))
    chosen: set[K] = set()
    for drawn in classes.values():
        number = min(round(share * len(drawn)), len(drawn) - 1)
        chosen |= {key for _, key in sorted(drawn, key=lambda one: one[0])[:number]}
    return chosen
