"""The reference bank: originals and retrained models that differ in their seed alone, each stored as its logits table.

A table is bank/<key>/<kind>.seed<k>.safetensors. The key is a hash of everything that makes the models except their seed, so other data
or another recipe is another folder, and the old one is kept. Weights are not stored: all that measures need is in the table. The seeds
are those after run.seed, whose own models are in models/ and not part of the bank."""

from functools import lru_cache
from pathlib import Path

from lethe._util.errors import UserError
from lethe._util.files import digest, short
from lethe.config.loader import STAGE
from lethe.evaluation import logits_table
from lethe.evaluation.logits_table import LogitsTable
from lethe.workspace.provenance import mismatch
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, initial_weights


def key(prepared: Prepared) -> str:
    """Return the name of the bank for these settings: a hash of images, splits, architecture, both recipes, precision and pretrain.init."""
    config = prepared.config
    recipes = (repr(prepared.reference_recipe(kind)) for kind in STAGE)
    how = f"{config.data.mean} {config.data.std} {config.run.precision}"
    start = filter(None, [initial_weights(prepared.config)])
    return short(digest([prepared.hashes["data"], prepared.hashes["split"], config.model.architecture, *recipes, how, *start]))


def folder(prepared: Prepared) -> Path:
    """Return the bank's folder, which need not exist."""
    return prepared.layout.bank(key(prepared))


def path(prepared: Prepared, kind: str, seed: int) -> Path:
    """Return the file of a model, which need not exist.

    Args:
        prepared: the images and splits.
        kind: original or retrained.
        seed: of the model.

    Returns:
        The path of its logits table.
    """
    return prepared.layout.bank_logits(key(prepared), kind, seed)


def metadata(prepared: Prepared, kind: str, seed: int) -> dict[str, str]:
    """Return the metadata that the logits table of a model must have.

    Args:
        prepared: the images and splits.
        kind: original or retrained.
        seed: of the model.

    Returns:
        Texts by key: kind, seed, architecture, the hashes of images and splits (data, split, retain), recipe.
    """
    known = {"kind": kind, "seed": str(seed), "architecture": prepared.config.model.architecture}
    return known | prepared.hashes | {"recipe": repr(prepared.reference_recipe(kind))}


def tables(prepared: Prepared, kind: str) -> list[LogitsTable]:
    """Return the logits tables of a kind in the bank of these settings, by seed, without that of run.seed.

    Args:
        prepared: the images and splits.
        kind: original or retrained.

    Returns:
        One table for each seed, ascending; [] if the bank has none of this kind.

    Raises:
        UserError: a file was made from other images, splits or by another recipe; the message names both sides.
    """
    found, files = {}, prepared.layout.bank_seeds(key(prepared), kind)
    of_all = metadata(prepared, kind, 0) if files else {}  # once: a recipe's text takes as long as reading what a file says of itself
    for seed, file in files.items():
        if seed != prepared.config.run.seed:
            found[seed] = _read(file, file.stat().st_mtime_ns)
            wanted = of_all | {"seed": str(seed)}
            wrong = mismatch(wanted, found[seed].about)
            if wrong:
                theirs, ours = (short(str(about.get(wrong[0]))) for about in (found[seed].about, wanted))
                raise UserError(
                    f"{file} does not belong to this bank: its {wrong[0]} is {theirs}, these settings have {ours}; "
                    f"delete it, and {repair_command('bank', prepared.config)} makes its own"
                )
    return [found[seed] for seed in sorted(found)]


@lru_cache(maxsize=1024)
def _read(file: Path, changed: int) -> LogitsTable:
    """Read a table once while its file does not change, with what was computed from it."""
    return logits_table.read(file, str(file))
