"""A Hugging Face dataset on disk as a data source: a folder of `save_to_disk`, or Parquet or Arrow files as its hub has them.

The files are read with pyarrow; the package `datasets` is not needed, and no loading script is run."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.data import decoding
from lethe.data.image_folder import divide_ids
from lethe.data.images import Images, one_line
from lethe.data.pixel_store import Pages, empty, take
from lethe.data.sources import SourceOptions, register_data_source

TAKES = "it takes a folder that datasets' save_to_disk wrote, or Parquet or Arrow files named by split (train-..., test-...)"
HELD_OUT = ("test", "validation", "valid", "val", "dev")
SPLIT = re.compile(rf"(?:^|[-_./])(train|{'|'.join(HELD_OUT)})(?=[-_.]|$)")
AT_ONCE = 256  # rows that are read, and decoded, at once
LABELS = ("label", "labels", "fine_label", "class", "target")


class _Column(NamedTuple):
    """The columns of images and labels, and the names of the classes, () where the data have numbers."""

    image: str
    label: str
    classes: tuple[str, ...]


def _counts(options: SourceOptions) -> dict[str, int]:
    parts, key = _parts(options)
    column = _column(parts, key)
    labels = {part: _labels(files, column, key) for part, files in parts.items()}
    classes, numbers = _classes(labels, column, key)
    train, _ = _divided({part: list(range(len(own))) for part, own in labels.items()}, numbers, options, key)
    found = Counter(numbers[part][at] for part, at in train)
    return {name: found[number] for number, name in enumerate(classes)}


@register_data_source("huggingface", counts=_counts)
def read_huggingface(options: SourceOptions) -> Images:
    """A Hugging Face dataset in a folder (data.root): of save_to_disk, or Parquet or Arrow files. Ids are train/<row>, test/<row>, ...

    Raises:
        UserError: there is no such dataset, it has no column of images or of labels, or an image can't be read.
    """
    parts, key = _parts(options)
    column = _column(parts, key)
    labels = {part: _labels(files, column, key) for part, files in parts.items()}
    classes, numbers = _classes(labels, column, key)
    pixels, bad = _decoded(parts, sum(map(len, labels.values())), column, options, key)
    places = {part: [at for at in range(len(own)) if (part, at) not in bad] for part, own in labels.items()}
    train, held_out = _divided(places, numbers, options, key)
    chosen = [*train, *held_out]
    own_labels = np.array([numbers[part][at] for part, at in chosen], np.int64)
    starts = dict(zip(labels, np.cumsum([0, *map(len, labels.values())]).tolist(), strict=False))
    rows = np.array([starts[part] + at for part, at in chosen], np.int64)
    own_pixels = pixels if np.array_equal(rows, np.arange(len(pixels))) else take(pixels, rows, options.cache)
    return Images(own_pixels, own_labels, tuple(f"{part}/{at}" for part, at in chosen), classes, len(held_out))


# --- files ------------------------------------------------------------------------------------------------------------


def _parts(options: SourceOptions) -> tuple[dict[str, list[Path]], str]:
    """The files of each split, in their order, `train` first; and how messages begin."""
    root = options.root
    key = f"data.root is {root}"
    if root is None or not root.exists():
        raise UserError(f"{key} (no such file or folder); {TAKES}")
    if root.is_file():
        return {"train": [root]}, key
    if (root / "dataset_dict.json").is_file():
        names = _json(root / "dataset_dict.json", key).get("splits", [])
        parts = {str(name): _saved(root / str(name), key) for name in names}
    elif (root / "state.json").is_file():
        parts = {"train": _saved(root, key)}
    else:
        parts = {}
        for path in sorted(path for path in root.rglob("*") if path.suffix in (".parquet", ".arrow") and path.is_file()):
            named = SPLIT.findall(path.relative_to(root).as_posix())
            parts.setdefault(named[-1] if named else "train", []).append(path)
    if other := [name for name in parts if name != "train" and name not in HELD_OUT]:
        raise UserError(f"{key} (it has a split {other[0]}); it takes train, and {', '.join(HELD_OUT)} as held-out images")
    if "train" not in parts:
        raise UserError(f"{key} (it has {'no split train' if parts else 'no dataset'}); {TAKES}")
    return {"train": parts.pop("train"), **parts}, key


def _saved(folder: Path, key: str) -> list[Path]:
    """The Arrow files of one split that save_to_disk wrote."""
    state = _json(folder / "state.json", key)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise UserError(f"{key} ({folder.name} is a selection of rows that are kept elsewhere); save it with flatten_indices()")
    return [folder / str(one["filename"]) for one in state.get("_data_files", [])]


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{key} ({path.name} can't be read: {one_line(error)}); {TAKES}") from None
    return found if isinstance(found, dict) else {}


def _tables(files: list[Path], columns: list[str] | None, key: str) -> Iterator[Any]:
    """Batches of rows (pyarrow.RecordBatch) of a split's files, in order; with columns=[] one empty batch, for its schema."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError("data.source is huggingface, and pyarrow is not installed; `pip install pyarrow` adds it") from None
    for path in files:
        try:
            if path.suffix == ".parquet":
                with parquet.ParquetFile(path) as file:
                    if columns == []:
                        yield file.schema_arrow
                    else:
                        yield from file.iter_batches(AT_ONCE, columns=columns)
                continue
            with pa.memory_map(str(path)) as source:
                try:
                    reader: Any = pa.ipc.open_stream(source)
                except pa.ArrowInvalid:
                    opened = pa.ipc.open_file(source)
                    reader = [opened.get_batch(i) for i in range(opened.num_record_batches)] if columns != [] else opened
                if columns == []:
                    yield reader.schema
                else:
                    yield from (batch.select(columns) for batch in reader)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise UserError(f"{key} ({path.name} can't be read: {one_line(error)}); {TAKES}") from None


# --- columns ----------------------------------------------------------------------------------------------------------


def _column(parts: Mapping[str, list[Path]], key: str) -> _Column:
    """Find the columns by the features that the first file of train describes, else by type and name."""
    schema = next(_tables(parts["train"], [], key), None)
    if schema is None:
        raise UserError(f"{key} (no rows of train); {TAKES}")
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    kinds = {name: feature.get("_type") if isinstance(feature, dict) else None for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"] or [
        field.name for field in schema if str(field.type).startswith("struct<bytes: binary") or str(field.type) == "binary"
    ]
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = [name for name in LABELS if name in schema.names] or classes
    for what, found in (("images", images), ("labels", labels[:1] if labels and labels[0] in LABELS else labels)):
        if len(found) != 1:
            several = f"several columns of {what}: {', '.join(found)}" if found else f"no column of {what} in {', '.join(schema.names)}"
            raise UserError(f"{key} ({several}); it takes one column of images, and one of labels, called {LABELS[0]}")
    names = features.get(labels[0], {}).get("names") or ()
    return _Column(images[0], labels[0], tuple(map(str, names)))


def _labels(files: list[Path], column: _Column, key: str) -> list[Any]:
    return [value for batch in _tables(files, [column.label], key) for value in batch.column(0).to_pylist()]


def _classes(labels: Mapping[str, list[Any]], column: _Column, key: str) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Names of the classes, and each image's number among them."""
    values = {value for own in labels.values() for value in own}
    if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in values):
        odd = next(value for value in values if not isinstance(value, str | int) or isinstance(value, bool))
        raise UserError(f"{key} (a {column.label} is {odd!r}); it takes an integer or text for each image")
    if column.classes:
        if wrong := [value for value in values if not isinstance(value, int) or not 0 <= value < len(column.classes)]:
            raise UserError(f"{key} (a {column.label} is {wrong[0]!r}); it takes 0 to {len(column.classes) - 1}, a class for each image")
        return column.classes, {part: [int(value) for value in own] for part, own in labels.items()}
    order = sorted(values, key=lambda value: (isinstance(value, str), value))
    place = {value: number for number, value in enumerate(order)}
    return tuple(map(str, order)), {part: [place[value] for value in own] for part, own in labels.items()}


Place = tuple[str, int]  # split and row


def _divided(
    places: Mapping[str, list[int]], numbers: Mapping[str, list[int]], options: SourceOptions, key: str
) -> tuple[list[Place], list[Place]]:
    """Train and held-out images."""
    every = [(part, at) for part, rows in places.items() for at in rows]
    train, held_out = ([place for place in every if (place[0] == "train") == own] for own in (True, False))
    share = options.reading.held_out
    if share is None:
        if not held_out:
            raise UserError(f"{key} (it has train alone); it takes a split test, or data.held_out.fraction for a share of train")
        return train, held_out
    if held_out:
        raise UserError(f"data.held_out.fraction is {share}, and {key} with a split {held_out[0][0]}; it takes one of them")
    chosen = divide_ids({(part, at): (f"{part}/{at}", numbers[part][at]) for part, at in train}, share, options.reading.seed)
    return [place for place in train if place not in chosen], [place for place in train if place in chosen]


# --- images -----------------------------------------------------------------------------------------------------------


def _decoded(
    parts: Mapping[str, list[Path]], rows: int, column: _Column, options: SourceOptions, key: str
) -> tuple[npt.NDArray[np.uint8], set[Place]]:
    """Pixels of every row, split by split, and the rows that can't be read."""
    fit = decoding.Fit(options.image_size, options.reading.resize)
    pixels = empty((rows, 3, fit.size, fit.size), options.cache)
    bad, highest = _pass(parts, column, fit, key, pixels)
    bits = next(depth for depth in decoding.DEPTHS if highest < 2**depth)
    if highest and bits < fit.bits:
        bad, _ = _pass(parts, column, decoding.Fit(fit.size, fit.resize, bits), key, pixels)
        log(f"16-bit grey images have values up to {highest:,} ({bits} bits), and are scaled by that range")
    if bad:
        names = ", ".join(f"{part}/{at}" for part, at in [*bad][: decoding.NAMED])
        if not options.reading.skip_unreadable:
            first = next(iter(bad.values()))
            raise UserError(f"{key}: {len(bad):,} images can't be read ({first}): {names}; repair them, or give data.skip_unreadable true")
        log(f"data.skip_unreadable: {len(bad):,} images can't be read and are left out: {names}")
    return pixels, {*bad}


def _pass(
    parts: Mapping[str, list[Path]], column: _Column, fit: decoding.Fit, key: str, pixels: npt.NDArray[np.uint8]
) -> tuple[dict[Place, str], int]:
    """Fill in the pixels; the rows that can't be read, with the reason, and the largest value of 16-bit grey."""
    bad: dict[Place, str] = {}
    highest = start = 0
    pages = Pages(pixels)
    for part, files in parts.items():
        at = 0
        for batch in _tables(files, [column.image], key):
            contents = [_content(value, files[0].parent) for value in batch.column(0).to_pylist()]
            for first in range(0, len(contents), AT_ONCE):
                some, errors, brightest = decoding.decode_some(contents[first : first + AT_ONCE], fit)
                pixels[start : start + len(some)] = some
                pages.touched(some.nbytes)
                bad |= {(part, at + number): reason for number, reason in errors.items()}
                highest, at, start = max(highest, brightest), at + len(some), start + len(some)
    pages.release()
    return bad, highest


def _content(value: Any, folder: Path) -> BytesIO | str:
    """An image's bytes, or the path of its file, relative to the dataset's."""
    held = value.get("bytes") if isinstance(value, dict) else value
    if held is not None:
        return BytesIO(held)
    return str(folder / (value.get("path") or "") if isinstance(value, dict) else folder)
