"""A deletion request as a value: what is to be forgotten, in one of five ways."""

from dataclasses import dataclass
from pathlib import Path

KINDS = ("fraction", "count", "classes", "ids", "where")  # ways to name what to forget, of which a request has one


@dataclass(frozen=True)
class DeletionRequest:
    """What to forget, in exactly one of five ways.

    Args:
        fraction: of the train images.
        count: number of train images.
        classes: whole classes.
        ids: a file of ids.
        where: conditions `column=value` on the metadata table.
        metadata: the metadata table: a CSV that names images in one column and says something of them in others.
        column: the column of either file that names images; None: id.
        copies: `report`, `include` or `include_near`: whether exact copies of the images, or near ones as well, among the train images
            are forgotten too.
        tells_near: whether near copies can be told from different images of the source.
        root: data.root; a file may name images by paths below it.
        limit: data.limit, with which positions among the train images would be others.
    """

    fraction: float | None = None
    count: int | None = None
    classes: tuple[str, ...] | None = None
    ids: Path | None = None
    where: tuple[str, ...] | None = None
    metadata: Path | None = None
    column: str | None = None
    root: Path | None = None
    limit: int | None = None
    copies: str = "report"
    tells_near: bool = True
