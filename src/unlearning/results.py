"""What a model scores: its logits table, read once in float32, and arithmetic on it. The only reader of the test split."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unlearning import checkpoint, metrics, predict
from unlearning.errors import BadInput
from unlearning.files import read_json, write_json
from unlearning.splits import SPLITS
from unlearning.workspace import Prepared, say

Scores = dict[str, Any]


def scores(prepared: Prepared, name: str) -> Scores:
    """scores/<name>.json, from logits/<name>.safetensors, both made when missing or of other weights or splits.

    `accuracy` in percent and `loss` in nats by split, `gap` (retain minus forget accuracy)."""
    config = prepared.config
    path = config.workspace / "models" / f"{name}.safetensors"
    tensors, known = checkpoint.load(path)
    if known.get("data") != prepared.hashes["data"]:
        raise BadInput(f"{path} was made from other images than {config.workspace / 'data'} holds")
    if name not in ("original", "retrained") and known.get("split") != prepared.hashes["split"]:
        raise BadInput(f"{path} was made for other splits than {config.workspace / 'data' / 'splits'} holds")
    made_of = {"model": checkpoint.weights_hash(tensors), "split": prepared.hashes["split"]}
    logits_path = config.workspace / "logits" / f"{name}.safetensors"
    scores_path = config.workspace / "scores" / f"{name}.json"
    if logits_path.exists() and scores_path.exists():
        found = checkpoint.metadata(logits_path)
        if all(found.get(key) == value for key, value in made_of.items()):
            return read_json(scores_path)  # type: ignore[no-any-return]
    say(f"{name}: reading {len(prepared.images.ids):,} images into a logits table")
    table = _logits_table(prepared, tensors)
    checkpoint.save(table, logits_path, {**made_of, "ids": json.dumps(prepared.images.ids)})
    measured = measure(table)
    write_json(scores_path, measured)
    return measured


def _logits_table(prepared: Prepared, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`logits` float32 [N, C], `labels` int64 [N], `split` uint8 [N], all in the order of the images."""
    network = prepared.network(0)
    network.load_state_dict(dict(tensors))
    everything = torch.arange(len(prepared.images.ids), device=prepared.compute.device)
    split = torch.zeros(len(everything), dtype=torch.uint8)
    for number, name in enumerate(SPLITS):
        split[torch.from_numpy(prepared.splits[name])] = number
    logits_NC = predict.logits(network, prepared.data, everything).cpu()
    if not torch.isfinite(logits_NC).all():
        raise BadInput("the model's logits are not all finite: it diverged")
    return {"logits": logits_NC, "labels": prepared.data.labels_N.cpu(), "split": split}


def measure(table: Mapping[str, torch.Tensor]) -> Scores:
    """Every measure of one logits table."""
    measured: Scores = {"accuracy": {}, "loss": {}}
    for number, name in enumerate(SPLITS):
        rows = table["split"] == number
        if rows.any():
            measured["accuracy"][name] = round(metrics.accuracy(table["logits"][rows], table["labels"][rows]), 6)
            measured["loss"][name] = round(metrics.cross_entropy(table["logits"][rows], table["labels"][rows]), 6)
    measured["gap"] = round(measured["accuracy"]["retain"] - measured["accuracy"]["forget"], 6)
    return measured


def distances(measured: Scores, reference: Scores) -> dict[str, float]:
    """`<split>.distance`: accuracy minus the retrained model's, in points, signed."""
    there = reference["accuracy"]
    return {f"{name}.distance": round(value - there[name], 6) for name, value in measured["accuracy"].items() if name in there}


def final(measured: Scores) -> dict[str, float]:
    """What a finished row says once: test accuracy and loss (the other splits stand in its last epoch)."""
    return {f"test.{kind}": measured[kind]["test"] for kind in ("accuracy", "loss") if "test" in measured[kind]}


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
    return "\n".join(lines)
