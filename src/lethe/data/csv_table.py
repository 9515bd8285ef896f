"""A CSV of images as a data source: path, label and, where it has one, split."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lethe._util.errors import UserError
from lethe.data import id_table
from lethe.data.decoding import File, Fit, read_files
from lethe.data.image_folder import divide_ids, in_dvc_cache
from lethe.data.images import Images
from lethe.data.sources import SourceOptions, register_data_source

TAKES = "it takes a CSV with the columns path, label and, for held-out images, split (train or test)"
LABELS = ("label", "class", "target")
HELD_OUT = ("test", "val", "valid", "validation", "held_out", "held-out", "dev")


class _Table(NamedTuple):
    train: list[File]
    held_out: list[File]
    classes: tuple[str, ...]
    listing: list[str]


def _listing(options: SourceOptions) -> list[str]:
    table = _table(options)
    return [str(options.image_size), *table.classes, *table.listing]


def _counts(options: SourceOptions) -> dict[str, int]:
    table = _table(options)
    numbers = Counter(file.label for file in table.train)
    return {name: numbers[label] for label, name in enumerate(table.classes)}


@register_data_source("csv", listing=_listing, counts=_counts)
def read_csv(options: SourceOptions) -> Images:
    """Images that a CSV (data.root) names: path (relative to it), label and, where it has one, split; in its order.

    Raises:
        UserError: the CSV lacks a column, or names a file that does not exist or is no image.
    """
    table = _table(options)
    files = table.train + table.held_out
    fit = Fit(options.image_size, options.reading.resize)
    pixels, kept = read_files(files, fit, skip=options.reading.skip_unreadable, source=str(options.root), folder=options.cache)
    files = [files[i] for i in kept]
    labels = np.array([file.label for file in files], np.int64)
    return Images(pixels, labels, tuple(file.id for file in files), table.classes, sum(i >= len(table.train) for i in kept))


def _table(options: SourceOptions) -> _Table:
    root = options.root
    if root is None or not root.is_file():
        raise UserError(f"data.root is {root} (no such file); {TAKES}")
    table = id_table.read(root, "data.root", accepts=TAKES, header=True)
    columns = list(dict.fromkeys(name for row, _ in table.rows for name in row))
    label = next((name for name in columns if name.lower() in LABELS), None)
    split = next((name for name in columns if name.lower() == "split"), None)
    if label is None:
        raise UserError(f"{table.key} (no column label); {TAKES}")
    names = sorted({row.get(label, "") for row, _ in table.rows})
    if "" in names:
        line = next(line for row, line in table.rows if not row.get(label))
        raise UserError(f"{table.key} (line {line} has no label); {TAKES}")
    share = options.reading.held_out
    if (share is None) == (split is None):
        both = "it has a column split, and data.held_out.fraction is set" if split else "no column split"
        raise UserError(f"{table.key} ({both}); {TAKES}, or data.held_out.fraction for a share of them")
    files: dict[str, tuple[File, bool]] = {}
    for row, line in table.rows:
        file = _file(row.get(table.column, ""), names.index(row[label]), root.parent, f"{table.key} (line {line}")
        if file.id in files:
            raise UserError(f"{table.key} (line {line} names {file.id} again); it takes each image once")
        part = row.get(split, "").lower() if split else "train"
        if part not in ("train", *HELD_OUT):
            raise UserError(f"{table.key} (line {line}: split is {part!r}); it takes train, or {', '.join(HELD_OUT)} for held-out images")
        files[file.id] = file, part != "train"
    if share is not None:
        chosen = divide_ids({id_: (id_, file.label) for id_, (file, _) in files.items()}, share, options.reading.seed)
        files = {id_: (file, id_ in chosen) for id_, (file, _) in files.items()}
    train = [file for file, held_out in files.values() if not held_out]
    if options.limit is not None:
        seen = Counter[int]()
        kept = []
        for file in train:
            seen[file.label] += 1
            kept += [file] if seen[file.label] <= options.limit else []
        train = kept
    held_out = [file for file, out in files.values() if out]
    listing = [f"{file.size} {file.mtime_ns} {file.label} {out} {file.id}" for out, own in ((0, train), (1, held_out)) for file in own]
    return _Table(train, held_out, tuple(names), listing)


def _file(name: str, label: int, folder: Path, where: str) -> File:
    if not name:
        raise UserError(f"{where} has no path); {TAKES}")
    path = folder / name.replace("\\", "/")
    try:
        stat = path.stat()
        resolved = path.resolve()
        if path.is_symlink() and in_dvc_cache(resolved, folder):
            resolved = path.parent.resolve() / path.name
        id_ = resolved.relative_to(folder.resolve()).as_posix()
    except (OSError, RuntimeError):
        raise UserError(f"{where}: there is no file {path}); {TAKES}") from None
    except ValueError:
        raise UserError(f"{where}: {name} is not below {folder}); it takes paths relative to the CSV") from None
    if not path.is_file():
        raise UserError(f"{where}: {path} is not a file); {TAKES}")
    return File(id_, str(path), label, stat.st_size, stat.st_mtime_ns)
