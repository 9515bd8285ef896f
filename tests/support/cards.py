"""A workspace made by hand, of which a card is written."""

import copy
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lethe._util.files import digest, short, write_json
from lethe.config import loader as config
from lethe.data import splits
from lethe.data.images import Images, save_images
from lethe.evaluation import logits_table as table
from lethe.evaluation.score import score_model
from lethe.reporting import card
from lethe.testing.tables import SIZES, drawn

CLASSES = ("cat", "dog", "<ship>", "bird")


def put(home, name, made, split, scored=True):
    """A logits table in its file, and its scores beside those of the others."""
    about = {"model": digest([name]), "split": split}
    table.write(
        table.LogitsTable(name, made.ids, made.labels, made.split, made.logits, about=about), home / "logits" / f"{name}.safetensors"
    )
    if not scored:
        return
    lying = {stem: home / "logits" / f"{stem}.safetensors" for stem in ("original", "retrained")}
    others = {stem: table.read(path, stem) for stem, path in lying.items() if path.exists() and name != "retrained"}
    beside = {"original": made} | {k: v for k, v in others.items() if k != name} if name == "original" else others
    references = [beside["retrained"]] if "retrained" in beside else []
    score = score_model(made, references, beside.get("original"), at_random=True)  # as the default request is
    of = {"model": short(about["model"])} | {stem: short(digest([stem])) for stem in beside}
    write_json(home / "scores" / f"{name}.json", replace(score, tables=of).to_json())


def asked(home, *said, method="model_1"):
    return config.load(["--run.workspace", str(home), "--method", method, *said])


def written(home, *said, method="model_1"):
    card.write_cards(asked(home, *said, method=method))
    (path,) = (home / "cards").glob(f"{method}-*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text(), path.with_suffix(".html").read_text()


def changed(tree, path, value):
    other = copy.deepcopy(tree)
    node = other
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return other


def workspace(home, scored=True):
    """A workspace with an original, a retrained model and two results; `scored`: with their scores."""
    model = drawn(1, 1.0, "model_1")
    pixels = np.random.default_rng(0).integers(0, 255, (len(model.ids), 3, 8, 8), np.uint8)
    images = Images(pixels, model.labels, model.ids, CLASSES, SIZES[2] + SIZES[3])
    save_images(images, home / "data" / "images.safetensors", "")
    index = np.split(np.arange(len(model.ids)), np.cumsum(SIZES)[:-1])
    request = dict(zip(splits.SPLITS, index, strict=True))
    splits.write(request, images, home / "data" / "splits")
    split = splits.split_hash(request, images)
    put(home, "retrained", drawn(100, name="retrained"), split, scored)
    put(home, "original", drawn(50, 3.0, "original"), split, scored)
    put(home, "model_1", model, split, scored)
    put(home, "model_2", drawn(2, -3.0, "model_2"), split, scored)
    return home


def logged(made, tmp_path, monkeypatch):
    """A copy of the workspace `made`; what a card logs with its run is kept in `.told`."""
    told = {}

    class Told:
        def text(self, path, text):
            told[path] = text

    @contextmanager
    def join(home, tags):
        told["tags"] = tags
        yield Told()

    monkeypatch.setattr("lethe.reporting.reproduction.find_runs", lambda tags: [])
    monkeypatch.setattr("lethe.reporting.card.RunLog.join", join)
    shutil.copytree(made, tmp_path / "workspace")
    Home = type("Home", (type(tmp_path),), {"told": told})
    return Home(tmp_path / "workspace")
