"""Images as people have them: folders in folders, no test images, X-rays, other proportions, broken files, tables and arrays."""

import gzip
import shutil
import signal
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lethe._util.errors import UserError
from lethe.data import arrays as formats
from lethe.data import decoding, sources
from lethe.data.images import Images
from lethe.data.sources import Reading


def save(path: Path, value: int = 100, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, 0, 0)).save(path)
    return path


def read(root: Path, source: str = "image_folder", size: int = 8, limit: int | None = None, **reading: Any) -> Images:
    return sources.read(source, root=root, image_size=size, limit=limit, cache=root / "never", reading=Reading(**reading))


def listing(root: Path, source: str = "image_folder", **reading: Any) -> str:
    return sources.listing(source, root=root, image_size=8, limit=None, reading=Reading(**reading))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                save(tmp_path / "own" / part / name / f"{i}.png", 20 * i)
    return tmp_path / "own"


# --- folders --------------------------------------------------------------------------------------------------------------


def test_folders_in_a_class_folder_are_read_as_torchvision_reads_them(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("user_17/1.png", "user_17/deep/2.png", "user_2/1.png", "a.d/1.png", "zz.png"):
        save(root / "train/cat" / name)
    (root / "train/cat/empty").mkdir()
    images = read(root)
    expected = [Path(path).relative_to(root).as_posix() for path, _ in ImageFolder(root / "train").samples]
    assert list(images.ids[: images.train]) == expected
    assert "train/cat/user_17/deep/2.png" in images.ids


def test_a_link_to_a_folder_above_is_not_followed_for_ever(root: Path) -> None:
    (root / "train/cat/loop").symlink_to(root / "train/cat")
    assert f"{root}/train/cat/loop is a symlink that leads to a folder above it" in refusal(lambda: read(root))


@pytest.mark.parametrize("below", ["train/", ""])
def test_a_share_is_held_out_where_there_is_no_folder_test(below: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(10):
            save(tmp_path / f"{below}{name}/{i}.png")
    images = read(tmp_path, held_out=0.2, seed=5)
    assert (images.train, images.held_out, images.classes) == (16, 4, ("cat", "dog"))
    assert np.bincount(images.labels[16:]).tolist() == [2, 2]
    assert set(images.ids) == {f"{below}{name}/{i}.png" for name in ("cat", "dog") for i in range(10)}
    assert read(tmp_path, held_out=0.2, seed=5).ids == images.ids
    assert read(tmp_path, held_out=0.2, seed=6).ids != images.ids
    limited = read(tmp_path, held_out=0.2, seed=5, limit=3)
    assert limited.ids[limited.train :] == images.ids[16:], "the same images are held out at any limit"
    assert len({listing(tmp_path, held_out=share, seed=seed) for share in (0.2, 0.3) for seed in (5, 6)}) == 4
    assert read(tmp_path, held_out=0.99).train == 2, "one of each class stays"


def test_a_missing_folder_test_names_the_key(root: Path) -> None:
    assert "data.held_out.fraction is 0.5, and" in refusal(lambda: read(root, held_out=0.5))
    (root / "test").rename(root.parent / "test")
    assert "it has no folder test" in (said := refusal(lambda: read(root)))
    assert "data.held_out.fraction 0.2" in said


def test_images_are_stretched_cropped_or_padded(root: Path) -> None:
    wide = Image.new("RGB", (16, 8), (200, 200, 200))
    wide.paste((255, 0, 0), (0, 0, 4, 8))  # the first quarter is red
    wide.save(root / "train/cat/0.png")
    squash, crop, pad = (read(root, resize=each).pixels[0] for each in ("squash", "crop", "pad"))
    assert (squash[1] == 0).any() and (squash[0, 0] > 100).all()
    assert (crop == 200).all(), "the middle"
    assert (pad[:, :2] == 0).all() and (pad[:, -2:] == 0).all() and (pad[1, 3:5, 5:] == 200).all()
    assert (squash == read(root).pixels[0]).all()
    assert len({listing(root, resize=each) for each in ("squash", "crop", "pad")}) == 3


@pytest.mark.parametrize(("bits", "brightest"), [(8, 255), (10, 1023), (12, 4095), (14, 9000), (16, 4096 * 15)])
def test_grey_is_scaled_by_the_range_that_is_used(bits: int, brightest: int, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.linspace(0, brightest, 64).round().astype(np.uint16).reshape(8, 8)
    for name in ("train/cat/0.png", "test/dog/1.png"):
        Image.fromarray(values).save(root / name)
    Image.fromarray(values // 2).save(root / "train/cat/1.png")
    images = read(root)
    for name, expected in (("train/cat/0.png", values), ("train/cat/1.png", values // 2)):
        assert (images.pixels[images.ids.index(name)] == (expected >> (bits - 8)).astype(np.uint8)).all(), "one range for all"
    said = f"16-bit grey images have values up to {brightest:,} ({bits} bits), and are scaled by that range"
    assert (said in capsys.readouterr().err) == (bits < 16)


def test_all_broken_files_are_named_or_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "test/dog/0.png"):
        (root / name).write_bytes(b"")
    said = refusal(lambda: read(root))
    assert said.startswith(f"{root}/train/cat/1.png can't be read as an image (")
    assert said.endswith("nor can 2 more files: train/dog/2.png, test/dog/0.png; repair or remove them, or give data.skip_unreadable true")
    images = read(root, skip_unreadable=True)
    assert (images.train, images.held_out) == (4, 3)
    assert images.ids[:4] == ("train/cat/0.png", "train/cat/2.png", "train/dog/0.png", "train/dog/1.png")
    assert images.pixels[1, 0, 0, 0] == 40
    err = capsys.readouterr().err
    assert "data.skip_unreadable: 3 of 10 files can't be read as images and are left out: train/cat/1.png, " in err
    for i in range(3):
        (root / f"train/cat/{i}.png").write_bytes(b"")
    assert "no image of train/cat can be read" in refusal(lambda: read(root, skip_unreadable=True))


def of_scans(path: Path, number: int) -> None:
    """A progressive JPEG whose last scan stands there `number` times: 14 bytes for each pass over all pixels."""
    Image.new("L", (200, 200), 128).save(path, "JPEG", progressive=True)
    raw = path.read_bytes()
    last = raw[raw.rindex(b"\xff\xda") : -2]
    path.write_bytes(raw[: -2 - len(last)] + number * last + raw[-2:])


def test_an_image_that_takes_long_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "train/cat/1.jpg"
    of_scans(path, 3)
    assert len(read(root).ids) == 11
    of_scans(path, 400_000)
    assert f"{path} can't be read as an image (a progressive JPEG of 400,005 scans, more than 500)" in refusal(lambda: read(root))
    monkeypatch.setattr(decoding, "MOST_SCANS", 10**9)
    monkeypatch.setattr(decoding, "LONGEST", 0.5)
    handler = signal.getsignal(signal.SIGVTALRM)
    assert f"{path} can't be read as an image (it takes more than 0.5 seconds of processor time" in refusal(lambda: read(root))
    assert len(read(root, skip_unreadable=True).ids) == 10
    assert signal.getsignal(signal.SIGVTALRM) == handler and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_timer_and_a_handler_of_the_caller_go_on(root: Path) -> None:
    before = signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 5000, 7000)
        read(root)
        left, interval = signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        assert left > 0 and interval == 7000
        assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_IGN
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_formats_that_run_programs_are_not_opened(root: Path) -> None:
    (root / "train/cat/x.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    assert "none of the formats AVIF, BMP" in refusal(lambda: read(root))


def test_an_image_that_says_it_is_too_large_is_not_decoded(root: Path) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 4_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (root / "train/cat/x.png").write_bytes(content + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert "(it has 160,000,000 pixels, more than 150,000,000)" in refusal(lambda: read(root))


# --- a table ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six images of two classes; the last two are held out."""
    rows = ["path,label,split,user"]
    for i in range(6):
        save(tmp_path / f"img/{i}.png", i)
        rows.append(f"img/{i}.png,{'dog' if i % 2 else 'cat'},{'test' if i > 3 else 'train'},u{i % 3}")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "images.csv"


def test_a_csv_in_place_of_folders(table: Path) -> None:
    images = read(table, "csv")
    assert images.ids == tuple(f"img/{i}.png" for i in range(6))
    assert (images.classes, images.held_out, images.labels.tolist()) == (("cat", "dog"), 2, [0, 1, 0, 1, 0, 1])
    assert images.pixels[:, 0, 0, 0].tolist() == [*range(6)]
    assert sources.class_counts("csv", root=table, image_size=8, limit=1, cache=table) == {"cat": 1, "dog": 1}
    assert read(table, "csv", limit=1).ids == ("img/0.png", "img/1.png", "img/4.png", "img/5.png")
    before = listing(table, "csv")
    table.write_text(table.read_text().replace("img/3.png,dog", "img/3.png,cat"))
    assert listing(table, "csv") != before


def test_a_csv_without_a_split(table: Path) -> None:
    text = table.read_text().replace(",test", "").replace(",train", "").replace(",split", "")
    table.write_text(text)
    assert "no column split" in refusal(lambda: read(table, "csv"))
    assert read(table, "csv", held_out=0.34).held_out == 2


MISFITS = {
    "path,split\nimg/0.png,train\n": "no column label",
    "path,label,split\nimg/0.png,,train\n": "line 2 has no label",
    "path,label,split\nimg/9.png,a,train\n": "line 2: there is no file",
    "path,label,split\n,a,train\n": "line 2 has no path",
    "path,label,split\n../x.png,a,train\n": "is not below",
    "path,label,split\nimg,a,train\n": "is not a file",
    "path,label,split\nimg/0.png,a,train\n./img/0.png,a,train\n": "line 3 names img/0.png again",
    "path,label,split\nimg/0.png,a,unseen\n": "split is 'unseen'",
    "name,label\n": "no column id in its first line",
}


@pytest.mark.parametrize("text", MISFITS)
def test_a_csv_that_does_not_fit(text: str, table: Path) -> None:
    save(table.parent.parent / "x.png")
    table.write_text(text)
    assert MISFITS[text] in refusal(lambda: read(table, "csv"))


# --- arrays -----------------------------------------------------------------------------------------------------------------


def arrays(count: int, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> tuple[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8), (np.arange(count) % 3).astype(np.uint8)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3)])
@pytest.mark.parametrize(
    "names", [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_an_npz_file(names: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = arrays(9, shape), arrays(6, shape, 1)
    np.savez(tmp_path / "a.npz", **dict(zip(names, (x, y[:, None], x_test, y_test), strict=True)))
    images = read(tmp_path / "a.npz", "npz")
    assert (images.train, images.held_out, images.classes) == (9, 6, ("0", "1", "2"))
    assert images.ids[8:10] == ("train/8", "test/0")
    assert (images.pixels[:9, 0] == x.reshape(9, 8, 8, -1)[..., 0]).all()
    assert read(tmp_path / "a.npz", "npz", size=16).pixels.shape == (15, 3, 16, 16)


def test_an_npz_file_that_does_not_fit(tmp_path: Path) -> None:
    x, y = arrays(6)
    path = tmp_path / "a.npz"
    for held, says in (
        ({"a": x}, "it has a)"),
        ({"x_train": x, "y_train": y}, "no test images"),
        ({"x_train": x / 255, "y_train": y}, "train images are float64"),
        ({"x_train": x, "y_train": y[:3]}, "train labels are uint8 [3] for 6 images"),
        ({"x_train": x, "y_train": y.astype(int) - 1, "x_test": x, "y_test": y}, "a label is -1"),
        ({"x_train": x, "y_train": y.astype(int) + 10**12, "x_test": x, "y_test": y}, "labels are the numbers of classes"),
    ):
        np.savez(path, **held)
        assert says in refusal(lambda: read(path, "npz"))
    np.savez(path, x_train=x, y_train=y)
    assert read(path, "npz", held_out=0.5).held_out == 3
    path.write_bytes(b"PK not a zip")
    assert refusal(lambda: read(path, "npz")).startswith(f"data.root is {path} (")
    np.savez(path, x_train=np.array([{}], object), y_train=y)
    assert "allow_pickle=False" in refusal(lambda: read(path, "npz"))


def idx(values: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


def test_what_unpacks_to_more_than_memory_or_than_it_says_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = arrays(6)
    np.savez_compressed(tmp_path / "a.npz", x_train=np.zeros((6, 300, 300), np.uint8), y_train=y)
    for name, values in {"train-images-idx3": x, "train-labels-idx1": y, "t10k-images-idx3": x, "t10k-labels-idx1": y}.items():
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(values)))
    images, large = tmp_path / "train-images-idx3-ubyte.gz", bytes(3 * 10**7)
    longer = gzip.compress(idx(x) + large)
    endless = gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12 + large)  # by its own words of 2**96 bytes
    monkeypatch.setattr(formats, "MOST_BYTES", 500_000)
    tracemalloc.start()
    try:
        for content in (longer, endless):
            images.write_bytes(content)
            assert f"{images} is not an idx file" in refusal(lambda: read(tmp_path, "idx"))
        assert "it unpacks to 540" in refusal(lambda: read(tmp_path / "a.npz", "npz"))
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [True, False])
def test_the_files_of_mnist(packed: bool, tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = arrays(9), arrays(6, seed=1)
    parts = {"train-images-idx3": x, "train-labels-idx1": y, "t10k-images-idx3": x_test, "t10k-labels-idx1": y_test}
    for name, values in parts.items():
        content = idx(values)
        (tmp_path / f"{name}-ubyte{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    images = read(tmp_path, "idx")
    assert (images.pixels[:, 1] == np.concatenate([x, x_test])).all()
    assert (images.train, images.ids[9], images.labels[:4].tolist()) == (9, "test/0", [0, 1, 2, 0])
    broken = tmp_path / f"t10k-labels-idx1-ubyte{'.gz' if packed else ''}"
    broken.write_bytes(broken.read_bytes()[:-2])
    assert str(broken) in refusal(lambda: read(tmp_path, "idx"))
    broken.unlink()
    assert "it has no file t10k-labels-idx1-ubyte" in refusal(lambda: read(tmp_path, "idx"))


def test_sources_are_refused_without_their_files(tmp_path: Path) -> None:
    for source in ("npz", "idx", "csv"):
        assert "data.root is" in refusal(lambda source=source: read(tmp_path / "gone", source))  # type: ignore[misc]


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="no package dataset-fashion-mnist")
def test_fashion_mnist_of_debian() -> None:
    images = sources.read("idx", root=DEBIAN, image_size=28, limit=None, cache=DEBIAN)
    assert (images.train, images.held_out, np.bincount(images.labels).tolist()) == (60_000, 10_000, [7_000] * 10)


# --- what people have ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["val", "valid", "validation"])
def test_held_out_images_under_another_name(part: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(root)
    (root / "test").rename(root / part)
    images = read(root)
    assert f"the images of {part} are held out" in capsys.readouterr().err
    assert images.ids[images.train :] == tuple(id_.replace("test/", f"{part}/") for id_ in before.ids[before.train :])
    assert all(id_.startswith("train/") for id_ in read(root, held_out=0.3).ids)
    assert f"{part} is not read; held out are images of train" in capsys.readouterr().err


def test_a_folder_that_is_not_read_may_be_anywhere(root: Path, tmp_path: Path) -> None:
    (root / "test").rename(tmp_path / "elsewhere")
    (root / "val").symlink_to(tmp_path / "elsewhere")
    assert len(read(root, held_out=0.3).ids) == 6
    assert "leads out of data.root" in refusal(lambda: read(root))


def test_a_folder_next_to_test_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "val" / "cat" / "1.png")
    assert len(read(root).ids) == 10
    assert "val is not read; held out are the images of test" in capsys.readouterr().err


def test_what_systems_leave_among_images(root: Path) -> None:
    before = read(root).ids
    for name in (
        "train/__MACOSX/._0.png",
        "train/cat/@eaDir/0.png@SynoEAStream",
        "train/cat/Icon\r",
        "test/dog/.DS_Store",
        "train/ehthumbs.db",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    assert read(root).ids == before


def test_pictures_of_every_mode(root: Path) -> None:
    """CMYK, palettes, transparency, animations (their first picture) and phones' turned photos are read as torchvision reads them."""
    from torchvision.datasets.folder import default_loader

    picture, home = Image.effect_mandelbrot((8, 8), (-2, -1, 1, 1), 20).convert("RGB"), root / "train" / "cat"
    turned = Image.Exif()
    turned[0x112] = 6
    for name, mode in (("a.JPG", "CMYK"), ("b.gif", "P"), ("c.png", "RGBA"), ("d.png", "LA"), ("e.png", "1"), ("f.tif", "LAB")):
        picture.convert(mode if mode != "LAB" else "RGB").save(home / name)
    picture.convert("P").save(home / "g.png", transparency=0)
    picture.save(home / "h.JpEg", exif=turned)
    for name in ("i.gif", "j.webp", "k.png", "l.tif"):
        picture.save(home / name, save_all=True, append_images=[picture.rotate(90)])
    picture.save(home / "\N{GRINNING FACE} é.png")
    images = read(root)
    for id_, pixels in zip(images.ids, images.pixels, strict=True):
        expected = np.asarray(default_loader(str(root / id_))).transpose(2, 0, 1)
        assert np.array_equal(pixels, expected), id_
    assert "train/cat/\N{GRINNING FACE} é.png" in images.ids


def test_classes_that_differ_in_case(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "test" / "cat").rename(root / "test" / "Cat")
    assert "train/cat has no test/cat, but test/Cat" in refusal(lambda: read(root))
    (root / "test" / "Cat").rename(root / "test" / "cat")
    for part in ("train", "test"):
        save(root / part / "Cat" / "0.png")
    assert read(root).classes == ("Cat", "cat", "dog")
    assert "Cat and cat differ only in upper and lower case" in capsys.readouterr().err


def test_folders_of_another_shape_are_refused_for_what_they_are(root: Path, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK\3\4")
    assert "photos.zip (an archive: unpack it)" in refusal(lambda: read(tmp_path / "photos.zip"))
    assert f"it has no folder train; {root} has one" in refusal(lambda: read(tmp_path))
    (root / "train").rename(root / "Train")
    assert "it has no folder train; it has Train, test" in refusal(lambda: read(root))
    (root / "data_batch_1").touch()
    assert "data.source cifar10" in refusal(lambda: read(root))
    assert "data.source cifar10" in refusal(lambda: read(root, "idx"))
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), np.uint8))
    assert "one array, without labels" in refusal(lambda: read(tmp_path / "a.npy", "npz"))


def test_one_class_is_no_classifier(root: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(root / part / "dog")
    assert "(classes in train: cat); it takes two or more" in refusal(lambda: read(root))
