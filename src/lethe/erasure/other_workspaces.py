"""Other workspaces that hold erased images: they are named. Each has models, runs and a request of its own, so none is changed here."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lethe._util.checkout import command, root
from lethe._util.errors import UserError
from lethe.config.loader import STAGE, Config
from lethe.data.splits import SPLITS
from lethe.erasure.sought import Sought
from lethe.models import checkpoint
from lethe.workspace.layout import Layout


def holding(config: Config, sought: Sought) -> Iterator[str]:
    """Name the workspaces next to this one, and directly in the checkout, that hold any of the ids; nothing deeper is looked into.

    Args:
        config: names the workspace.
        sought: what is looked for.

    Yields:
        Of each its path, the number of ids that it holds, and what to do about it.
    """
    own = Layout(config.path(config.run.workspace))
    for layout in _others(own.root.resolve()):
        try:
            held = {id_ for id_ in _ids(layout) if sought.has_id(id_)}
            if held:
                named = f"{layout.root}, another workspace, which holds {len(held):,} of the ids"
                yield f"{named}; {_advice(layout, held) if _may_be_the_same(own, layout) else OTHER_CLASSES}"
        except (OSError, UserError, ValueError, LookupError, TypeError) as error:
            yield f"{layout.root}, another workspace, which can't be read ({error})"


OTHER_CLASSES = "its images have other classes, so they may be others of the same names"


def _others(own: Path) -> Iterator[Layout]:
    """The workspaces among the checkout, the folder that the workspace is in, and their subfolders. What is below the workspace is searched
    with it."""
    places: dict[Path, None] = {}
    for folder in (root().resolve(), own.parent):
        with contextlib.suppress(OSError):  # a folder that may not be listed
            places |= dict.fromkeys([folder, *(path.resolve() for path in sorted(folder.iterdir()))])
    for layout in map(Layout, places):
        with contextlib.suppress(OSError):
            if not layout.root.is_relative_to(own) and (layout.images.is_file() or layout.splits.is_dir()):
                yield layout


def _ids(layout: Layout) -> set[str]:
    """Every id that a workspace has in its splits or with its images."""
    listed = (id_ for split in SPLITS for id_ in _listed(layout, split))
    return {*listed, *_about_images(layout).get("ids", ())}


def _listed(layout: Layout, split: str) -> Iterator[str]:
    path = layout.splits / f"{split}.csv"
    if path.is_file():
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (row[0] for n, row in enumerate(csv.reader(file)) if n and row)


def _about_images(layout: Layout) -> dict[str, Any]:
    """What the images' file says of them, without their pixels; {} where there is none."""
    about: dict[str, Any] = json.loads(checkpoint.metadata(layout.images)["images"]) if layout.images.is_file() else {}
    return about


def _may_be_the_same(own: Layout, other: Layout) -> bool:
    """Whether equal ids can be equal images: sources number their images alike, so train/0 is in many."""
    ours, theirs = (_about_images(layout).get("classes") for layout in (own, other))
    return ours is None or theirs is None or ours == theirs


def _advice(layout: Layout, held: set[str]) -> str:
    """What to type there; without a request of these images, or without a result that could be accepted, what else there is to do."""
    results = (run for run in layout.with_scores() if run.key not in STAGE and not run.chain and run.seed is None)
    result = next((run for run in results if layout.weights(run).exists()), None)
    base = root().resolve()
    where = str(layout.root.relative_to(base) if layout.root.is_relative_to(base) else layout.root)
    if result and held <= {*_listed(layout, "forget")}:
        return f"`{command('erase', '--run.workspace', where, '--method', result.method)}` prints the plan that erases them there"
    if layout.root == base:
        return "unlearn and erase them there"
    return "delete the folder, or unlearn and erase them there"
