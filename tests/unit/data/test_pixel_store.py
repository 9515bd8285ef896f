"""Images in a mapped file: the same as in memory, and never all of them in memory."""

import copy
import gc
import json
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lethe._util import integrity
from lethe._util.errors import RunFailed
from lethe.data import pixel_store
from lethe.data.device_data import Data, RawInputs
from lethe.data.images import Images, load_images, save_images
from lethe.data.pixel_store import Pages, Pixels, Rows
from lethe.recipes.recipe import Augment
from support.sealing import written

N, SHAPE = 500, (3, 128, 128)  # 24 MB
MIB = 2**20


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Decoded into a file without a name, as a source larger than memory is."""
    pixels = pixel_store.empty((N, *SHAPE), tmp_path_factory.mktemp("scratch") / "not" / "there", most=0)
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    labels = np.arange(N, dtype=np.int64) % 10
    ids = tuple(f"{'train' if i < 400 else 'test'}/ä {i}" for i in range(N))
    return Images(pixels, labels, ids, tuple("0123456789"), 100)


@pytest.fixture(scope="module")
def path(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.safetensors"
    save_images(images, path, "listing")
    return path


def test_the_file_has_the_bytes_that_the_library_writes(tmp_path: Path) -> None:
    for n, ids in enumerate((("a", "b"), ("train/ä\n", "x" * 9), ("€", '"'))):
        pixels = np.random.default_rng(n).integers(0, 256, (2, 3, 4, 5), np.uint8)
        images = Images(pixels, np.array([0, 1]), ids, ("cat", "dog"), 1)
        save_images(images, tmp_path / "own", "listing")
        about = {"classes": images.classes, "held_out": 1, "listing": "listing", "ids": ids}
        tensors = {"pixels": pixels, "labels": images.labels}
        assert (tmp_path / "own").read_bytes() == written(save_file, tensors, tmp_path / "theirs", {"images": json.dumps(about)})
        assert integrity.check(tmp_path / "own")


def test_images_come_back_without_being_in_memory(images: Images, path: Path) -> None:
    tracemalloc.start()
    try:
        back, _ = load_images(path)
        save_images(back, path.with_name("again.safetensors"), "listing")
        hashes = back.train_hash(), back.held_out_hash()
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB, "of 24 MB of pixels"
    finally:
        tracemalloc.stop()
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()
    assert hashes == (images.train_hash(), images.held_out_hash())
    assert (back.pixels == images.pixels).all() and not back.pixels.flags.writeable


def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of one version beside pixels of another would be trained on without a word."""
    path, other = tmp_path / "images.safetensors", replace(images, pixels=255 - images.pixels, labels=images.labels[::-1].copy())
    save_images(images, path, "first")
    check = integrity.check

    def replaced(file: Path) -> bool:
        monkeypatch.setattr(integrity, "check", check)
        save_images(other, file, "second")
        return check(file)

    monkeypatch.setattr(integrity, "check", replaced)
    found, listing = load_images(path)
    assert listing == "second" and (found.labels == other.labels).all() and (found.pixels == other.pixels).all()


def data(pixels: Pixels, stored: Rows | None) -> Data:
    every = torch.arange(N)
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.2)
    return Data(pixel_store.as_tensor(pixels), every % 10, {"retain": every[:400]}, mean, std, stored=stored)


@pytest.mark.parametrize("augment", [None, Augment(4, True, None)])
def test_batches_from_the_file_are_those_from_memory(augment: Augment | None, images: Images, path: Path) -> None:
    pixels = load_images(path)[0].pixels
    stored, held = data(pixels, Rows(pixels, most=MIB)), data(images.pixels.copy(), None)
    for own, other in zip(*(each.batches("retain", 64, 0, 1, augment) for each in (stored, held)), strict=True):
        assert torch.equal(own.images_BCHW, other.images_BCHW) and torch.equal(own.labels_B, other.labels_B)


def test_a_reader_of_other_images_is_refused(images: Images) -> None:
    with pytest.raises(ValueError, match="other images"):
        data(images.pixels.copy(), Rows(images.pixels))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_a_copy_of_a_reader_has_images_of_its_own(copied: Callable[[Rows], Rows], images: Images, path: Path) -> None:
    reader = Rows(load_images(path)[0].pixels, most=0)
    rows = np.array([7, 3])
    assert reader.large and (reader[rows] == images.pixels[rows]).all()
    other = copied(reader)
    del reader
    gc.collect()  # its file is closed
    assert not other.large and (other[rows] == images.pixels[rows]).all()


def maps_of(path: Path) -> int:
    try:
        return Path("/proc/self/maps").read_text().count(str(path))
    except OSError:
        pytest.skip("the system does not say what a process maps")


def test_a_tensor_keeps_the_file_mapped_for_as_long_as_it_is_used(images: Images, path: Path) -> None:
    before = maps_of(path)
    tensor = pixel_store.as_tensor(load_images(path)[0].pixels)
    part = tensor[300:].permute(0, 2, 3, 1)
    del tensor
    gc.collect()
    assert maps_of(path) > before
    assert torch.equal(part, torch.from_numpy(images.pixels[300:]).permute(0, 2, 3, 1))
    del part
    gc.collect()
    assert maps_of(path) == before


@pytest.mark.parametrize("kind", [Data, RawInputs])
@pytest.mark.parametrize("most", [0, pixel_store.IN_MEMORY])
def test_what_is_given_out_may_be_written_to(most: int, kind: type[Data], images: Images) -> None:
    """A write to the read-only map would end the process; here the images are in memory, and must stay as they are."""
    before, every = images.pixels[:40].copy(), torch.arange(40)
    held = images.pixels[:40]
    stored = Rows(held, most) if Rows(held, most).large else None
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.2)
    own = kind(pixel_store.as_tensor(held), every % 10, {"retain": every}, mean, std, stored=stored)
    given = [own.normalised(every), own.pixels(every), own.as_inputs(own.pixels(every))]
    for augment in (None, Augment(0, False, None), Augment(4, True, None), Augment(0, True, None, 0.5)):
        given += [batch.images_BCHW for batch in own.batches("retain", 16, 0, 0, augment)]
    given += [own.augmented(every, 0, flip=False), own.augmented(every, 0, flip=True, resized=0.5)]
    for tensor in given:
        tensor.fill_(0)
    assert (held == before).all()


def resident() -> int:
    """Bytes of mapped files that this process holds."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        pytest.skip("the system does not say what a process holds")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssFile")) * 1024


def test_what_was_read_is_not_held(path: Path) -> None:
    def highest(stored: Rows | None) -> int:
        source, before = data(pixels, stored), resident()
        return max(resident() - before for _ in source.batches("retain", 32, 0, 0))

    pixels = load_images(path)[0].pixels
    assert Rows(pixels, most=MIB).large and not Rows(pixels).large
    assert highest(Rows(pixels, most=MIB)) < 6 * MIB
    assert highest(None) > 16 * MIB, "all that a pass read"
    before, pages = resident(), Pages(pixels, most=4 * MIB)
    for image in pixels:  # all pages are held here, and released
        image.sum()
        pages.touched(image.nbytes)
    assert resident() < before - 10 * MIB


def test_what_was_written_to_a_file_without_a_name_stays_when_its_pages_are_released(tmp_path: Path) -> None:
    pixels = pixel_store.empty((64, 3, 64, 64), tmp_path, most=0)
    pages = Pages(pixels, most=1)
    for number, image in enumerate(pixels):
        image[:] = number
        pages.touched(image.nbytes)
    assert [image.max() for image in pixels] == [image.min() for image in pixels] == [*range(64)]
    assert not list(tmp_path.iterdir()), "no file has a name that a stopped process could leave"


@pytest.mark.parametrize("most", [0, pixel_store.IN_MEMORY])
def test_some_images_are_copied(most: int, images: Images, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).permutation(N)[:100]
    assert (pixel_store.take(images.pixels, rows, tmp_path, most) == images.pixels[rows]).all()
    assert (Rows(images.pixels[7:], most=0)[rows[:9] % 400] == images.pixels[7 + rows[:9] % 400]).all()
    assert all((one == images.pixels[row]).all() for one, row in zip(pixel_store.some(images.pixels, rows), rows, strict=True))


def test_blocks_are_all_images_in_turn(images: Images) -> None:
    def numbers() -> Iterator[int]:
        for block in pixel_store.blocks(images.pixels, at_once=MIB):
            assert block.nbytes <= MIB
            yield from (int(image.sum()) for image in block)

    assert [*numbers()] == [int(image.sum()) for image in images.pixels]


def test_a_disk_without_room_is_said_before_anything_is_decoded(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RunFailed, match="could not be written"):
            pixel_store.empty((100, 3, 32, 32), tmp_path, most=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
