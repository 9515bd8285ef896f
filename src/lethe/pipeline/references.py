"""The original and the retrained reference: taken from a file or trained, and never mistaken for those of other data."""

import re
from pathlib import Path

from torch import Tensor

from lethe._util.errors import UserError
from lethe._util.files import write_text
from lethe._util.log import log
from lethe.config.loader import STAGE
from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import MEASURED, epoch_row, to_csv
from lethe.evaluation import inference as predict
from lethe.models import checkpoint
from lethe.pipeline import run_logging as rows
from lethe.pipeline.runner import started
from lethe.workspace.provenance import mismatch
from lethe.workspace.settings import WITH_ORIGINAL, repair_command
from lethe.workspace.workspace import Prepared, remember

DATA = {"original": "all train images", "retrained": "retain alone"}


def weights(prepared: Prepared, kind: str, *, anew: bool = False, launched: bool = False) -> dict[str, Tensor]:
    """What is there and belongs, else a given checkpoint, else trained now.

    `anew` (the stage itself) replaces what does not belong; without it that is UserError, naming the command that mends it."""
    config = prepared.config
    path = prepared.layout.weights(kind)
    asked = _asked(prepared, kind)
    if path.exists():
        tensors, found = checkpoint.load(path)
        wrong = mismatch(asked, found)
        if not wrong:
            return tensors
        if not anew:
            how = f": {apart}" if "recipe" in wrong and (apart := _apart(found.get("recipe", ""), asked["recipe"])) else ""
            raise UserError(
                f"{path} does not belong to these settings (other {' and '.join(wrong)}{how}); give those that it was made with, or "
                f"{repair_command(STAGE[kind], config)} makes it anew"
            )
    network = prepared.network(config.run.seed)
    if asked["provenance"] == "unknown":
        spec = getattr(config, STAGE[kind]).checkpoint
        try:
            tensors, sha = checkpoint.foreign(spec, config.path(Path()), prepared.layout.downloads)
            checkpoint.fit(network, tensors, spec)
        except UserError as error:
            raise UserError(f"{STAGE[kind]}.checkpoint: {error}") from None
        log(f"{kind}: {spec}, SHA-256 {sha}, provenance unknown")
        start = Epoch(0, "start", 0, 0.0, metrics=predict.evaluator(prepared.data, MEASURED)(network))
        write_text(prepared.layout.epochs(kind), to_csv([epoch_row(start)]))
        checkpoint.save(network.state_dict(), path, {**asked, "sha256": sha})
        remember(prepared, *(WITH_ORIGINAL if kind == "original" else ("retrain.",)))
        return network.state_dict()
    log(f"{kind}: training on {DATA[kind]}")
    with started(prepared, kind, config.reference_recipe(kind), network, launched=launched) as run:
        run.follow()
        run.save(path, asked)
        remember(prepared, *(WITH_ORIGINAL if kind == "original" else ("retrain.",)))
        rows.finished(run.row, prepared, kind, run.state.global_epoch)
    return network.state_dict()


def _apart(there: str, here: str) -> str:
    """In which of their numbers two recipes differ; "" where they are built otherwise."""
    numbers = re.compile(r"(\w+)=(-?[\d.e-]+|True|False)")
    pairs = list(zip(numbers.findall(there), numbers.findall(here), strict=False))
    differ = dict.fromkeys(f"{name} {was}, here {now}" for (name, was), (other, now) in pairs if name == other and was != now)
    return "; ".join([*differ][:4]) if numbers.sub("", there) == numbers.sub("", here) else ""


def _asked(prepared: Prepared, kind: str) -> dict[str, str]:
    """What a checkpoint's metadata must say to belong: an original knows the train images, a retrained one what it retained."""
    config = prepared.config
    known = {"kind": kind, "architecture": config.model.architecture, "data": prepared.hashes["data"]}
    if kind == "retrained":
        known["retain"] = prepared.hashes["retain"]
    spec: str | None = getattr(config, STAGE[kind]).checkpoint
    if spec:
        return known | {"provenance": "unknown", "checkpoint": spec.rsplit("/", 1)[-1]}
    return known | {"provenance": "trained", "seed": str(config.run.seed), "recipe": repr(config.reference_recipe(kind))}
