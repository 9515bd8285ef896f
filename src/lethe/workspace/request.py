"""The images and the deletion request that a configuration asks for."""

from pathlib import Path
from typing import Any

from lethe.config.loader import Config
from lethe.data import sources
from lethe.data.request import DeletionRequest


def source_keys(config: Config) -> dict[str, Any]:
    """Return the keyword arguments of `sources.read`, `listing` and `class_counts`, without the folder for downloads."""
    data = config.data
    reading = sources.Reading(data.resize, data.skip_unreadable, data.held_out.fraction, data.seed)
    root = config.path(data.root) if data.root else None
    return {"root": root, "image_size": data.image_size, "limit": data.limit, "reading": reading}


def request(config: Config) -> DeletionRequest:
    """Return the request, with its files as full paths."""
    forget, data = config.data.forget, config.data
    ids = config.path(forget.ids) if forget.ids else None
    root = config.path(data.root) if data.root else None
    table = metadata_file(config)
    near = forget.copies != "include_near" or sources.find(data.source).near_copies
    return DeletionRequest(
        forget.fraction, forget.count, forget.classes, ids, forget.where, table, forget.column, root, data.limit, forget.copies, near
    )


def metadata_file(config: Config) -> Path | None:
    """The table that data.forget.where is about: data.metadata, or metadata.csv in data.root; None if there is none."""
    data = config.data
    if data.metadata is not None:
        return config.path(data.metadata)
    if data.source == "csv" and data.root is not None:
        return config.path(data.root)
    beside = config.path(data.root) / "metadata.csv" if data.root else None
    return beside if beside and beside.is_file() else None
