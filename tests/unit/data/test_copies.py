"""Copies among the images: exact ones by their pixels, near ones by perceptual hashes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lethe._util.errors import UserError
from lethe.data import copies, splits
from lethe.data.copies import FORGOTTEN, HELD_OUT, TWO_LABELS
from lethe.data.images import Images
from lethe.data.request import DeletionRequest
from lethe.workspace.copies import sentences


def scene(seed: int, size: int = 48) -> Image.Image:
    """A picture with structure, as photos have: a few soft rectangles."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def compressed(image: Image.Image) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=50)
    return Image.open(out).convert("RGB")


def made(pictures: list[Image.Image], labels: list[int], held_out: int) -> Images:
    pixels = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    train = len(pictures) - held_out
    ids = (*(f"train/{i}" for i in range(train)), *(f"test/{i}" for i in range(held_out)))
    return Images(np.ascontiguousarray(pixels), np.array(labels), ids, ("a", "b"), held_out)


@pytest.fixture
def images() -> Images:
    """Forgotten: 0, copied in 2, and 1, nearly copied in 3. Held out: 8, a copy of 0, and 9, nearly one of 5. Two labels: 4 and 6."""
    different = [scene(i) for i in range(8)]
    different[2], different[3] = different[0], compressed(different[1])
    different[6] = different[4]
    held_out = [different[0], ImageEnhance.Brightness(different[5]).enhance(1.1), scene(90), scene(91)]
    return made([*different, *held_out], [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1], 4)


FORGET = np.array([0, 1])
SPLITS = {"retain": np.arange(2, 8), "forget": FORGET, "validation": np.array([8, 10]), "test": np.array([9, 11])}


def pairs(found: copies.Copies, relation: str) -> dict[tuple[int, int], bool]:
    """(image, copy) -> whether it is an exact one."""
    return {(pair.image, pair.copy): pair.distance is None for pair in found.pairs if pair.relation == relation}


def test_what_is_found(images: Images) -> None:
    found = copies.find(images, SPLITS, near=True)
    assert pairs(found, FORGOTTEN) == {(0, 2): True, (1, 3): False}
    assert pairs(found, HELD_OUT) == {(8, 0): True, (8, 2): True, (9, 5): False}
    assert pairs(found, TWO_LABELS) == {(4, 6): True}
    assert found.counts() == {
        FORGOTTEN: {"exact": 1, "near": 1},
        HELD_OUT: {"exact": 1, "near": 1},
        TWO_LABELS: {"exact": 1},
    }
    assert all(0 <= pair.distance <= copies.NEAR for pair in found.pairs if pair.distance is not None)


def test_small_images_have_exact_copies_only(images: Images) -> None:
    small = replace(images, pixels=np.ascontiguousarray(images.pixels[:, :, ::2, ::2]))
    found = copies.find(small, SPLITS, near=True)
    assert not found.near
    assert all(pair.distance is None for pair in found.pairs)
    assert copies.find(images, SPLITS, near=False).pairs == tuple(
        p for p in copies.find(images, SPLITS, near=True).pairs if p.distance is None
    )


def test_pairs_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several parts, too."""
    import imagehash

    images = made([scene(i % 7, 40) if i % 3 else compressed(scene(i % 7, 40)) for i in range(40)], [i % 2 for i in range(40)], 10)
    split = splits.draw(images, DeletionRequest(count=12), 0)
    hashes = [imagehash.phash(Image.fromarray(p.transpose(1, 2, 0))) for p in images.pixels]
    expected = {
        (int(i), int(j)): bool((images.pixels[i] == images.pixels[j]).all())
        for i in split["forget"]
        for j in split["retain"]
        if hashes[i] - hashes[j] <= copies.NEAR
    }
    assert expected
    for pairs_at_once in (2**24, 50):
        monkeypatch.setattr(copies, "AT_ONCE", pairs_at_once)
        assert pairs(copies.find(images, split, near=True), FORGOTTEN) == expected


def test_copies_are_forgotten_on_request(images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact ones alone: another image may have a similar hash."""
    (tmp_path / "list.txt").write_text("train/0\ntrain/1\n")
    request = DeletionRequest(ids=tmp_path / "list.txt")
    assert splits.draw(images, request, 1)["forget"].tolist() == [0, 1]
    drawn = splits.draw(images, replace(request, copies="include"), 1)
    assert (drawn["forget"].tolist(), drawn["retain"].tolist()) == ([0, 1, 2], [3, 4, 5, 6, 7])
    assert "1 exact copies of forgotten images are forgotten too, first train/2" in capsys.readouterr().err
    assert list(pairs(copies.find(images, drawn, near=True), FORGOTTEN)) == [(1, 3)]


def test_what_is_said() -> None:
    sizes = {"forget": 10, "validation": 3, "test": 3}
    counts = {FORGOTTEN: {"exact": 10, "near": 0}, HELD_OUT: {"exact": 0, "near": 1}, TWO_LABELS: {"exact": 1}}
    assert sentences(counts, sizes) == [
        "10 of 10 forgotten images have an exact copy in retain, so the model still learns what they show",
        "1 of 6 held-out images have a near copy among the train images, so measures take images that were trained on for unseen",
        "1 picture has an exact copy with another label",
    ]
    assert sentences({}, sizes) == []


def test_near_copies_are_forgotten_too_on_request(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    request = DeletionRequest(classes=("a",), copies="include_near")
    forgotten = np.array([0, 1])
    assert copies.near_in(images, forgotten, np.arange(2, 8)).tolist() == [2, 3]
    assert copies.near_in(images, forgotten[:1], np.arange(2, 8)).tolist() == [2]
    relabelled = replace(images, labels=np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1]))
    drawn = splits.draw(relabelled, request, 1)
    assert drawn["forget"].tolist() == [0, 1, 2, 3] and drawn["retain"].tolist() == [4, 5, 6, 7]
    assert "include_near: 1 exact and 1 near copies of forgotten images are forgotten too, first train/2" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"data\.forget\.copies is include_near; .* takes report or include"):
        splits.draw(relabelled, replace(request, tells_near=False), 1)
