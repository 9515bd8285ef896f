"""Which images are retained, forgotten, validated and tested on: draws, deletion requests, the four files of ids."""

import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lethe._util.errors import UserError
from lethe._util.files import digest, whole
from lethe.data.sources import Images

SPLITS = ("retain", "forget", "validation", "test")  # their numbers 0..3 in logits tables

Indices = npt.NDArray[np.int64]
Splits = dict[str, Indices]

TAKES_IDS = "it takes a CSV with a column id, or a text file of one id a line"


@dataclass(frozen=True)
class Request:
    """What to forget, by exactly one: a share of the train images, their number, whole classes, a file of ids."""

    fraction: float | None = None
    count: int | None = None
    classes: tuple[str, ...] | None = None
    ids: Path | None = None


def draw(images: Images, request: Request, seed: int) -> Splits:
    """Split -> int64 indices into images, in drawn order (`fraction`, `count`) or in that of images (`classes`, `ids`).

    The report's draw: one generator, first the held-out halves (an odd one goes to validation), then the train images
    into retain and forget. random_split of torch is this randperm cut up, without importing torch.utils.data.
    Raises UserError naming the data.forget key and the value."""
    import torch  # seconds to import

    named = [key for key, value in vars(request).items() if value is not None]
    if len(named) != 1:
        given = " and ".join(named) or "nothing"
        raise UserError(f"data.forget names {given}; it takes exactly one of {', '.join(vars(request))}")
    generator = torch.Generator().manual_seed(seed)
    n = images.train
    held_out = n + torch.randperm(images.held_out, generator=generator).numpy()
    half = (images.held_out + 1) // 2
    halves = {"validation": held_out[:half], "test": held_out[half:]}
    if request.classes is not None or request.ids is not None:
        forgotten = np.zeros(n, bool)
        forgotten[_of_classes(images, request.classes) if request.ids is None else _of_ids(images, request.ids)] = True
        if forgotten.all():
            value = ",".join(request.classes or ()) or request.ids
            raise UserError(f"data.forget.{named[0]} is {value} (all {n} train images); some must be left to retain")
        return {"retain": np.flatnonzero(~forgotten), "forget": np.flatnonzero(forgotten), **halves}
    forget = _number(request, n)
    order = torch.randperm(n, generator=generator).numpy()
    return {"retain": order[: n - forget], "forget": order[n - forget :], **halves}


def _number(request: Request, n: int) -> int:
    if request.count is not None:
        if not 1 <= request.count < n:
            raise UserError(f"data.forget.count is {request.count}; it takes 1 to {n - 1}, of {n} train images")
        return request.count
    assert request.fraction is not None
    if not 0 < request.fraction < 1:  # nan too
        raise UserError(f"data.forget.fraction is {request.fraction}; it takes a number above 0 and below 1")
    forget = round(request.fraction * n)
    if not 1 <= forget < n:
        what = f"{'none' if forget == 0 else 'all'} of {n} train images"
        raise UserError(f"data.forget.fraction is {request.fraction} ({what}); some must be forgotten and some retained")
    return forget


def _of_classes(images: Images, classes: Sequence[str] | None) -> Indices:
    if not classes:
        raise UserError(f"data.forget.classes is empty; it takes one or more of {_some(images.classes)}")
    for name in classes:
        if name not in images.classes:
            raise UserError(
                f"data.forget.classes names {name} (no such class{_nearest(name, images.classes)}); "
                f"it takes one or more of {_some(images.classes)}"
            )
    wanted = [images.classes.index(name) for name in classes]
    return np.flatnonzero(np.isin(images.labels[: images.train], wanted))


def count_ids(path: Path) -> int:
    """How many ids a deletion request names, whether or not there are such images."""
    return sum(1 for _ in _ids_in(path, f"data.forget.ids is {path}"))


def _of_ids(images: Images, path: Path) -> Indices:
    key = f"data.forget.ids is {path}"
    index = {id_: i for i, id_ in enumerate(images.ids)}
    found: dict[str, int] = {}  # id -> its line
    unknown: list[tuple[str, int]] = []
    held_out: list[tuple[str, int]] = []
    for id_, line in _ids_in(path, key):
        if not id_:
            raise UserError(f"{key} (line {line} has no id); {TAKES_IDS}")
        if id_ in found:
            raise UserError(f"{key} ({id_} stands on line {found[id_]} and again on line {line}); it takes each id once")
        found[id_] = line
        if id_ not in index:
            unknown.append((id_, line))
        elif index[id_] >= images.train:
            held_out.append((id_, line))
    if not found:
        raise UserError(f"{key} (no ids in it); {TAKES_IDS}")
    if unknown:
        id_, line = unknown[0]
        near = _nearest(id_, images.ids) or f"; ids here look like {images.ids[0]}"
        raise UserError(f"{key} ({len(unknown)} of {len(found)} ids unknown, first {id_}, line {line}{near}); {TAKES_IDS}")
    if held_out:
        id_, line = held_out[0]
        raise UserError(
            f"{key} ({len(held_out)} of {len(found)} ids are of held-out images, first {id_}, line {line}); "
            "it takes train images: no model has learned the others"
        )
    return np.array([index[id_] for id_ in found], np.int64)


def _ids_in(path: Path, key: str) -> Iterator[tuple[str, int]]:
    """Each id and its line. With id among the columns of its first line it is a CSV, by comma, semicolon or tab."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: Excel begins its CSV with a byte-order mark
    except FileNotFoundError:
        raise UserError(f"{key} (no such file); {TAKES_IDS}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"{key} ({reason}); {TAKES_IDS}") from None
    for delimiter in ",;\t":
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            if "id" in header:
                column = header.index("id")
                for row in rows:
                    if any(row):
                        yield row[column].strip() if column < len(row) else "", rows.line_num
                return
        except csv.Error as error:
            raise UserError(f"{key} ({error}); {TAKES_IDS}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield line.strip(), number


def _nearest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, 1) if len(words) < 200_000 else []  # 60,000 ids: 1-2 s
    return f"; nearest: {near[0]}" if near else ""


def _some(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= 20 else f"{', '.join(words[:20])}, ... ({len(words)} in all)"


# --- the four files -------------------------------------------------------------------------------------------------


def write(splits: Mapping[str, Indices], images: Images, folder: Path) -> None:
    """folder/{retain,forget,validation,test}.csv: header id, one id a line, in the order of `splits`.

    None of the four is touched before all are written. Raises RunFailed when the disk refuses."""
    with ExitStack() as stack:
        for split in SPLITS:
            beside = stack.enter_context(whole(folder / f"{split}.csv"))
            with beside.open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(["id"])
                rows.writerows([images.ids[i]] for i in splits[split])


def read(folder: Path, images: Images) -> Splits:
    """What `write` wrote; more columns may follow the first.

    Raises UserError, naming the file, unless the four hold every image once, train images in retain and forget and
    held-out ones in the others."""
    index = {id_: i for i, id_ in enumerate(images.ids)}
    home: dict[str, Path] = {}  # id -> the file it stands in
    splits: Splits = {}
    for split in SPLITS:
        path = folder / f"{split}.csv"
        ids = _column(path)
        for id_ in ids:
            if id_ not in index:
                raise UserError(f"{path} names {id_}, which is no image of data.source{_nearest(id_, images.ids)}")
            if id_ in home:
                raise UserError(f"{path} names {id_}, which already stands in {home[id_]}; it takes each id once")
            if (index[id_] >= images.train) != (split in ("validation", "test")):
                kind = "a train" if index[id_] < images.train else "a held-out"
                raise UserError(f"{path} names {id_}, which is {kind} image")
            home[id_] = path
        splits[split] = np.array([index[id_] for id_ in ids], np.int64)
    if len(home) < len(images.ids):  # two draws mixed, or a list cut short
        absent = next(id_ for id_ in images.ids if id_ not in home)
        missing = len(images.ids) - len(home)
        raise UserError(f"{folder} lacks {missing} of {len(images.ids)} images in its four lists, first {absent}")
    return splits


def _column(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header[:1] != ["id"]:
                raise UserError(f"{path} begins with {','.join(header) or 'nothing'}; it takes the header id")
            return [row[0] for row in rows if row]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} can't be read as a list of ids: {error}") from None


# --- other requests ---------------------------------------------------------------------------------------------------


def beside(forget: Indices, held_out: Indices, labels: Indices) -> Indices:
    """F', held-out images that stand in forget's place, as many where there are so many: of its classes where it leaves one out. Always
    the same of indices that come sorted by id."""
    alike = np.isin(labels[held_out], labels[forget])
    return np.random.default_rng(0).permutation(held_out[alike])[: len(forget)]


def swapped(splits: Mapping[str, Indices], images: Images) -> Splits:
    """F' to forget, and forget held out in its place. UserError where validation has too few images."""
    forget, validation = splits["forget"], _by_id(splits["validation"], images)
    other = beside(forget, validation, images.labels)
    if len(other) < len(forget):
        raise UserError(
            "evaluate.swap and evaluate.shadows take as many validation images of the forgotten classes as forget images, "
            f"{len(forget)}; there are {len(other)}"
        )
    return {**splits, "forget": other, "validation": np.concatenate([np.setdiff1d(validation, other), forget])}


def halved(splits: Mapping[str, Indices], images: Images, number: int) -> tuple[Indices, Indices]:
    """One half of forget and F', at random, and the other; of numbers 2 n and 2 n + 1 one has the other's, so each image is as often in
    the first."""
    pool = _by_id(np.concatenate([splits["forget"], swapped(splits, images)["forget"]]), images)
    first, second = np.split(np.random.default_rng(number // 2).permutation(pool), 2)
    return (second, first) if number % 2 else (first, second)


def _by_id(rows: Indices, images: Images) -> Indices:
    return np.array(sorted(rows, key=lambda i: images.ids[i]), np.int64)


def split_hash(splits: Mapping[str, Indices], images: Images) -> str:
    """SHA-256 over the ids of all four splits, whatever their order."""
    return digest(part for split in SPLITS for part in (split, *sorted(images.ids[i] for i in splits[split]), ""))


def retain_hash(splits: Mapping[str, Indices], images: Images) -> str:
    """SHA-256 over the ids of retain, whatever their order: what a retrained model carries."""
    return digest(sorted(images.ids[i] for i in splits["retain"]))
