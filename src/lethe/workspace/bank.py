"""The reference bank: originals and retrained models that differ in their seed alone, each kept as its logits table.

They stand in bank/<key>/<kind>.seed<k>.safetensors; the key is a hash of all that makes them but their seed, so other data or another
recipe is another folder, and the old one stays. Weights are not kept: what measures want of a model stands in its table. Seeds are those
behind run.seed, whose own models stand in models/ and are held out of the bank."""

from functools import lru_cache
from pathlib import Path

from lethe._util.errors import UserError
from lethe._util.files import digest, short
from lethe.config.loader import STAGE
from lethe.evaluation import logits_table as table
from lethe.evaluation.logits_table import LogitsTable
from lethe.workspace.provenance import mismatch
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared


def key(prepared: Prepared) -> str:
    """What two models of a bank have in common: images, splits, architecture, both recipes, precision."""
    config = prepared.config
    recipes = (repr(config.reference_recipe(kind)) for kind in STAGE)
    how = f"{config.data.mean} {config.data.std} {config.run.precision}"
    return short(digest([prepared.hashes["data"], prepared.hashes["split"], config.model.architecture, *recipes, how]))


def home(prepared: Prepared) -> Path:
    return prepared.layout.bank(key(prepared))


def path(prepared: Prepared, kind: str, seed: int) -> Path:
    return prepared.layout.bank_logits(key(prepared), kind, seed)


def asked(prepared: Prepared, kind: str, seed: int) -> dict[str, str]:
    """What a table says of its model."""
    known = {"kind": kind, "seed": str(seed), "architecture": prepared.config.model.architecture}
    return known | prepared.hashes | {"recipe": repr(prepared.config.reference_recipe(kind))}


def tables(prepared: Prepared, kind: str) -> list[LogitsTable]:
    """All models of a kind in the bank of these settings, by seed; without the one of run.seed, which is held out.

    Raises UserError, naming both sides, where a file was made from other images, splits or by another recipe."""
    found = {}
    for seed, file in prepared.layout.bank_seeds(key(prepared), kind).items():
        if seed != prepared.config.run.seed:
            found[seed] = _read(file, file.stat().st_mtime_ns)
            wanted = asked(prepared, kind, seed)
            wrong = mismatch(wanted, found[seed].about)
            if wrong:
                there, here = (short(str(said.get(wrong[0]))) for said in (found[seed].about, wanted))
                raise UserError(
                    f"{file} does not belong to this bank: its {wrong[0]} is {there}, these settings have {here}; "
                    f"delete it, and {repair_command('bank', prepared.config)} makes its own"
                )
    return [found[seed] for seed in sorted(found)]


@lru_cache(maxsize=1024)
def _read(file: Path, changed: int) -> LogitsTable:
    """Kept with what was worked out of it while the file does not change."""
    return table.read(file, str(file))
