"""A workspace made by hand, of which a card is written."""

import copy
import json
from dataclasses import replace

from lethe._util.files import digest, short, write_json
from lethe.config import loader as config
from lethe.evaluation import logits_table as table
from lethe.evaluation.score import score_model
from lethe.reporting import card

CLASSES = ("cat", "dog", "<ship>", "bird")


def put(home, name, made, split, references=()):
    """A logits table in its file, and its scores beside those of the others."""
    about = {"model": digest([name]), "split": split}
    table.write(
        table.LogitsTable(name, made.ids, made.labels, made.split, made.logits, about=about), home / "logits" / f"{name}.safetensors"
    )
    lying = {stem: home / "logits" / f"{stem}.safetensors" for stem in ("original", "retrained")}
    others = {stem: table.read(path, stem) for stem, path in lying.items() if path.exists() and name != "retrained"}
    beside = {"original": made} | {k: v for k, v in others.items() if k != name} if name == "original" else others
    score = score_model(made, [beside["retrained"]] if "retrained" in beside else [], beside.get("original"))
    of = {"model": short(about["model"])} | {stem: short(digest([stem])) for stem in beside}
    write_json(home / "scores" / f"{name}.json", replace(score, tables=of).to_json())


def asked(home, *said, method="model_1"):
    return config.load(["--run.workspace", str(home), "--method", method, *said])


def written(home, *said, method="model_1"):
    card.card(asked(home, *said, method=method))
    (path,) = (home / "cards").glob(f"{method}-*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text(), path.with_suffix(".html").read_text()


def changed(tree, path, value):
    other = copy.deepcopy(tree)
    node = other
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return other
