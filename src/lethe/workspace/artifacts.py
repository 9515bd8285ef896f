"""Logits tables of a workspace: each is read from its model once, and again when the model, the splits or the way of reading changes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lethe._util.errors import UserError
from lethe.config.loader import STAGE
from lethe.evaluation import logits_table, seed_aggregation
from lethe.evaluation.logits_table import SHADOWS, SWAPPED, Array, LogitsTable
from lethe.models import checkpoint
from lethe.workspace import read_model
from lethe.workspace.provenance import matches, mismatch
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

# What a model depends on: an original not on the deletion request, a retrained model on what it retained
_DEPENDS_ON = {"original": ("data", "normalisation"), "retrained": ("data", "retain", "normalisation")}
_CACHED_TABLES = 64


def available(prepared: Prepared, name: str) -> bool:
    """Return whether a run has weights, or without them a logits table, that belong to the images and splits.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        True if its weights or table can be used; False also where neither file exists.

    Raises:
        UserError: the file is not safetensors.
    """
    layout = prepared.layout
    if layout.weights(name).exists():
        keys = _DEPENDS_ON.get(name, ("data", "split", "normalisation"))
        return matches(_hashes(prepared, keys), checkpoint.metadata(layout.weights(name)))
    path = layout.logits(name)
    return path.exists() and matches(_hashes(prepared, ["split"]), checkpoint.metadata(path))


def seeds_of(prepared: Prepared, name: str) -> dict[int, str]:
    """Return the seeds of a result that represents several.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        Seed -> short hash of its weights; {} for any other result, and where there are neither weights nor a logits table.

    Raises:
        UserError: the file is not safetensors.
    """
    paths = (prepared.layout.weights(name), prepared.layout.logits(name))
    path = next((path for path in paths if path.exists()), None)
    return seed_aggregation.listed(checkpoint.metadata(path)) if path else {}


def result_hash(prepared: Prepared, name: str) -> str:
    """Return the short hash by which the MLflow run of a result is found.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        12 hex digits: the hash of the weights, or of the weights of all seeds; of a table without a model the table's hash.

    Raises:
        UserError: as `logits`.
    """
    table = logits(prepared, name)
    return seed_aggregation.result(table.about.get("model", table.hash), table.about)


def logits(prepared: Prepared, name: str, perturbed: bool = True) -> LogitsTable:
    """Return the logits table of a run.

    It is read from the model if it is missing, was read from other weights or for other splits, or in another way. If only predictions on
    perturbed copies are missing, only these are added. Without a model an existing table is taken as it is.

    Args:
        prepared: the images and splits.
        name: the run.
        perturbed: whether predictions on perturbed copies are needed, which take longer than all others: a third of the time that a
            model is read.

    Returns:
        The table, as its file has it.

    Raises:
        UserError: the run has neither weights nor a table, or what it has belongs to other images or splits.
    """
    layout = prepared.layout
    weights, path = layout.weights(name), layout.logits(name)
    if not weights.exists() and path.exists():
        _require(prepared, path, checkpoint.metadata(path), ["split"])
        return _cached(path, name)
    metadata = checkpoint.metadata(weights)
    _require(prepared, weights, metadata, ["data", "normalisation"] if name in STAGE else ["data", "split", "normalisation"])
    wanted = _wanted(prepared, weights, metadata)
    if _is_current(prepared, path, wanted, perturbed):
        return _cached(path, name)
    if _is_current(prepared, path, wanted, perturbed=False) and seed_aggregation.KEY not in wanted:
        logits_table.write(read_model.with_perturbed(prepared, _cached(path, name), checkpoint.load(weights)[0]), path)
        return _cached(path, name)
    columns, about = _columns_of_others(path, wanted)
    table = _read(prepared, name, wanted, perturbed)
    logits_table.write(replace(table, columns={**table.columns, **columns}, about={**table.about, **about}), path)
    return _cached(path, name)  # from the file: scores after training equal those after reading to the last digit


def current_logits(prepared: Prepared, name: str) -> LogitsTable | None:
    """Return the logits table of a run's weights if it exists and is up to date, with or without predictions on perturbed copies; None
    otherwise. No model is read.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        The table, as its file has it, or None.

    Raises:
        UserError: a file is not what its name says.
    """
    weights, path = prepared.layout.weights(name), prepared.layout.logits(name)
    if not weights.exists() or not _is_current(prepared, path, _wanted(prepared, weights, checkpoint.metadata(weights)), perturbed=False):
        return None
    return _cached(path, name)


def _wanted(prepared: Prepared, weights: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """What the logits table of some weights must say of itself; `metadata`: of the weights."""
    wanted = {"model": checkpoint.model_hash(weights), "split": prepared.hashes["split"], "reading": read_model.reading_hash(prepared)}
    return wanted | {key: metadata[key] for key in ("recipe", seed_aggregation.KEY) if key in metadata}


def _is_current(prepared: Prepared, path: Path, wanted: Mapping[str, str], perturbed: bool) -> bool:
    if not path.exists():
        return False
    found = checkpoint.metadata(path)
    seeds = found.get(seed_aggregation.KEY) == wanted.get(seed_aggregation.KEY)
    return seeds and matches(wanted, found) and (not perturbed or read_model.enough_copies(prepared, found))


def add_columns(prepared: Prepared, name: str, columns: Mapping[str, Array], about: Mapping[str, str]) -> None:
    """Add columns to a run's logits table: what other models predict for its images.

    Args:
        prepared: the images and splits.
        name: the run.
        columns: by name, each [N, ...].
        about: what the columns were made from, for the metadata.
    """
    table = logits(prepared, name)
    path = prepared.layout.logits(name)
    logits_table.write(replace(table, columns={**table.columns, **columns}, about={**table.about, **about}), path)


def _read(prepared: Prepared, name: str, wanted: Mapping[str, str], perturbed: bool) -> LogitsTable:
    """Read the model; the one that represents several seeds is the first seed's, whose table exists or is wanted anyway."""
    several = seed_aggregation.listed(wanted)
    first = logits(prepared, str(RunId.parse(name).with_seed(min(several)))) if several else None
    if first and first.about["model"] == wanted["model"]:
        own = {column: values for column, values in first.columns.items() if column not in (SWAPPED, *SHADOWS)}
        copies = {key: first.about[key] for key in (read_model.PERTURBED,) if key in first.about}
        return replace(first, name=name, columns=own, about={**wanted, **copies})
    return read_model.read(prepared, name, checkpoint.load(prepared.layout.weights(name))[0], wanted, perturbed)


def _columns_of_others(path: Path, wanted: Mapping[str, str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Columns made from other models, and their metadata, of a table that is about to be replaced by one of the same model: they take
    long to make."""
    if not path.exists() or mismatch({key: wanted[key] for key in ("model", "split")}, checkpoint.metadata(path)):
        return {}, {}
    old = logits_table.read(path)
    kept = {key: columns for key, columns in {"swapped": (SWAPPED,), "shadows": SHADOWS}.items() if key in old.about}
    return {name: old.columns[name] for names in kept.values() for name in names}, {key: old.about[key] for key in kept}


def _hashes(prepared: Prepared, keys: Iterable[str]) -> dict[str, str]:
    return {key: prepared.hashes[key] for key in keys}


def _require(prepared: Prepared, path: Path, metadata: Mapping[str, str], keys: Iterable[str]) -> None:
    wrong = mismatch(_hashes(prepared, keys), metadata)
    if "data" in wrong:
        raise UserError(f"{path} was made from other images than {prepared.layout.data} holds")
    if "normalisation" in wrong:
        raise UserError(f"{path} was made with {metadata['normalisation']}, not with {prepared.hashes['normalisation']}; give those again")
    if wrong:
        raise UserError(f"{path} was made for other splits than {prepared.layout.splits} holds")


def _cached(path: Path, name: str) -> LogitsTable:
    """Read a table once while its file does not change, with what was computed from it, such as the reference's attack."""
    return _read_table(path, path.stat().st_mtime_ns, name)


@lru_cache(maxsize=_CACHED_TABLES)
def _read_table(path: Path, changed: int, name: str) -> LogitsTable:
    return logits_table.read(path, name)
