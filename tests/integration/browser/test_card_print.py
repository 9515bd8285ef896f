"""A card as a browser prints it."""

import re
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

from lethe.data import splits
from lethe.data.images import Images, save_images
from lethe.evaluation.score import score_model
from lethe.reporting import card
from lethe.reporting import card_page as cardpage
from support.cards import CLASSES, changed, put, written
from support.tables import SIZES, bank, drawn


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


# --- in a browser -------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_it_prints_on_two_pages(home, tmp_path):
    made, *_ = written(home)
    scores = score_model(drawn(1, 1.0), bank(8), drawn(50, 3.0)).to_json()["measures"]  # more measures than most cards have
    many = [changed(made["measures"][0], ("id",), id_) | {"about": id_.partition(".")[0]} for id_, got in scores.items() if "value" in got]
    for name, one in {"few": made, "many": made | {"measures": many, "missing": {}}}.items():
        page, pdf = tmp_path / f"{name}.html", tmp_path / f"{name}.pdf"
        page.write_text(cardpage.html(one))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--no-pdf-header-footer"]
        subprocess.run(["chromium", *flags, f"--print-to-pdf={pdf}", page.as_uri()], check=True, capture_output=True, timeout=120)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) == 2, name
