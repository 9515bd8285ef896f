"""Sources and splits: what is read, in which order, what is refused, and that the report's draw is the report's."""

import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from lethe._util.errors import RunFailed, UserError
from lethe.data import deletion_request, sources, splits
from lethe.data.digits import bundled
from lethe.data.images import Images, load_images, save_images
from lethe.data.request import DeletionRequest
from lethe.data.splits import SPLITS


def fake(train: int, held_out: int, classes: int = 10) -> Images:
    n = train + held_out
    ids = [f"train/{i}" for i in range(train)] + [f"test/{i}" for i in range(held_out)]
    pixels = np.arange(n * 3, dtype=np.uint8).reshape(n, 3, 1, 1)
    return Images(pixels, np.arange(n) % classes, tuple(ids), tuple(f"c{i}" for i in range(classes)), held_out)


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train/{cat,dog} with 3 images each, test/{cat,dog} with 2 each, all PNG of 32x32."""
    root = tmp_path / "own"
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(100 * label + 10 * count + i).save(folder / f"{i}.png")
    return root


def folder(root: Path, image_size: int = 32, limit: int | None = None) -> Images:
    return sources.read("image_folder", root=root, image_size=image_size, limit=limit, cache=root / "never")


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"" for p in sorted(path.rglob("*"))}


def refuses(call: Callable[[], object], *words: object) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


# --- a folder of images ---------------------------------------------------------------------------------------------


def test_a_folder_is_read_class_by_class_and_by_name(root: Path) -> None:
    images = folder(root)
    assert images.classes == ("cat", "dog")
    assert images.ids[:4] == ("train/cat/0.png", "train/cat/1.png", "train/cat/2.png", "train/dog/0.png")
    assert images.ids[6:] == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert (images.held_out, images.train) == (4, 6)
    assert images.pixels.dtype == np.uint8
    assert images.labels.dtype == np.int64
    for pixels, id_ in zip(images.pixels, images.ids, strict=True):
        assert (pixels.transpose(1, 2, 0) == np.asarray(Image.open(root / id_))).all()


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    """More than one chunk of the pool: each image carries its own number in its pixels."""
    for part, count in (("train", 700), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (2, 2), (i % 256, i // 256, 0)).save(tmp_path / part / name / f"{i:05d}.bmp")
    images = folder(tmp_path, image_size=2)
    numbers = images.pixels[:, 0, 0, 0] + 256 * images.pixels[:, 1, 0, 0].astype(int)
    assert numbers.tolist() == [int(id_[-9:-4]) for id_ in images.ids]


GREY16 = (np.arange(32 * 32).reshape(32, 32) * 64).astype(np.uint16)
GREY8 = np.repeat((GREY16 >> 8).astype(np.uint8)[..., None], 3, axis=2)
RGB = np.asarray(picture(1))
PALETTE = picture(1).quantize(16)
FORMATS: dict[str, tuple[str, Image.Image, dict[str, Any], np.ndarray[Any, Any]]] = {
    "RGB": ("png", picture(1), {}, RGB),
    "bmp": ("bmp", picture(1), {}, RGB),
    "tiff": ("tif", picture(1), {}, RGB),
    "webp": ("webp", picture(1), {"lossless": True}, RGB),
    "grey": ("png", Image.fromarray(GREY8[..., 0]), {}, GREY8),
    "alpha": ("png", picture(1).convert("RGBA"), {}, RGB),
    "bilevel": ("png", picture(1).convert("1"), {}, np.asarray(picture(1).convert("1").convert("RGB"))),
    "palette": ("png", PALETTE, {}, np.asarray(PALETTE.convert("RGB"))),
    "transparent palette": ("png", PALETTE, {"transparency": bytes(range(16))}, np.asarray(PALETTE.convert("RGB"))),
    "gif": ("gif", PALETTE, {}, np.asarray(PALETTE.convert("RGB"))),
    "16-bit png": ("png", Image.fromarray(GREY16), {}, GREY8),
    "16-bit pgm": ("pgm", Image.fromarray(GREY16), {}, GREY8),
    "16-bit tiff": ("tif", Image.fromarray(GREY16), {}, GREY8),
}


@pytest.mark.parametrize("name", FORMATS)
def test_any_format_becomes_rgb_without_a_warning(root: Path, name: str) -> None:
    ending, image, options, expected = FORMATS[name]
    (root / "train/cat/1.png").unlink()
    image.save(root / f"train/cat/1.{ending}", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = folder(root)
    assert (images.pixels[1].transpose(1, 2, 0) == expected).all()


def test_only_other_sizes_are_resized(root: Path) -> None:
    wide = picture(5, (50, 20))
    wide.save(root / "train/cat/1.png")
    images = folder(root)
    assert (images.pixels[1].transpose(1, 2, 0) == np.asarray(wide.resize((32, 32), Image.Resampling.BILINEAR))).all()
    assert (images.pixels[0].transpose(1, 2, 0) == np.asarray(Image.open(root / "train/cat/0.png"))).all()
    assert folder(root, image_size=48).pixels.shape == (10, 3, 48, 48)


def test_jpeg_is_what_pil_decodes(root: Path) -> None:
    picture(3).save(root / "train/cat/1.jpg", quality=75)
    images = folder(root)
    i = images.ids.index("train/cat/1.jpg")
    assert (images.pixels[i].transpose(1, 2, 0) == np.asarray(Image.open(root / "train/cat/1.jpg"))).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95])
def test_a_truncated_image_is_named(root: Path, ending: str, share: float) -> None:
    whole = root / f"train/dog/x.{ending}"
    picture(3).save(whole)
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    before = tree(root)
    assert refuses(lambda: folder(root), "can't be read as an image").startswith(str(whole))
    assert tree(root) == before


def test_pixels_of_unknown_range_are_refused(root: Path) -> None:
    Image.fromarray(np.ones((32, 32), np.float32)).save(root / "train/cat/f.tif")
    refuses(lambda: folder(root), root / "train/cat/f.tif", "floating-point")
    Image.fromarray(np.full((32, 32), 1 << 20, np.int32)).save(root / "train/cat/f.tif")
    refuses(lambda: folder(root), root / "train/cat/f.tif", "16 bits")


def test_junk_is_passed_over_and_nothing_else(root: Path) -> None:
    clean = folder(root).train_hash()
    for junk in (".DS_Store", "train/.hidden", "train/cat/.DS_Store", "train/cat/._0.png", "test/dog/Thumbs.db"):
        (root / junk).write_bytes(b"junk")
    (root / "README.md").write_text("a file beside train and test is nobody's business")
    assert folder(root).train_hash() == clean
    (root / "train/cat/notes.txt").write_text("a note")
    refuses(lambda: folder(root), root / "train/cat/notes.txt")
    (root / "train/cat/notes.txt").unlink()
    (root / "train/labels.csv").write_text("id")
    refuses(lambda: folder(root), root / "train/labels.csv", "is not a class folder")


def test_a_pipe_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "train/cat/pipe.png")
    refuses(lambda: folder(root), root / "train/cat/pipe.png")


def test_symlinks_may_stay_within_the_root(root: Path, tmp_path: Path) -> None:
    (root / "store").mkdir()
    (root / "train/cat/1.png").rename(root / "store/1.png")
    (root / "train/cat/1.png").symlink_to("../../store/1.png")
    (root / "train/dog").rename(root / "store/dog")
    (root / "train/dog").symlink_to(root / "store/dog")
    (tmp_path / "link").symlink_to(root)
    assert folder(tmp_path / "link").ids[:4] == (
        "train/cat/0.png",
        "train/cat/1.png",
        "train/cat/2.png",
        "train/dog/0.png",
    )


@pytest.mark.parametrize("what", ["train", "train/dog", "test/cat", "train/dog/2.png", "test/cat/0.png"])
def test_symlinks_may_not_lead_out_of_the_root(root: Path, tmp_path: Path, what: str) -> None:
    (root / what).rename(tmp_path / "outside")
    (root / what).symlink_to(tmp_path / "outside")
    before = tree(root)
    words = (root / what, "symlink that leads out of data.root", tmp_path / "outside")
    refuses(lambda: folder(root), *words)
    refuses(lambda: sources.listing("image_folder", root=root, image_size=32, limit=None), *words)
    assert tree(root) == before


def test_symlinks_may_lead_into_the_dvc_cache_of_the_repository(root: Path, tmp_path: Path) -> None:
    """As `dvc checkout` leaves a folder with cache.type symlink; into other caches, and as folders, they may not."""
    before = folder(root)
    cache = tmp_path / ".dvc/cache/files/md5/ab"
    cache.mkdir(parents=True)
    images = sorted(path for path in root.rglob("*.png"))
    for number, path in enumerate(images):
        path.rename(cache / f"{number:030}")
        path.symlink_to(cache / f"{number:030}")
    after = folder(root)
    assert after.ids == before.ids and np.array_equal(after.pixels, before.pixels)
    (root / "images.csv").write_text(
        "path,label,split\n" + "".join(f"{id_},{id_.split('/')[1]},{id_.split('/')[0]}\n" for id_ in before.ids)
    )
    table = sources.read("csv", root=root / "images.csv", image_size=32, limit=None, cache=tmp_path)
    assert table.ids == before.ids
    (root / "images.csv").unlink()
    other = tmp_path / "other/.dvc/cache"
    other.mkdir(parents=True)
    images[0].unlink()
    images[0].symlink_to((cache / f"{0:030}").rename(other / "x"))
    refuses(lambda: folder(root), images[0], "leads out of data.root")
    images[0].unlink()
    (root / "train/eel").symlink_to(cache)
    refuses(lambda: folder(root), root / "train/eel", "leads out of data.root")


def test_symlinks_that_lead_nowhere_are_named(root: Path) -> None:
    for target in ("gone.png", "loop.png"):
        (root / "train/cat/loop.png").symlink_to(target)
        refuses(lambda: folder(root), root / "train/cat/loop.png", "leads nowhere", target)
        (root / "train/cat/loop.png").unlink()


def test_keys_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def call(source: str, root: Path | None = None, image_size: int = 32, limit: int | None = None) -> None:
        sources.read(source, root=root, image_size=image_size, limit=limit, cache=tmp_path / "cache")

    refuses(lambda: call("mnist"), "data.source is mnist", "cifar10, image_folder, digits")
    refuses(lambda: call("image_folder"), "data.root is not set")
    refuses(lambda: call("digits", image_size=28), "data.image_size is 28", "takes 32")
    refuses(lambda: call("cifar10", image_size=224), "data.image_size is 224", "takes 32")
    refuses(lambda: call("image_folder", root=tmp_path, image_size=0), "data.image_size is 0")
    refuses(lambda: call("digits", limit=0), "data.limit is 0")
    assert not list(tmp_path.iterdir())


def test_limit_keeps_the_first_train_images_of_each_class(root: Path) -> None:
    images = folder(root, limit=2)
    assert images.ids[:4] == ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "train/dog/1.png")
    assert images.ids[4:] == folder(root).ids[6:]
    assert images.held_out == 4


def test_classes_are_counted_without_opening_an_image(root: Path) -> None:
    def counts(source: str, root: Path | None, limit: int | None = None) -> dict[str, int]:
        return sources.class_counts(source, root=root, image_size=32, limit=limit, cache=Path("never"))

    (root / "train/dog/3.png").write_text("no image")
    assert list(counts("image_folder", root).items()) == [("cat", 3), ("dog", 4)]
    assert counts("image_folder", root, 2) == {"cat": 2, "dog": 2}
    refuses(lambda: counts("image_folder", None), "data.root is not set")
    images = sources.read("digits", root=None, image_size=32, limit=None, cache=Path("never"))
    assert list(counts("digits", None).values()) == np.bincount(images.labels[: images.train]).tolist()
    assert tuple(counts("digits", None)) == images.classes
    assert counts("cifar10", None) == dict.fromkeys(counts("cifar10", None), 5000)
    assert counts("cifar10", None, 7)["cat"] == 7


def test_listing_changes_with_what_would_be_read(root: Path) -> None:
    def listing(image_size: int = 32, limit: int | None = None) -> str:
        return sources.listing("image_folder", root=root, image_size=image_size, limit=limit)

    first = listing()
    assert listing() == first
    assert len({first, listing(image_size=16), listing(limit=2), listing(limit=1)}) == 4
    limited = listing(limit=2)
    os.utime(root / "train/cat/2.png", ns=(0, 0))
    assert listing() != first
    assert listing(limit=2) == limited
    second = listing()
    (root / "train/cat/2.png").write_bytes(b"other")
    os.utime(root / "train/cat/2.png", ns=(0, 0))
    assert listing() not in (first, second)
    for source in ("digits", "cifar10"):
        one, two = (sources.listing(source, root=None, image_size=32, limit=limit) for limit in (None, 5))
        assert one != two


def test_reading_says_one_line_when_piped_and_shows_a_bar_on_a_terminal(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    folder(root)
    piped = capfd.readouterr()
    assert piped.out == ""
    assert piped.err.startswith(f"read 10 images from {root} in ")
    assert piped.err.count("\n") == 1
    monkeypatch.setenv("FORCE_COLOR", "1")
    folder(root)
    terminal = capfd.readouterr()
    assert terminal.out == ""
    assert "reading images" in terminal.err
    assert "10/10" in terminal.err


# --- digits and CIFAR-10 --------------------------------------------------------------------------------------------


def digits(limit: int | None = None) -> Images:
    return sources.read("digits", root=None, image_size=32, limit=limit, cache=Path("never"))


def test_digits() -> None:
    from sklearn.datasets import load_digits

    images = digits()
    assert images.pixels.shape == (1797, 3, 32, 32)
    assert images.pixels.dtype == np.uint8
    assert (images.train, images.held_out, images.classes) == (1297, 500, tuple("0123456789"))
    assert (images.pixels[:, 0] == images.pixels[:, 1]).all()
    assert (images.pixels[:, 0] == images.pixels[:, 2]).all()
    assert (images.pixels.min(), images.pixels.max()) == (0, 255)
    assert images.ids[12] == "train/12"
    assert images.ids[1297 + 7] == "test/7"
    drawings, labels = bundled()
    assert np.array_equal(drawings, load_digits().images) and np.array_equal(labels, load_digits().target)
    assert sorted(images.labels) == sorted(labels)
    for part in (images.labels[:1297], images.labels[1297:]):  # every class about as often in both parts
        assert (abs(np.bincount(part, minlength=10) / len(part) - 0.1) < 0.03).all()
    assert images.labels[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]  # the division is the same everywhere
    assert digits().train_hash() == images.train_hash()


def test_limited_digits_keep_their_ids_and_their_held_out_part() -> None:
    images, all_ = digits(limit=3), digits()
    assert (np.bincount(images.labels[: images.train]) == 3).all()
    assert images.held_out == 500
    assert images.ids[-500:] == all_.ids[-500:]
    chosen = [all_.ids.index(id_) for id_ in images.ids]
    assert chosen == sorted(chosen)
    assert (all_.pixels[chosen] == images.pixels).all()
    assert (all_.labels[chosen] == images.labels).all()
    assert (digits(limit=10_000).pixels == all_.pixels).all()


@cache  # an archive has the second in which it was made
def small_cifar10() -> tuple[bytes, dict[str, bytes]]:
    """An archive of CIFAR-10's form with 4 images a batch, and its files."""
    rng = np.random.default_rng(0)
    files = {
        name: pickle.dumps({"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [3, 1, 0, 2]})
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }
    files["batches.meta"] = pickle.dumps({"label_names": ["airplane", "automobile", "bird", "cat"]})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue(), files


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """CIFAR-10 from a server on this machine. The list is what it sends, one item a request; the length it announces is
    always that of the true archive. Empty: 404."""
    from torchvision.datasets import CIFAR10

    archive, files = small_cifar10()
    answers: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.pop(0) if answers else None  # before the client hears anything: it may ask again at once
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    def md5(content: bytes) -> str:
        return hashlib.md5(content).hexdigest()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{serving.server_address[1]}/cifar-10-python.tar.gz")
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
        monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", md5(files[f"data_batch_{i}"])] for i in range(1, 6)])
        monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
        yield answers
        serving.shutdown()


def test_cifar10_is_taken_whole_or_not_at_all(server: list[bytes], tmp_path: Path) -> None:
    archive, files = small_cifar10()

    def call(limit: int | None = None) -> Images:
        return sources.read("cifar10", root=None, image_size=32, limit=limit, cache=tmp_path / "cache")

    for answer, words in (([], "404"), ([archive[:500]], "checksum"), ([b"x" * len(archive)], "checksum")):
        server[:] = answer
        refuses(call, "data.source is cifar10 and it can't be downloaded", words)
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    server[:] = [archive]
    images = call()
    assert (images.train, images.held_out, images.classes) == (20, 4, ("airplane", "automobile", "bird", "cat"))
    assert images.ids[19:21] == ("train/19", "test/0")
    assert images.labels[:4].tolist() == [3, 1, 0, 2]
    second = pickle.loads(files["data_batch_2"])["data"].reshape(4, 3, 32, 32)
    assert (images.pixels[4:8] == second).all()
    assert images.pixels.flags.c_contiguous
    assert call().train_hash() == images.train_hash()  # no request is left to answer: it comes from the disk
    assert call(limit=1).ids[:5] == ("train/0", "train/1", "train/2", "train/3", "test/0")

    batch = tmp_path / "cache/cifar-10-batches-py/data_batch_3"
    batch.write_bytes(batch.read_bytes()[:100])  # stopped while unpacking
    assert call().train_hash() == images.train_hash()
    batch.unlink()
    (tmp_path / "cache/cifar-10-python.tar.gz").unlink()
    refuses(call, "can't be downloaded")
    server[:] = [archive]
    assert call().train_hash() == images.train_hash()


# --- the file of images ---------------------------------------------------------------------------------------------


def test_images_come_back_as_they_were_saved(root: Path, tmp_path: Path) -> None:
    images = folder(root)
    save_images(images, tmp_path / "a/images.safetensors", "a listing")
    back, listing = load_images(tmp_path / "a/images.safetensors")
    assert listing == "a listing"
    assert (back.ids, back.classes, back.held_out) == (images.ids, images.classes, images.held_out)
    assert (back.pixels == images.pixels).all()
    assert (back.labels == images.labels).all()
    assert back.pixels.dtype == np.uint8
    assert back.labels.dtype == np.int64
    assert back.train_hash() == images.train_hash()
    strided = Images(images.pixels[:, ::-1], images.labels, images.ids, images.classes, images.held_out)
    save_images(strided, tmp_path / "b.safetensors", "")
    assert (load_images(tmp_path / "b.safetensors")[0].pixels == strided.pixels).all()


def test_a_foreign_or_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.safetensors"
    refuses(lambda: load_images(path), path, "does not exist")
    save_images(fake(20, 4), path, "listing")
    content = path.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refuses(lambda: load_images(path), path)
    path.write_text("id\ntrain/1\n")
    refuses(lambda: load_images(path), path)
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, path)
    refuses(lambda: load_images(path), path)
    ids = json.dumps({"ids": ["train/0"], "classes": ["a", "b"], "held_out": 0, "listing": ""})
    save_file({"pixels": np.ones((2, 3, 1, 1), np.uint8), "labels": np.zeros(2, np.int64)}, path, {"images": ids})
    refuses(lambda: load_images(path), path, "1 ids")
    refuses(lambda: load_images(tmp_path), tmp_path)


def test_a_full_disk_names_the_file_and_leaves_none(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the next file may hold 4 KiB
    try:
        with pytest.raises(RunFailed, match=r"images\.safetensors could not be written"):
            save_images(fake(5000, 100), tmp_path / "images.safetensors", "listing")
        images = fake(5000, 100)
        with pytest.raises(RunFailed, match=r"\.csv could not be written"):
            splits.write(splits.draw(images, DeletionRequest(count=2400), 0), images, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_train_hash_is_over_what_an_original_was_trained_on() -> None:
    images = fake(20, 4)
    first = images.train_hash()

    def other(**change: Any) -> str:
        return Images(**{**vars(images), **change}).train_hash()

    train_pixel, held_pixel = images.pixels.copy(), images.pixels.copy()
    train_pixel[19, 0, 0, 0] += 1
    held_pixel[20, 0, 0, 0] += 1
    label = images.labels.copy()
    label[0] += 1
    changed = {
        other(pixels=train_pixel),
        other(labels=label),
        other(ids=("train/x", *images.ids[1:])),
        other(ids=(*images.ids[:-1], "test/x")),
        other(classes=("x", *images.classes[1:])),
        other(held_out=5),
    }
    assert len(changed) == 6
    assert first not in changed
    assert other(pixels=held_pixel) == first


# --- splits: draws --------------------------------------------------------------------------------------------------


def test_the_reports_draw() -> None:
    images = fake(50_000, 10_000)
    drawn = splits.draw(images, DeletionRequest(fraction=0.1), seed=42)
    within = {s: drawn[s] - (images.train if s in ("validation", "test") else 0) for s in SPLITS}
    assert {s: len(i) for s, i in within.items()} == {
        "retain": 45_000,
        "forget": 5_000,
        "validation": 5_000,
        "test": 5_000,
    }
    assert within["validation"][:5].tolist() == [7542, 8214, 3698, 2841, 8086]
    assert within["test"][:3].tolist() == [6706, 5069, 5862]
    assert within["retain"][:3].tolist() == [5940, 35512, 33717]
    assert within["forget"][:3].tolist() == [11492, 29443, 25305]
    assert [within[s].sum() for s in ("validation", "test", "retain", "forget")] == [
        24997005, 24997995, 1125419215, 124555785,
    ]  # fmt: skip
    assert images.ids[drawn["test"][0]] == "test/6706"
    assert all(i.dtype == np.int64 for i in drawn.values())
    by_count = splits.draw(images, DeletionRequest(count=5000), seed=42)
    assert all((by_count[s] == drawn[s]).all() for s in SPLITS)
    assert (splits.draw(images, DeletionRequest(fraction=0.1), seed=43)["forget"] != drawn["forget"]).any()


def test_a_draw_is_two_random_splits_of_one_generator() -> None:
    import torch
    from torch.utils.data import random_split

    images = fake(103, 11)
    drawn = splits.draw(images, DeletionRequest(count=20), seed=7)
    generator = torch.Generator().manual_seed(7)
    held_out: Any = range(103, 114)
    train: Any = range(103)
    validation, test = random_split(held_out, [6, 5], generator)  # the odd one goes to validation
    retain, forget = random_split(train, [83, 20], generator)
    for split, part in zip(SPLITS, (retain, forget, validation, test), strict=True):
        assert drawn[split].tolist() == [part[i] for i in range(len(part))]


def check(images: Images, drawn: splits.Splits) -> None:
    assert set(drawn) == set(SPLITS)
    assert sorted(np.concatenate([drawn["retain"], drawn["forget"]])) == list(range(images.train))
    assert sorted(np.concatenate([drawn["validation"], drawn["test"]])) == list(range(images.train, len(images.ids)))
    assert len(drawn["retain"])
    assert len(drawn["forget"])
    assert len(drawn["validation"]) - len(drawn["test"]) in (0, 1)


@given(train=st.integers(3, 80), held_out=st.integers(0, 20), seed=st.integers(0, 2**32), data=st.data())
def test_any_draw_divides_all_images(train: int, held_out: int, seed: int, data: st.DataObject) -> None:
    images = fake(train, held_out, classes=3)
    count = data.draw(st.integers(1, train - 1))
    names = data.draw(st.lists(st.sampled_from(images.classes), min_size=1, max_size=2))
    for request in (DeletionRequest(count=count), DeletionRequest(fraction=count / train), DeletionRequest(classes=tuple(names))):
        drawn = splits.draw(images, request, seed)
        check(images, drawn)
        if request.classes is None:
            assert len(drawn["forget"]) == count
        else:
            assert {images.classes[images.labels[i]] for i in drawn["forget"]} == set(names)
            assert drawn["retain"].tolist() == sorted(drawn["retain"])
        with tempfile.TemporaryDirectory() as temporary:
            splits.write(drawn, images, Path(temporary))
            back = splits.read(Path(temporary), images)
            assert splits.stored_split_hash(Path(temporary)) == splits.split_hash(drawn, images)
        assert all((back[s] == drawn[s]).all() and back[s].dtype == np.int64 for s in SPLITS)
        shuffled = {s: np.random.default_rng(seed).permutation(drawn[s]) for s in reversed(SPLITS)}
        assert splits.split_hash(shuffled, images) == splits.split_hash(drawn, images)
        assert splits.retain_hash(shuffled, images) == splits.retain_hash(drawn, images)


def test_hashes_tell_divisions_apart() -> None:
    images = fake(20, 6)
    one = splits.draw(images, DeletionRequest(count=5), 0)
    swapped = {**one, "validation": one["test"], "test": one["validation"]}
    moved = {**one, "retain": one["retain"][:-1], "forget": np.append(one["forget"], one["retain"][-1])}
    assert len({splits.split_hash(s, images) for s in (one, swapped, moved)}) == 3
    assert splits.retain_hash(one, images) == splits.retain_hash(swapped, images) != splits.retain_hash(moved, images)


def test_validation_and_test_do_not_depend_on_the_request(tmp_path: Path) -> None:
    images = fake(30, 11)
    (tmp_path / "ids.txt").write_text("train/3\n")
    asked: list[dict[str, Any]] = [{"fraction": 0.5}, {"count": 2}, {"classes": ("c1",)}, {"ids": tmp_path / "ids.txt"}]
    requests = [DeletionRequest(**one) for one in asked]
    drawn = [splits.draw(images, request, 5) for request in requests]
    for split in ("validation", "test"):
        assert len({tuple(d[split]) for d in drawn}) == 1


# --- splits: requests -----------------------------------------------------------------------------------------------

DELETION_LISTS = {
    "text": "train/3\ntrain/1\ntrain/12\n",
    "text with gaps": "\n  train/3\r\n\r\ntrain/1 \r\ntrain/12",
    "csv": "id\ntrain/3\ntrain/1\ntrain/12\n",
    "csv with columns": 'name,id,when\n"Doe, J",train/3,2026\n,train/1,\nx,train/12,2025\n\n',
    "spreadsheet": "\ufeffID;name\r\ntrain/3;a,b\r\ntrain/1;c\r\ntrain/12;d\r\n",
    "tabs": "name\tid\nx\ttrain/3\ny\ttrain/1\nz\ttrain/12\n",
    "quoted": '"id"\n"train/3"\n"train/1"\n"train/12"\n',
}


@pytest.mark.parametrize("name", DELETION_LISTS)
def test_a_deletion_list_in_any_usual_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / "request"
    path.write_bytes(DELETION_LISTS[name].encode())
    images = fake(15, 4)
    drawn = splits.draw(images, DeletionRequest(ids=path), 0)
    check(images, drawn)
    assert drawn["forget"].tolist() == [1, 3, 12]
    assert deletion_request.count_ids(DeletionRequest(ids=path)) == 3


def test_an_own_forget_list_is_a_deletion_list(tmp_path: Path) -> None:
    images = fake(15, 4)
    drawn = splits.draw(images, DeletionRequest(count=4), 0)
    splits.write(drawn, images, tmp_path)
    again = splits.draw(images, DeletionRequest(ids=tmp_path / "forget.csv"), 0)
    assert splits.split_hash(again, images) == splits.split_hash(drawn, images)


BAD_LISTS = {
    "train/3\ntrain/99\ntrain/98\n": ("2 of 3 ids unknown", "train/99", "line 2", "nearest: train/9", "; train/98, line 3"),
    "".join(f"none/{i}\n" for i in range(9)): ("9 of 9 ids unknown, first none/0", "; none/4, line 5", "; and 4 more"),
    "id,name\ntrain/3,x\n0123.jpg,y\n": ("1 of 2 ids unknown", "0123.jpg", "line 3", "look like train/0"),
    "id\ntrain/3\ntest/2\n": ("1 of 2 ids are of held-out images", "test/2", "line 3"),
    "": ("no ids in it",),
    "\n \n": ("no ids in it",),
    "id\n": ("no ids in it",),
    "id,name\n,x\n": ("line 2 has no id",),
    "name\ntrain/3\n": ("name", "line 1"),
    "".join(f"train/{i}\n" for i in range(15)): ("all 15 train images",),
}


@pytest.mark.parametrize("content", BAD_LISTS)
def test_a_deletion_list_that_does_not_fit_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "request.csv"
    path.write_text(content)
    message = refuses(lambda: splits.draw(fake(15, 4), DeletionRequest(ids=path), 0), *BAD_LISTS[content])
    assert message.startswith(f"data.forget.ids is {path}")


def test_a_deletion_list_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    def call(path: Path) -> str:
        return refuses(lambda: splits.draw(fake(15, 4), DeletionRequest(ids=path), 0), f"data.forget.ids is {path}")

    assert "no such file" in call(tmp_path / "gone.csv")
    call(tmp_path)
    (tmp_path / "utf16.csv").write_text("id\ntrain/3\n", encoding="utf-16-le")
    assert "not text in UTF-8, UTF-16 or Windows-1252: it has zero bytes" in call(tmp_path / "utf16.csv")
    (tmp_path / "bytes.csv").write_bytes(b"id\ntrain/\x81\n")
    assert "not text in UTF-8, UTF-16 or Windows-1252" in call(tmp_path / "bytes.csv")
    (tmp_path / "list.xlsx").write_bytes(b"PK\x03\x04")
    assert "an Excel workbook or a zip file; save it as CSV" in call(tmp_path / "list.xlsx")


BAD_REQUESTS: list[tuple[DeletionRequest, tuple[str, ...]]] = [
    (DeletionRequest(), ("data.forget names nothing", "exactly one")),
    (DeletionRequest(fraction=0.1, count=3), ("data.forget names fraction and count",)),
    *[(DeletionRequest(fraction=f), ("data.forget.fraction is", str(f))) for f in (0.0, 1.0, -0.1, 1.5, float("nan"))],
    (DeletionRequest(fraction=0.001), ("data.forget.fraction is 0.001 (none of 15 train images)",)),
    (DeletionRequest(fraction=0.999), ("data.forget.fraction is 0.999 (all of 15 train images)",)),
    *[(DeletionRequest(count=c), (f"data.forget.count is {c}", "1 to 14")) for c in (0, -1, 15, 16)],
    (DeletionRequest(classes=()), ("data.forget.classes is empty", "c0, c1, c2")),
    (DeletionRequest(classes=("c1", "cc2")), ("data.forget.classes names cc2", "nearest: c2", "c0, c1, c2")),
    (DeletionRequest(classes=("c0", "c1", "c2")), ("data.forget.classes is c0,c1,c2", "all 15 train images")),
]


@pytest.mark.parametrize(("request_", "words"), BAD_REQUESTS, ids=[str(r) for r, _ in BAD_REQUESTS])
def test_a_request_that_does_not_fit_is_refused(request_: DeletionRequest, words: tuple[str, ...]) -> None:
    assert refuses(lambda: splits.draw(fake(15, 4, classes=3), request_, 0), *words).startswith("data.forget")


def test_a_thousand_classes_are_not_all_listed() -> None:
    message = refuses(lambda: splits.draw(fake(2000, 4, 1000), DeletionRequest(classes=("x",)), 0), "(1000 in all)")
    assert len(message) < 300


# --- splits: the four files -----------------------------------------------------------------------------------------


def test_lists_can_be_read_by_a_person(tmp_path: Path) -> None:
    images = fake(4, 2)
    drawn = splits.draw(images, DeletionRequest(classes=("c1",)), 0)
    splits.write(drawn, images, tmp_path / "data/splits")
    assert (tmp_path / "data/splits/forget.csv").read_bytes() == b"id\ntrain/1\n"
    assert (tmp_path / "data/splits/retain.csv").read_bytes() == b"id\ntrain/0\ntrain/2\ntrain/3\n"
    assert sorted(p.name for p in (tmp_path / "data/splits").iterdir()) == sorted(f"{s}.csv" for s in SPLITS)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name.splitlines() == [name])


@given(names=st.lists(NAMES, min_size=4, max_size=8, unique=True))
def test_any_name_comes_back(names: list[str]) -> None:
    one = fake(len(names), 0)
    images = Images(one.pixels, one.labels, tuple(f"train/{name}" for name in names), one.classes, 0)
    drawn = splits.draw(images, DeletionRequest(count=2), 0)
    with tempfile.TemporaryDirectory() as temporary:
        splits.write(drawn, images, Path(temporary))
        back = splits.read(Path(temporary), images)
    assert all((back[s] == drawn[s]).all() for s in SPLITS)


def test_four_lists_or_none(tmp_path: Path) -> None:
    images = fake(20, 6)
    first = splits.draw(images, DeletionRequest(count=5), 0)
    incomplete = {s: first[s] for s in SPLITS[:3]}
    with pytest.raises(KeyError):
        splits.write(incomplete, images, tmp_path)
    assert not list(tmp_path.iterdir())
    splits.write(first, images, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(KeyError):
        splits.write({s: i[::-1] for s, i in incomplete.items()}, images, tmp_path)
    assert tree(tmp_path) == before


def test_lists_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    images = fake(20, 6)
    splits.write(splits.draw(images, DeletionRequest(count=5), 0), images, tmp_path)
    forget, retain = tmp_path / "forget.csv", tmp_path / "retain.csv"
    good, lines = forget.read_text(), forget.read_text().splitlines()

    def call() -> object:
        return splits.read(tmp_path, images)

    for content, words in (
        (good + "train/77\n", ("train/77", "no image of data.source")),
        (good + lines[1] + "\n", (lines[1], f"{forget} lists already")),
        (good + retain.read_text().splitlines()[1] + "\n", (f"{retain} lists already",)),
        (good + "test/1\n", ("test/1", "held-out")),
        ("\n".join(lines[1:]), ("begins with", lines[1], "header id")),
        ("", ("begins with nothing",)),
    ):
        forget.write_text(content)
        assert refuses(call, *words).startswith(str(forget))
    forget.write_text("id\n" + "\n".join(lines[2:]))
    refuses(call, tmp_path, "lacks 1 of 26 images", lines[1])
    forget.write_bytes(b"\xff\xfe")
    refuses(call, forget)
    forget.unlink()
    refuses(call, forget, "does not exist")
    forget.write_text("id,reason\n" + "".join(f"{line},asked\n" for line in lines[1:]))
    assert set(splits.read(tmp_path, images)["forget"]) == {images.ids.index(line) for line in lines[1:]}


def test_lists_of_another_draw_are_noticed(tmp_path: Path) -> None:
    """Stopped between the four renames: lists of two draws side by side never read as one division."""
    images = fake(20, 6)
    for seed, request in ((0, DeletionRequest(count=5)), (1, DeletionRequest(count=3))):
        splits.write(splits.draw(images, request, seed), images, tmp_path / str(seed))
    for split in SPLITS[:2]:
        kept = (tmp_path / "0" / f"{split}.csv").read_bytes()
        (tmp_path / "0" / f"{split}.csv").write_bytes((tmp_path / "1" / f"{split}.csv").read_bytes())
        refuses(lambda: splits.read(tmp_path / "0", images))
        (tmp_path / "0" / f"{split}.csv").write_bytes(kept)


def test_sixty_thousand_images_are_divided_at_once(tmp_path: Path) -> None:
    images = fake(50_000, 10_000)
    drawn = splits.draw(images, DeletionRequest(fraction=0.1), 42)
    started = time.perf_counter()
    splits.write(drawn, images, tmp_path)
    splits.split_hash(splits.read(tmp_path, images), images)
    assert time.perf_counter() - started < 5  # 0.3 s on two idle cores
