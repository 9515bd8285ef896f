"""Copies of a workspace: found once, named in a file, counted in another."""

from pathlib import Path

import numpy as np
import pytest

from lethe._util.files import read_json
from lethe.config import loader
from lethe.data import splits
from lethe.data.images import Images
from lethe.workspace import copies
from lethe.workspace.workspace import Prepared


def test_copies_are_found_once_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 3, 8, 8), np.uint8)
    pixels[1], pixels[4] = pixels[0], pixels[2]
    ids = ("train/a,b/0.png", "train/a,b/1.png", "train/c/2.png", "train/c/3.png", "test/c/4.png", "test/c/5.png")
    images = Images(pixels, np.array([0, 0, 1, 1, 1, 1]), ids, ("a,b", "c"), 2)
    divided = {"retain": np.array([1, 2, 3]), "forget": np.array([0]), "validation": np.array([4]), "test": np.array([5])}
    config = loader.load(["--run.workspace", str(tmp_path)])
    found = copies.counts(Prepared(config, images, divided))
    said = capsys.readouterr().err
    assert (
        f"1 of 1 forgotten images have an exact copy in retain, so the model still learns what they show; {tmp_path}/data/copies.csv"
        in said
    )
    assert said.count("\n") == 2
    assert (tmp_path / "data/copies.csv").read_text().splitlines() == [
        "relation,kind,distance,image,split,class,copy,copy_split,copy_class",
        'forget_in_retain,exact,0,"train/a,b/0.png",forget,"a,b","train/a,b/1.png",retain,"a,b"',
        "held_out_in_train,exact,0,test/c/4.png,validation,c,train/c/2.png,retain,c",
    ]
    assert copies.counts(Prepared(config, images, divided)) == found == read_json(tmp_path / "data/copies.json")
    assert capsys.readouterr().err == ""
    (tmp_path / "data/copies.csv").unlink()  # as an erasure does
    assert copies.counts(Prepared(config, images, divided)) == found
    assert (tmp_path / "data/copies.csv").exists() and capsys.readouterr().err
    other = divided | {"retain": np.array([0, 2, 3]), "forget": np.array([1])}
    assert copies.counts(Prepared(config, images, other))["split"] != found["split"]
    assert ",train/a,b/1.png" not in capsys.readouterr().err


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    pixels = np.zeros((4, 3, 8, 8), np.uint8)
    pixels[2:] = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8), np.uint8)
    ids = ('=HYPERLINK("http://a.b")', "+a", "-x", "@y")
    images = Images(pixels, np.array([0, 0, 1, 1]), ids, ("=cmd", "c"), 2)
    divided = {"retain": np.array([1]), "forget": np.array([0]), "validation": np.array([2]), "test": np.array([3])}
    copies.counts(Prepared(loader.load(["--run.workspace", str(tmp_path)]), images, divided))
    (line,) = (tmp_path / "data/copies.csv").read_text().splitlines()[1:]
    assert line == """forget_in_retain,exact,0,"'=HYPERLINK(""http://a.b"")",forget,'=cmd,'+a,retain,'=cmd"""
    splits.write(divided, images, tmp_path / "splits")
    assert splits.read(tmp_path / "splits", images)["forget"].tolist() == [0]
    assert (tmp_path / "splits" / "retain.csv").read_text() == "id\n+a\n"
