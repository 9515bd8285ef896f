"""A folder of images as a data source: train/<class>/* and test/<class>/*, decoded in parallel processes."""

import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from rich.progress import MofNCompleteColumn

from lethe._util.errors import RunFailed, UserError
from lethe.data.images import Images, one_line
from lethe.data.progress_bar import progress_bar
from lethe.data.sources import SourceOptions, register_data_source

LAYOUT = "it takes a folder with train/<class>/* and test/<class>/*"
JUNK = {"thumbs.db", "desktop.ini"}  # what Windows leaves in folders of images; dot files (.DS_Store, ._x) go too


def _listing(options: SourceOptions) -> list[str]:
    train, test, classes = _scan(_root(options.root), options.limit)
    return [str(options.image_size), *classes, *(f"{file.size} {file.mtime_ns} {file.id}" for file in train + test)]


def _counts(options: SourceOptions) -> dict[str, int]:
    train, _, classes = _scan(_root(options.root), options.limit)
    numbers = Counter(file.label for file in train)
    return {name: numbers[label] for label, name in enumerate(classes)}


@register_data_source("image_folder", listing=_listing, counts=_counts)
def read_folder(options: SourceOptions) -> Images:
    """Images of data.root/train and data.root/test, class by class, in each class by file name.

    Raises:
        UserError: the folder is of another layout, a symlink leads out of it, or a file is not an image.
    """
    started = time.perf_counter()
    root, image_size = _root(options.root), options.image_size
    train, test, classes = _scan(root, options.limit)
    files = train + test
    pixels = np.empty((len(files), 3, image_size, image_size), np.uint8)
    step = min(max(2**20 // pixels[0].nbytes, 1), 512)  # a worker returns about a MiB at a time
    chunks = [[file.path for file in files[i : i + step]] for i in range(0, len(files), step)]
    parts = _decode_all(chunks, image_size, _workers(files))
    with closing(parts), progress_bar(MofNCompleteColumn()) as progress:
        task = progress.add_task("reading images", total=len(files))
        done = 0
        for part in parts:
            if isinstance(part, UserError):
                raise part
            pixels[done : done + len(part)] = part
            done += len(part)
            progress.update(task, completed=done)
    if progress.disable:
        seconds = time.perf_counter() - started
        progress.console.print(f"read {len(files):,} images from {root} in {seconds:.1f} s", soft_wrap=True)
    labels = np.array([file.label for file in files], np.int64)
    return Images(pixels, labels, tuple(file.id for file in files), classes, len(test))


class _File(NamedTuple):
    id: str
    path: str
    label: int
    size: int
    mtime_ns: int


def _root(root: Path | None) -> Path:
    if root is None:
        raise UserError(f"data.root is not set, and data.source is image_folder; {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"data.root is {root} ({'not a' if root.exists() else 'no such'} folder); {LAYOUT}")
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise UserError(f"data.root is {root} (it has no folder {part}); {LAYOUT}")
    return root


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name, without junk. Raises UserError for symlinks that lead out of the root."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in JUNK]
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error.strerror}); {LAYOUT}") from None
    for entry in found:
        if entry.is_symlink():
            _inside(Path(entry.path), root)
    return sorted(found, key=lambda entry: entry.name)


def _inside(link: Path, root: Path) -> None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        raise UserError(f"{link} is a symlink that leads nowhere ({link.readlink()})") from None
    if not target.is_relative_to(root.resolve()):
        raise UserError(f"{link} is a symlink that leads out of data.root (to {target}); it takes files within {root}")


def _class_names(folder: Path, root: Path) -> list[str]:
    entries = _entries(folder, root)
    for entry in entries:
        if not entry.is_dir():
            raise UserError(f"{entry.path} is not a class folder; {LAYOUT}")
        _check_name(entry)
    return [entry.name for entry in entries]


def _check_name(entry: os.DirEntry[str]) -> None:
    """Ids are written one a line to UTF-8 files."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{entry.path!a} has a name that is not UTF-8; rename it") from None
    if entry.name.splitlines() != [entry.name]:
        raise UserError(f"{entry.path!r} has a line break in its name; rename it")


def _class_files(part: str, label: int, name: str, root: Path) -> Iterator[_File]:
    for entry in _entries(root / part / name, root):
        if not entry.is_file():  # reading a pipe would block for ever
            raise UserError(f"{entry.path} is not a file; {LAYOUT}")
        _check_name(entry)
        stat = entry.stat()
        yield _File(f"{part}/{name}/{entry.name}", entry.path, label, stat.st_size, stat.st_mtime_ns)


def _scan(root: Path, limit: int | None) -> tuple[list[_File], list[_File], tuple[str, ...]]:
    """Train files, held-out files, class names; sorted by class, then by file name, both by code points."""
    for part in ("train", "test"):
        if (root / part).is_symlink():
            _inside(root / part, root)
    classes = _class_names(root / "train", root)
    held_out = _class_names(root / "test", root)
    for name in classes:
        if name not in held_out:
            raise UserError(f"data.root is {root} (train/{name} has no test/{name}); {LAYOUT}, the same classes in both")
    for name in held_out:
        if name not in classes:
            raise UserError(f"data.root is {root} (test/{name} has no train/{name}); {LAYOUT}, the same classes in both")
    if len(classes) < 2:
        raise UserError(f"data.root is {root} (classes in train: {', '.join(classes) or 'none'}); it takes two or more")
    train: list[_File] = []
    test: list[_File] = []
    for label, name in enumerate(classes):
        files = list(_class_files("train", label, name, root))
        if not files:
            raise UserError(f"data.root is {root} (train/{name} is empty); it takes one image or more in each class")
        train += files[:limit]
        test += _class_files("test", label, name, root)
    if len(test) < 2:
        count = "1 image" if test else "no image"
        raise UserError(f"data.root is {root} ({count} under test); it takes two or more, for validation and test")
    return train, test, tuple(classes)


def _decode(path: str, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode one image file to uint8 [H, W, 3], without EXIF rotation, stretched to image_size."""
    try:
        with Image.open(path) as image:
            return to_pixels(image, image_size)
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise nearly anything: OSError, SyntaxError, struct.error, ...
        reason = "no format that PIL knows" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise UserError(f"{path} can't be read as an image ({reason}); repair or remove it") from None


def to_pixels(image: Image.Image, image_size: int) -> npt.NDArray[np.uint8]:
    """Return an opened image as uint8 [H, W, 3], without EXIF rotation, stretched to image_size.

    Args:
        image: opened, of any mode.
        image_size: height and width in pixels.

    Raises:
        ValueError: its pixels have more than 16 bits, or are floating-point numbers. PIL raises other errors for damaged files.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion turns all above 255 white
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("more than 16 bits a pixel")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels of unknown range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns otherwise
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


Part: TypeAlias = npt.NDArray[np.uint8] | UserError  # [N, 3, H, W], or the error of the first bad file of a chunk


def _decode_some(paths: list[str], image_size: int) -> Part:
    """Decode several files. An error is returned, not raised, so that the caller can raise the first in the order of files."""
    pixels = np.empty((len(paths), 3, image_size, image_size), np.uint8)
    try:
        for into, path in zip(pixels, paths, strict=True):
            into[:] = _decode(path, image_size).transpose(2, 0, 1)
    except UserError as error:
        return error
    return pixels


def _workers(files: list[_File]) -> int:
    """Number of decoding processes: one for each second that a single one would take, up to the number of cores."""
    seconds = len(files) * 160e-6 + sum(file.size for file in files) / 50e6
    return max(1, min(round(seconds), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 16))


def _decode_all(chunks: list[list[str]], image_size: int, workers: int) -> Generator[Part, None, None]:
    """`_decode_some` of each chunk, in order.

    In processes, because threads compete for the interpreter lock on small files (60,000 JPEGs of 32x32 on two cores: 7 s in two
    processes, 10 s in one, 17 s in threads). Not those of multiprocessing, which either forks a caller that may have threads
    or runs its script again, nor those of joblib, which print tracebacks when stopped."""
    if workers == 1:
        yield from (_decode_some(paths, image_size) for paths in chunks)
        return
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    idle: SimpleQueue[Popen[bytes]] = SimpleQueue()

    def ask(paths: list[str]) -> Part:
        worker = idle.get()
        assert worker.stdin
        assert worker.stdout
        try:
            pickle.dump((paths, image_size), worker.stdin)
            worker.stdin.flush()
            answer: Part = pickle.load(worker.stdout)
        except (OSError, EOFError):
            with suppress(OSError):  # else what is still in its buffer breaks the pipe again when it is closed
                worker.stdin.close()
            raise RunFailed(f"a process that reads images ended, near {paths[0]}: out of memory?") from None
        finally:
            idle.put(worker)
        return answer

    with ExitStack() as stack:
        for _ in range(workers):
            command = [sys.executable, "-c", "from lethe.data.image_folder import _serve; _serve()"]
            # a session of its own: Ctrl-C reaches only the caller, which then ends them (so does its death, which closes stdin)
            options: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": path}, "start_new_session": True}
            worker = stack.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, **options))
            stack.callback(worker.kill)
            idle.put(worker)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(ask, chunks)  # in order; ended early, it cancels what is queued


def _serve() -> None:
    """The worker process of `_decode_all`."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with suppress(EOFError, BrokenPipeError):  # the caller has finished, or died
        while True:
            paths, image_size = pickle.load(sys.stdin.buffer)
            pickle.dump(_decode_some(paths, image_size), answers)
            answers.flush()
