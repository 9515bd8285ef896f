"""The division into retain, forget, validation and test: how it is drawn, and its four files of ids."""

import csv
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lethe._util import manifest
from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest
from lethe._util.log import log
from lethe.data import copies
from lethe.data.deletion_request import Indices, forget_count, of_classes, of_ids, of_where
from lethe.data.id_lookup import nearest
from lethe.data.images import Images
from lethe.data.request import KINDS, DeletionRequest

SPLITS = ("retain", "forget", "validation", "test")  # their numbers 0..3 in logits tables

Splits = dict[str, Indices]

# Ways of a request to name its images -> the function that finds them
NAMED: dict[str, Callable[[Images, DeletionRequest], Indices]] = {
    "classes": lambda images, request: of_classes(images, request.classes),
    "ids": of_ids,
    "where": of_where,
}


def draw(images: Images, request: DeletionRequest | None, seed: int) -> Splits:
    """Divide images into the four splits, by the draw of the report.

    One generator draws first the halves of the held-out images (an odd one goes to validation), then the train images into retain and
    forget. The result equals torch's random_split, which cuts the same randperm, without importing torch.utils.data.

    Args:
        images: train images first, then held-out ones.
        request: what to forget; None: nothing.
        seed: of the generator.

    Returns:
        Split -> int64 indices into images, in drawn order (`fraction`, `count`) or in the order of images (`classes`, `ids`).

    Raises:
        UserError: the request does not fit the images; the message names the data.forget key and the value.
    """
    import torch  # takes seconds to import

    named = [key for key in KINDS if getattr(request, key) is not None] if request else []
    if request and len(named) != 1:
        given = " and ".join(named) or "nothing"
        raise UserError(f"data.forget names {given}; it takes exactly one of {', '.join(KINDS)}")
    generator = torch.Generator().manual_seed(seed)
    n = images.train
    held_out = n + torch.randperm(images.held_out, generator=generator).numpy()
    half = (images.held_out + 1) // 2
    halves = {"validation": held_out[:half], "test": held_out[half:]}
    if request is None:
        return {"retain": torch.randperm(n, generator=generator).numpy(), "forget": np.zeros(0, np.int64), **halves}
    if (kind := named[0]) in NAMED:
        forgotten = np.zeros(n, bool)
        forgotten[NAMED[kind](images, request)] = True
        found = {"retain": np.flatnonzero(~forgotten), "forget": np.flatnonzero(forgotten), **halves}
    else:
        forget = forget_count(request, n)
        order = torch.randperm(n, generator=generator).numpy()
        found = {"retain": order[: n - forget], "forget": order[n - forget :], **halves}
    if request.copies != "report":
        found = _with_copies(images, found, request)
    if not len(found["retain"]):
        value = ",".join(request.classes or request.where or ()) or request.ids or getattr(request, kind)
        raise UserError(f"data.forget.{kind} is {value} (all {n} train images); some must be left to retain")
    return found


def _with_copies(images: Images, drawn: Splits, request: DeletionRequest) -> Splits:
    """Move copies of forgotten images from retain to the end of forget: exact ones, with include_near also near ones."""
    exact = copies.exact_in(images, drawn["forget"], drawn["retain"])
    more, near = exact, request.copies == "include_near"
    if near:
        if not (request.tells_near and copies.tells_near(images)):
            raise UserError(
                f"data.forget.copies is include_near; near copies can't be told from different images where these are below "
                f"{copies.SMALLEST} pixels, so it takes report or include"
            )
        more = copies.near_in(images, drawn["forget"], drawn["retain"])
    if not len(more):
        return drawn
    beside = f" and {len(more) - len(exact):,} near" if near else ""
    first = f"first {images.ids[more[0]]}"
    log(f"data.forget.copies is {request.copies}: {len(exact):,} exact{beside} copies of forgotten images are forgotten too, {first}")
    kept = drawn["retain"][~np.isin(drawn["retain"], more)]
    return {**drawn, "retain": kept, "forget": np.concatenate([drawn["forget"], more])}


# --- the four files -------------------------------------------------------------------------------------------------


def write(splits: Mapping[str, Indices], images: Images, folder: Path) -> None:
    """Write folder/{retain,forget,validation,test}.csv: header id, one id per line, in the order of `splits`.

    None of the four is replaced before all are written.

    Args:
        splits: int64 indices by split.
        images: the indexed images.
        folder: of the four files; it is created.

    Raises:
        RunFailed: a file could not be written.
    """
    with ExitStack() as stack:
        for split in SPLITS:
            temporary = stack.enter_context(atomic_write(folder / f"{split}.csv"))
            with temporary.open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(["id"])
                rows.writerows([images.ids[i]] for i in splits[split])


def are_there(folder: Path) -> bool:
    """Whether each of the four files that `write` writes exists."""
    return all((folder / f"{split}.csv").exists() for split in SPLITS)


def read(folder: Path, images: Images) -> Splits:
    """Read the four files that `write` wrote; more columns may follow the first.

    Args:
        folder: of the four files.
        images: all images that they list.

    Returns:
        int64 indices into `images` by split, in the order of the files.

    Raises:
        UserError: a file is missing or not a list of ids, or the four do not list every image once, train images in retain and forget and
            held-out ones in the others.
    """
    index = {id_: i for i, id_ in enumerate(images.ids)}
    home: dict[str, Path] = {}  # id -> the file that lists it
    splits: Splits = {}
    for split in SPLITS:
        path = folder / f"{split}.csv"
        ids = _column(path)
        for id_ in ids:
            if id_ not in index:
                raise manifest.unreadable(path, f"names {id_}, which is no image of data.source{nearest(id_, images.ids)}")
            if id_ in home:
                raise manifest.unreadable(path, f"names {id_}, which {home[id_]} lists already; it takes each id once")
            if (index[id_] >= images.train) != (split in ("validation", "test")):
                kind = "a train" if index[id_] < images.train else "a held-out"
                raise manifest.unreadable(path, f"names {id_}, which is {kind} image")
            home[id_] = path
        splits[split] = np.array([index[id_] for id_ in ids], np.int64)
    if len(home) < len(images.ids):  # two draws mixed, or a list cut short
        absent = next(id_ for id_ in images.ids if id_ not in home)
        missing = len(images.ids) - len(home)
        raise UserError(f"{folder} lacks {missing} of {len(images.ids)} images in its four lists, first {absent}")
    return splits


def count(folder: Path, split: str) -> int:
    """Return the number of ids in a split's file.

    Args:
        folder: of the four files.
        split: its name.

    Returns:
        The number; 0 for a file with a header alone.

    Raises:
        UserError: the file is missing or not a list of ids.
    """
    return len(_column(folder / f"{split}.csv"))


def stored_retain_hash(folder: Path) -> str:
    """Hash what a retrained model is trained on, as `retain_hash`, from its list alone.

    Args:
        folder: of the four files.

    Returns:
        SHA-256 in hex.

    Raises:
        UserError: the file is missing or not a list of ids.
    """
    return digest(sorted(_column(folder / "retain.csv")))


def stored_split_hash(folder: Path) -> str:
    """Hash the ids of all four splits, as `split_hash`, from their lists alone.

    Args:
        folder: of the four files.

    Returns:
        SHA-256 in hex.

    Raises:
        UserError: a file is missing or not a list of ids.
    """
    return digest(part for split in SPLITS for part in (split, *sorted(_column(folder / f"{split}.csv")), ""))


def _column(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header[:1] != ["id"]:
                raise manifest.unreadable(path, f"begins with {','.join(header) or 'nothing'}; it takes the header id")
            return [row[0] for row in rows if row]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise manifest.unreadable(path, f"can't be read as a list of ids: {error}") from None


def split_hash(splits: Mapping[str, Indices], images: Images) -> str:
    """Hash the ids of all four splits.

    Args:
        splits: int64 indices by split, in any order.
        images: the indexed images.

    Returns:
        SHA-256 in hex; it depends on which ids each split has, not on their order.
    """
    return digest(part for split in SPLITS for part in (split, *sorted(images.ids[i] for i in splits[split]), ""))


def retain_hash(splits: Mapping[str, Indices], images: Images) -> str:
    """Hash the ids of retain, which identify what a retrained model was trained on.

    Args:
        splits: int64 indices by split, in any order.
        images: the indexed images.

    Returns:
        SHA-256 in hex; it does not depend on the order of ids.
    """
    return digest(sorted(images.ids[i] for i in splits["retain"]))
