"""The command that writes a card."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from lethe._util.errors import UserError
from lethe.data import splits
from lethe.data.images import Images, save_images
from lethe.reporting import card
from support.cards import CLASSES, put, written
from support.tables import SIZES, drawn


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("card") / "workspace"
    model = drawn(1, 1.0, "model_1")
    pixels = np.random.default_rng(0).integers(0, 255, (len(model.ids), 3, 8, 8), np.uint8)
    images = Images(pixels, model.labels, model.ids, CLASSES, SIZES[2] + SIZES[3])
    save_images(images, home / "data" / "images.safetensors", "")
    index = np.split(np.arange(len(model.ids)), np.cumsum(SIZES)[:-1])
    request = dict(zip(splits.SPLITS, index, strict=True))
    splits.write(request, images, home / "data" / "splits")
    split = splits.split_hash(request, images)
    put(home, "retrained", drawn(100, name="retrained"), split)
    put(home, "original", drawn(50, 3.0, "original"), split)
    put(home, "model_1", model, split)
    put(home, "model_2", drawn(2, -3.0, "model_2"), split)
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    told = {}

    class Told:
        def text(self, path, text):
            told[path] = text

    @contextmanager
    def join(home, tags):
        told["tags"] = tags
        yield Told()

    monkeypatch.setattr(card, "find_runs", lambda tags: [])
    monkeypatch.setattr(card.RunLog, "join", join)
    shutil.copytree(made, tmp_path / "workspace")
    Home = type("Home", (type(tmp_path),), {"told": told})
    return Home(tmp_path / "workspace")


# --- what it refuses ----------------------------------------------------------------------------------------------------


def refused(home, match):
    with pytest.raises(UserError, match=match) as found:
        written(home)
    assert "\n" not in str(found.value)
    assert not (home / "cards").exists()


# --- the command --------------------------------------------------------------------------------------------------------


def test_the_command(project):
    refused = project.run("report", "card", "--method", "model_1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "holds no run of model_1; `python src/unlearn.py --method model_1` makes one" in refused.stderr
    project.ran("unlearn", "--method", "model_1")
    done = project.ran("report", "card", "--method", "model_1")
    path = project.root / "cards" / done.stdout.strip().rpartition("/")[2]
    assert done.stdout == f"{path}\n"
    made = json.loads(path.with_suffix(".json").read_text())
    (row,) = project.rows(method="model_1")
    assert made["reproduce"]["about"]["run"] == row["run_id"]
    assert made["reproduce"]["commands"]["result"] == "python src/unlearn.py --method model_1"  # params.yaml says all of it
    assert "epochs=3" in made["models"]["result"]["recipe"]
    (logged,) = (project.root / "mlruns").rglob(path.name)
    assert logged.read_bytes() == path.read_bytes()
    assert row["run_id"] in str(logged)
    some = (project.root / "data" / "splits" / "forget.csv").read_text().split()[1]
    assert str(path) in project.ran("report", "card", "--list", some).stdout
    none = project.run("report", "card", "--list=test/0")
    assert (none.returncode, none.stdout, none.stderr.count("\n")) == (2, "", 1)
