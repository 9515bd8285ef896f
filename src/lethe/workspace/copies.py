"""The copies in a workspace: found once for its splits, named in data/copies.csv, counted in data/copies.json."""

import csv
from typing import Any

from lethe._util.files import atomic_write, read_json, write_json
from lethe._util.log import log
from lethe._util.names import as_cell
from lethe.data import copies, sources
from lethe.data.copies import FORGOTTEN, HELD_OUT, TWO_LABELS, Copies
from lethe.workspace.workspace import Prepared

HEADER = ("relation", "kind", "distance", "image", "split", "class", "copy", "copy_split", "copy_class")

RELATIONS = (FORGOTTEN, HELD_OUT, TWO_LABELS)

Counts = dict[str, Any]  # relation -> {exact, near}, and near: whether near copies were looked for


def counts(prepared: Prepared) -> Counts:
    """Return the numbers of copies. They are found, logged and written where that was not done for these splits yet.

    Args:
        prepared: the images and splits.
    """
    path, known = prepared.layout.copies("json"), {key: prepared.hashes[key] for key in ("data", "split")}
    if path.exists() and prepared.layout.copies("csv").exists():
        found: Counts = read_json(path)
        if all(found.get(key) == value for key, value in known.items()):
            return found
    near = sources.find(prepared.config.data.source).near_copies
    pairs = copies.find(prepared.images, prepared.splits, near=near)
    _write(prepared, pairs)
    content = {**known, **pairs.counts(), "near": pairs.near}
    write_json(path, content)
    for line in sentences(content, {split: len(index) for split, index in prepared.splits.items()}):
        log(f"{line}; {prepared.layout.copies('csv')} names them")
    return content


def sentences(found: Counts, sizes: dict[str, int]) -> list[str]:
    """Describe the copies, without a full stop; nothing where there are none.

    Args:
        found: as `counts` returns them.
        sizes: number of images by split.

    Returns:
        One sentence for each kind of copy that there is.

    >>> sentences({"forget_in_retain": {"exact": 2, "near": 1}}, {"forget": 9})
    ['2 of 9 forgotten images have an exact copy in retain and 1 a near copy, so the model still learns what they show']
    """
    held_out = sizes.get("validation", 0) + sizes.get("test", 0)
    meaning = {
        FORGOTTEN: (f"of {sizes['forget']:,} forgotten images", "in retain", "so the model still learns what they show"),
        HELD_OUT: (f"of {held_out:,} held-out images", "among the train images", "so measures take images that were trained on for unseen"),
    }
    lines = []
    for relation, (whose, where, so) in meaning.items():
        number = found.get(relation, {"exact": 0, "near": 0})
        if not number["exact"] and not number["near"]:
            continue
        parts = [f"{number['exact']:,} {whose} have an exact copy {where}"] if number["exact"] else []
        if number["near"]:
            parts.append(f"{number['near']:,} a near copy" if parts else f"{number['near']:,} {whose} have a near copy {where}")
        lines.append(f"{' and '.join(parts)}, {so}")
    if number := found.get(TWO_LABELS, {"exact": 0})["exact"]:
        lines.append(f"{number:,} {'picture has' if number == 1 else 'pictures have'} an exact copy with another label")
    return lines


def _write(prepared: Prepared, found: Copies) -> None:
    images, home = prepared.images, dict[int, str]()
    for split, index in prepared.splits.items():
        home |= dict.fromkeys(index.tolist(), split)
    with atomic_write(prepared.layout.copies("csv")) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for pair in found.pairs:
            both = [value for i in (pair.image, pair.copy) for value in (images.ids[i], home[i], images.classes[images.labels[i]])]
            rows.writerow([pair.relation, "exact" if pair.distance is None else "near", pair.distance or 0, *map(as_cell, both)])
