"""Arrays in files as data sources: NumPy's .npz, and the idx files of MNIST and its relatives."""

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lethe._util.errors import UserError
from lethe._util.files import atomic_write
from lethe.data.decoding import to_pixels
from lethe.data.image_folder import divide_ids
from lethe.data.images import Images, numbered_classes, one_line
from lethe.data.pixel_store import Pages, empty
from lethe.data.sources import SourceOptions, register_data_source

Array = npt.NDArray[np.generic]
Part = tuple[Array, Array]  # images, labels

NPZ = "it takes a .npz file with train_images, train_labels, test_images, test_labels (or x_train, y_train, ...), images uint8"
IDX = "it takes a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-..., each with or without .gz"
MOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**36  # of an array
# Names of images and labels of a part -> part
ARRAYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels"), ("X", "y"), ("x", "y")),
    "val": (("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


@register_data_source("npz")
def read_npz(options: SourceOptions) -> Images:
    """Arrays of a .npz file (data.root): train_images, train_labels, test_images, test_labels; val_ ones are held out, too."""
    path = _file(options, NPZ)
    key = f"data.root is {path}"
    try:
        _check_unpacked(path)
        held = np.load(path, allow_pickle=False)
        if not isinstance(held, np.lib.npyio.NpzFile):
            raise UserError(f"{key} (one array, without labels); {NPZ}")
        with held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{key} ({one_line(error)}); {NPZ}") from None
    parts = {part: _named(arrays, names) for part, names in ARRAYS.items()}
    if parts["train"] is None:
        raise UserError(f"{key} (it has {', '.join(arrays) or 'no arrays'}); {NPZ}")
    return _images({part: found for part, found in parts.items() if found is not None}, options, key, NPZ)


@register_data_source("idx", near_copies=False)
def read_idx(options: SourceOptions) -> Images:
    """The four idx files of MNIST, Fashion-MNIST and others in a folder (data.root), packed by gzip or not."""
    root = options.root
    if root is None or not root.is_dir():
        raise UserError(f"data.root is {root} (no such folder); {IDX}")
    parts = {
        part: (_idx(root, f"{name}-images", 3), _idx(root, f"{name}-labels", 1)) for part, name in (("train", "train"), ("test", "t10k"))
    }
    return _images(parts, options, f"data.root is {root}", IDX)


def images_file(source: str, root: Path) -> Path:
    """Return the file that holds the train images.

    Args:
        source: npz or idx.
        root: data.root.

    Returns:
        `root` itself for npz; for idx the file of the train images in it, compressed or not.
    """
    return root if source == "npz" else _idx_file(root, "train-images", 3)


def blank(source: str, root: Path, erased: Callable[[str], bool]) -> None:
    """Set the pixels of some train images to 0. Labels, other arrays and all places stay. The file is replaced as a whole.

    Args:
        source: npz or idx.
        root: data.root.
        erased: whether the image of this id is erased.

    Raises:
        UserError: the file can't be read.
        RunFailed: it could not be written.
    """
    path = images_file(source, root)
    if source == "npz":
        with np.load(path, allow_pickle=False) as held, zipfile.ZipFile(path) as packed:
            arrays = {name: held[name] for name in held.files}
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in packed.infolist())
        name = next(images for images, labels in ARRAYS["train"] if images in arrays and labels in arrays)
        arrays[name] = _blanked(arrays[name], erased)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            (np.savez if stored else np.savez_compressed)(file, **arrays)
        return
    images = _blanked(_idx(root, "train-images", 3), erased)
    content = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4) for size in images.shape) + images.tobytes()
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _blanked(images: Array, erased: Callable[[str], bool]) -> Array:
    images = images.copy()
    images[[i for i in range(len(images)) if erased(f"train/{i}")]] = 0
    return images


def _named(arrays: Mapping[str, Array], names: Iterable[tuple[str, str]]) -> Part | None:
    return next(((arrays[images], arrays[labels]) for images, labels in names if images in arrays and labels in arrays), None)


def _file(options: SourceOptions, accepts: str) -> Path:
    if options.root is None:
        raise UserError(f"data.root is not set; {accepts}")
    if not options.root.is_file():
        raise UserError(f"data.root is {options.root} (no such file); {accepts}")
    return options.root


def _check_unpacked(path: Path) -> None:
    """Refuse an archive whose arrays need more memory than the machine has.

    Raises:
        ValueError: they do.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MOST_BYTES:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, and this machine has {MOST_BYTES:,}")


def _idx_file(root: Path, name: str, dimensions: int) -> Path:
    names = [f"{name}{dot}idx{dimensions}-ubyte{ending}" for dot in "-." for ending in ("", ".gz")]
    path = next((root / each for each in names if (root / each).is_file()), None)
    if path is None:
        cifar = (
            ", but CIFAR's Python batches, which data.source cifar10 reads from the folder above" if any(root.glob("data_batch_*")) else ""
        )
        raise UserError(f"data.root is {root} (it has no file {names[0]}{cifar}); {IDX}")
    return path


def _idx(root: Path, name: str, dimensions: int) -> Array:
    """The array of an idx file (yann.lecun.org/exdb/mnist): two zeros, type, number of dimensions, sizes, values."""
    path = _idx_file(root, name, dimensions)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(4 + 4 * dimensions)
            sizes = [int.from_bytes(content[i : i + 4]) for i in range(4, 4 + 4 * dimensions, 4)]
            content += file.read(min(math.prod(sizes), MOST_BYTES) + 1)  # no more than it says that it has
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise UserError(f"{path} can't be read ({one_line(error)}); {IDX}") from None
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != 4 + 4 * dimensions + int(np.prod(sizes, dtype=np.uint64)):
        raise UserError(f"{path} is not an idx file of bytes in {dimensions} dimensions, or is cut short; {IDX}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def _images(parts: Mapping[str, Part], options: SourceOptions, key: str, accepts: str) -> Images:
    """Images of image_size with ids train/0, ..., test/0, ... and classes named by their index."""
    ids: list[str] = []
    labels: list[int] = []
    for part, (images, own) in parts.items():
        own = own.reshape(-1) if own.ndim == 2 and own.shape[1] == 1 else own
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise UserError(f"{key} ({part} images are {images.dtype} {list(images.shape)}); {accepts} [N, H, W] or [N, H, W, 3]")
        if own.dtype.kind not in "iu" or own.shape != (len(images),):
            raise UserError(f"{key} ({part} labels are {own.dtype} {list(own.shape)} for {len(images)} images); {accepts}")
        labels += [int(label) for label in own]
        ids += [f"{part}/{i}" for i in range(len(images))]
    if min(labels, default=0) < 0:
        raise UserError(f"{key} (a label is {min(labels)}); {accepts}, labels from 0")
    train = [i for i, id_ in enumerate(ids) if id_.startswith("train/")]
    held_out = [i for i, id_ in enumerate(ids) if not id_.startswith("train/")]
    if options.reading.held_out is not None:
        if held_out:
            raise UserError(f"data.held_out.fraction is {options.reading.held_out}, and {key} with held-out images; it takes one of them")
        chosen = divide_ids({i: (ids[i], labels[i]) for i in train}, options.reading.held_out, options.reading.seed)
        train, held_out = [i for i in train if i not in chosen], [i for i in train if i in chosen]
    elif not held_out:
        raise UserError(f"{key} (no test images); {accepts}, or data.held_out.fraction for a share of them")
    order = [*train, *held_out]
    classes = numbered_classes(max(labels), key)
    chosen_labels = np.array([labels[i] for i in order], np.int64)
    pixels = empty((len(order), 3, options.image_size, options.image_size), options.cache)
    every, pages = (image for images, _ in parts.values() for image in _sized(images, options)), Pages(pixels)
    for at, image in zip(np.argsort(order).tolist(), every, strict=True):
        pixels[at] = image
        pages.touched(image.nbytes)
    pages.release()
    return Images(pixels, chosen_labels, tuple(ids[i] for i in order), classes, len(held_out))


def _sized(images: Array, options: SourceOptions) -> Iterator[npt.NDArray[np.uint8]]:
    """Each image, [3, H, W]."""
    for image in images:
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))
        yield to_pixels(picture, options.image_size, options.reading.resize).transpose(2, 0, 1)
