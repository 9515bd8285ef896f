"""What a model scores: its logits table, read once in float32, and every measure of it. The only reader of the test split."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearning import checkpoint, features, measures, metrics, predict, table
from unlearning.case import Case
from unlearning.errors import BadInput
from unlearning.files import read_json, short, write_json
from unlearning.intervals import Estimate
from unlearning.measuring import TAUS
from unlearning.scratch import STAGE
from unlearning.splits import SPLITS
from unlearning.table import LogitsTable
from unlearning.workspace import Prepared, say

Scores = dict[str, Any]


def scores(prepared: Prepared, name: str, anew: bool = False) -> Scores:
    """scores/<name>.json, made when missing, when it is of other tables than there are now, or `anew`. Needs no model but for a table
    that is missing.

    `accuracy` in percent and `loss` in nats by split, `gap` (retain minus forget accuracy); `measures` by id, each with its value and
    interval, or what is missing; `tier` and `references`: how many retrained models it was measured beside; `of`: which tables."""
    tables = _beside(prepared, logits(prepared, name))
    path, of = _file(prepared, name), _of(tables)
    known = read_json(path) if path.exists() else {}
    if not anew and known.get("of") == of:
        return known
    measured = measure(tables["model"], [made for which, made in tables.items() if which == "retrained"], tables.get("original"))
    measured["of"] = of
    if measured != known:  # else the file keeps its time
        write_json(path, measured)
    return measured


def fresh(prepared: Prepared, name: str) -> bool:
    """Whether the score file is there, and of the tables that are there now."""
    path = _file(prepared, name)
    return path.exists() and read_json(path).get("of") == _of(_beside(prepared, logits(prepared, name)))


def weights(prepared: Prepared, name: str) -> str:
    """The short hash of the weights that the table was read from: how a row is found."""
    return _of({"model": logits(prepared, name)})["model"]


def _file(prepared: Prepared, name: str) -> Path:
    return prepared.config.workspace / "scores" / f"{name}.json"


def _of(tables: Mapping[str, LogitsTable]) -> dict[str, str]:
    return {which: short(made.about.get("model", made.hash)) for which, made in tables.items()}


def _beside(prepared: Prepared, model: LogitsTable) -> dict[str, LogitsTable]:
    """The table and those that it is measured beside, as far as they are there. The retrained model is none of its own: it takes a
    second one to say how far apart two of them are."""
    if model.name == "retrained":
        return {"model": model}
    beside = {kind: logits(prepared, kind) for kind in STAGE if kind != model.name and there(prepared, kind)}
    return {"model": model, "original": model, **beside} if model.name == "original" else {"model": model, **beside}


# --- tables -----------------------------------------------------------------------------------------------------------


def there(prepared: Prepared, name: str) -> bool:
    """Whether there is a model or a logits table of this name, of these splits."""
    home, split = prepared.config.workspace, prepared.hashes["split"]
    if (home / "models" / f"{name}.safetensors").exists():
        known = checkpoint.metadata(home / "models" / f"{name}.safetensors")
        return all(known.get(key) == prepared.hashes[key] for key in BELONGS.get(name, ("data", "split")))
    path = home / "logits" / f"{name}.safetensors"
    return path.exists() and checkpoint.metadata(path).get("split") == split


# what a model must have been made from: an original knows no forget list, a retrained model what it retained
BELONGS = {"original": ("data",), "retrained": ("data", "retain")}


def logits(prepared: Prepared, name: str) -> LogitsTable:
    """logits/<name>.safetensors, read from the model when missing or of other weights or splits; where the model is gone, as it is.

    Raises BadInput when neither is there, or what is there is of other images or splits."""
    config = prepared.config
    model, path = (config.workspace / folder / f"{name}.safetensors" for folder in ("models", "logits"))
    if not model.exists() and path.exists():
        if checkpoint.metadata(path).get("split") != prepared.hashes["split"]:
            raise BadInput(f"{path} was made for other splits than {config.workspace / 'data' / 'splits'} holds")
        return _read(path, path.stat().st_mtime_ns, name)
    tensors, known = checkpoint.load(model)
    if known.get("data") != prepared.hashes["data"]:
        raise BadInput(f"{model} was made from other images than {config.workspace / 'data'} holds")
    if name not in STAGE and known.get("split") != prepared.hashes["split"]:
        raise BadInput(f"{model} was made for other splits than {config.workspace / 'data' / 'splits'} holds")
    made_of = {"model": checkpoint.weights_hash(tensors), "split": prepared.hashes["split"]}
    if path.exists():
        found = checkpoint.metadata(path)
        if all(found.get(key) == value for key, value in made_of.items()):
            return _read(path, path.stat().st_mtime_ns, name)
    table.write(_made(prepared, name, tensors, made_of), path)
    return _read(path, path.stat().st_mtime_ns, name)  # a score after training equals that after reading, to the last digit


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, name: str) -> LogitsTable:
    """Kept with what was worked out of it, as the reference's attack, while the file does not change."""
    return table.read(path, name)


def _made(prepared: Prepared, name: str, tensors: Mapping[str, torch.Tensor], made_of: Mapping[str, str]) -> LogitsTable:
    """What the model says of all images, and what only it could tell: a probe of its features, and of perturbed forget images."""
    ids, forget = prepared.images.ids, prepared.splits["forget"]
    say(f"{name}: reading {len(ids):,} images, and perturbed copies of {len(forget):,}, into a logits table")
    network, device = prepared.network(0), prepared.compute.device
    network.load_state_dict(dict(tensors))
    split = np.zeros(len(ids), np.uint8)
    for number, part in enumerate(SPLITS):
        split[prepared.splits[part]] = number
    logits_NC, features_ND = predict.logits_and_features(network, prepared.data, torch.arange(len(ids), device=device))
    labels = prepared.images.labels.astype(np.int64)
    if not torch.isfinite(logits_NC).all():
        raise BadInput(f"{name}: the model's logits are not all finite: it diverged")
    columns = {}
    if features_ND is not None:
        columns["probe"] = features.probe(features_ND.numpy(), labels, prepared.splits["retain"], logits_NC.shape[1])
    counts = predict.perturbed(network, prepared.data, torch.from_numpy(forget).to(device), [ids[i] for i in forget], TAUS)
    columns["residual"] = np.zeros((len(ids), len(TAUS)), np.uint8)  # of forget images alone
    columns["residual"][forget] = counts.numpy()
    return LogitsTable(name, tuple(ids), labels, split, logits_NC.cpu().numpy(), columns, made_of)


# --- scores -----------------------------------------------------------------------------------------------------------


def measure(model: LogitsTable, references: Sequence[LogitsTable] = (), original: LogitsTable | None = None) -> Scores:
    """All that can be said of one logits table beside others: what stands in its score file."""
    measured: Scores = {"accuracy": {}, "loss": {}}
    for split in SPLITS:
        rows = model.rows(split)
        if len(rows):
            said = torch.from_numpy(model.logits[rows]), torch.from_numpy(model.labels[rows])
            measured["accuracy"][split] = round(metrics.accuracy(*said), 6)
            measured["loss"][split] = round(metrics.cross_entropy(*said), 6)
    measured["gap"] = round(measured["accuracy"]["retain"] - measured["accuracy"]["forget"], 6)
    case = Case(model, references, original)
    theirs = measures.of_references(case)
    found: Scores = {}
    for id_, got in measures.measure(case, [each for each in measures.MEASURES if not measures.of_machine(each)]).items():
        reference = {"reference": _numbers(theirs[id_])} if id_ in theirs else {}
        found[id_] = {"missing": got} if isinstance(got, str) else _numbers(got) | reference
    return measured | {"measures": found, "tier": measures.tier(len(references)), "references": len(references)}


def _numbers(estimate: Estimate) -> dict[str, Any]:
    known: dict[str, Any] = {"value": round(estimate.value, 6)}
    if estimate.low is not None and estimate.high is not None:
        known |= {"low": round(estimate.low, 6), "high": round(estimate.high, 6), "interval": estimate.interval}
    return known | ({"models": estimate.models} if estimate.models > 1 else {})


def over_forgotten(measured: Scores) -> str:
    """The alarm: in words what lies beyond the reference's interval on the far side of forgetting, "" where nothing does."""
    said = []
    for id_, what, below in (("accuracy.forget", "forget accuracy", True), ("mia.over", "mia.over", False)):
        ours = measured.get("measures", {}).get(id_, {})
        theirs = ours.get("reference", {})
        if "low" in theirs and "value" in ours:
            beyond = ours["value"] < theirs["low"] if below else ours["value"] > theirs["high"]
            if beyond:
                where = f"below {theirs['low']:.4g}" if below else f"above {theirs['high']:.4g}"
                said.append(f"{what} {ours['value']:.4g} is {where}")
    return " and ".join(said)


def distances(measured: Scores, reference: Scores) -> dict[str, float]:
    """`<split>.distance`: accuracy minus the retrained model's, in points, signed."""
    there = reference["accuracy"]
    return {f"{name}.distance": round(value - there[name], 6) for name, value in measured["accuracy"].items() if name in there}


def final(measured: Scores) -> dict[str, float]:
    """What a finished row says once: test accuracy and loss (the other splits stand in its last epoch), and every measure."""
    once = {f"test.{kind}": measured[kind]["test"] for kind in ("accuracy", "loss") if "test" in measured[kind]}
    found = {id_: got["value"] for id_, got in measured["measures"].items() if "value" in got and not id_.startswith("accuracy.")}
    return once | {metric(id_): value for id_, value in found.items()}


def metric(id_: str) -> str:
    """A measure's name in MLflow: `<split>.<measure>` where it is of a split, so that the UI groups it with the split's others.

    >>> metric("distance.forget"), metric("klom.forget.p95"), metric("mia.svc")
    ('forget.distance', 'forget.klom.p95', 'mia.svc')
    """
    parts = id_.split(".")
    split = next((part for part in parts if part in SPLITS), None)
    return ".".join([split, *(part for part in parts if part != split)]) if split else id_


def show(table: Sequence[tuple[str, Scores]]) -> str:
    """The result, side by side, with each row's distance to the retrained model in brackets."""
    reference = dict(table).get("retrained")
    head = f"{'percent':<22}" + "".join(f"{name:>18}" for name in SPLITS) + f"{'gap':>9}"
    lines = [head]
    for name, measured in table:
        cells = []
        for split in SPLITS:
            value = measured["accuracy"].get(split)
            apart = f" ({value - reference['accuracy'][split]:+.2f})" if reference and name != "retrained" and value is not None else ""
            cells.append(f"{value:.2f}{apart}".rjust(18) if value is not None else " " * 18)
        lines.append(f"{name:<22}" + "".join(cells) + f"{measured['gap']:9.2f}")
    if reference:
        lines.append("in brackets: minus retrained, in points; perfect unlearning is 0 everywhere. gap: retain minus forget")
    lines += [f"{name} over-forgets: {said}" for name, measured in table if (said := over_forgotten(measured))]
    return "\n".join(lines)
