"""Erased images in workspaces that an erasure does not reach: each is named, with what to do."""

import shutil
from pathlib import Path

import pytest
import torch

from lethe.data.images import load_images, save_images
from lethe.erasure import other_workspaces
from lethe.erasure.sought import Sought
from lethe.models import checkpoint
from lethe.testing.tables import SIZES
from support.cards import asked, workspace
from support.erasures import HASHED, erasure
from support.project import ROOT

FORGET = tuple(f"image/{n:05d}" for n in range(SIZES[0], SIZES[0] + SIZES[1]))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace directly in a checkout."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "checkout"))
    (tmp_path / "checkout").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path / "checkout")
    home: Path = workspace(tmp_path / "checkout" / "ws")
    return home


def named(home: Path, *, ids: tuple[str, ...] = FORGET) -> list[str]:
    return [*other_workspaces.holding(asked(home), Sought([erasure(ids, "image/")], HASHED, 8))]


def test_none_is_named_that_holds_nothing(home: Path) -> None:
    (home.parent / "notes" / "data").mkdir(parents=True)
    workspace(home / "inner")  # searched with the workspace that it is in
    workspace(home.parents[1] / "deep" / "er" / "ws")
    assert named(home) == []
    shutil.copytree(home, home.parent / "other")
    assert named(home, ids=("image/99999",)) == []


def test_a_workspace_with_the_same_request_gets_its_command(home: Path) -> None:
    other = home.parent / "other"
    shutil.copytree(home, other)
    checkpoint.save({"weight": torch.ones(1)}, other / "models" / "model_2.safetensors", {})
    (line,) = named(home)
    assert line == (
        f"{other}, another workspace, which holds {len(FORGET)} of the ids; `python src/erase.py --run.workspace other --method model_2` "
        "prints the plan that erases them there"
    )


@pytest.mark.parametrize("without", ["data/splits", "data/images.safetensors"])
def test_one_in_which_they_were_not_unlearned_is_to_be_deleted(home: Path, without: str) -> None:
    """By its images alone, and by its splits alone."""
    other = home.parent / "other"
    shutil.copytree(home, other)
    shutil.rmtree(other / without) if (other / without).is_dir() else (other / without).unlink()
    (line,) = named(home)
    assert line.endswith(f"holds {len(FORGET)} of the ids; delete the folder, or unlearn and erase them there")


def test_the_checkout_itself_and_the_workspaces_in_it(home: Path, tmp_path: Path) -> None:
    away = tmp_path / "away" / "ws"
    shutil.copytree(home, away)
    shutil.copytree(home / "data", home.parent / "data")
    checkout, inside = named(away)
    assert checkout == f"{home.parent}, another workspace, which holds {len(FORGET)} of the ids; unlearn and erase them there"
    assert inside.startswith(f"{home}, another workspace")


def test_images_of_other_classes_may_only_have_the_same_names(home: Path) -> None:
    other = home.parent / "other"
    shutil.copytree(home, other)
    images, listing = load_images(other / "data" / "images.safetensors")
    object.__setattr__(images, "classes", ("0", "1", "2", "3"))
    save_images(images, other / "data" / "images.safetensors", listing)
    (line,) = named(home)
    assert line.endswith("its images have other classes, so they may be others of the same names")


def test_one_that_cannot_be_read_is_named(home: Path) -> None:
    images = home.parent / "other" / "data" / "images.safetensors"
    images.parent.mkdir(parents=True)
    images.write_bytes(b"nothing")
    (line,) = named(home)
    assert line.startswith(f"{home.parent / 'other'}, another workspace, which can't be read (") and "\n" not in line
