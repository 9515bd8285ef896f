"""Where images come from: CIFAR-10, a folder of one's own, or scikit-learn's digits; all end as one value, `Images`."""

import json
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any, NamedTuple, TypeAlias
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest, whole

# N images, H height, W width

SOURCES = ("cifar10", "image_folder", "digits")
LAYOUT = "it takes a folder with train/<class>/* and test/<class>/*"
JUNK = {"thumbs.db", "desktop.ini"}  # what Windows leaves in folders of images; dot files (.DS_Store, ._x) go too
EDITION = "1"  # part of every listing: raise it when the same files would be read into other pixels
DIGITS_TRAIN = 1297  # of the 1,797; 500 are held out


@dataclass(frozen=True, eq=False)
class Images:
    """All images of a source, train first, then held-out. The same image has the same id at any `limit`."""

    pixels: npt.NDArray[np.uint8]  # [N, 3, H, W]
    labels: npt.NDArray[np.int64]  # [N], indices into classes
    ids: tuple[str, ...]  # N of them: 'train/5940', 'test/7542', 'train/cat/00017.png'
    classes: tuple[str, ...]
    held_out: int  # how many of the N, at the end

    @property
    def train(self) -> int:
        """How many of the N, at the beginning, are train images."""
        return len(self.ids) - self.held_out

    def train_hash(self) -> str:
        """SHA-256 over what an original was trained on: train pixels, labels, ids, classes, and which ids are held out.

        Never over a forget list: a new request keeps the original."""
        n = self.train
        words = json.dumps([self.classes, self.pixels.shape[1:], self.ids[:n], self.ids[n:]])
        return digest([words, self.labels[:n].astype("<i8").tobytes(), self.pixels[:n].tobytes()])


def read(source: str, *, root: Path | None, image_size: int, limit: int | None, cache: Path) -> Images:
    """Reads a source whole; `limit` keeps the first train images of each class and all held-out ones.

    CIFAR-10 is kept under `root`, or under `cache` when that is None. Raises UserError, naming key or file."""
    _check(source, root, image_size, limit)
    if source == "image_folder":
        return _folder(_root(root), image_size, limit)
    images = _cifar10(root or cache) if source == "cifar10" else _digits()
    if limit is None:
        return images
    kept = [np.flatnonzero(images.labels[: images.train] == label)[:limit] for label in range(len(images.classes))]
    chosen = np.concatenate([np.sort(np.concatenate(kept)), np.arange(images.train, len(images.ids))])
    ids = tuple(images.ids[i] for i in chosen)
    return Images(images.pixels[chosen], images.labels[chosen], ids, images.classes, images.held_out)


def listing(source: str, *, root: Path | None, image_size: int, limit: int | None) -> str:
    """A hash of what `read` would read, without reading it: of a folder the names, sizes and times of its files.

    Raises UserError as `read` does, unreadable images apart."""
    _check(source, root, image_size, limit)
    parts = [EDITION, source, str(limit)]
    if source == "image_folder":
        train, test, classes = _scan(_root(root), limit)
        parts += [str(image_size), *classes, *(f"{file.size} {file.mtime_ns} {file.id}" for file in train + test)]
    return digest(parts)


def class_counts(root: Path | None, limit: int | None) -> dict[str, int]:
    """Class -> how many train images `read` would take of it from a folder, in the order of classes; no image is opened."""
    _check("image_folder", root, 1, limit)
    train, _, classes = _scan(_root(root), limit)
    numbers = Counter(file.label for file in train)
    return {name: numbers[label] for label, name in enumerate(classes)}


def save(images: Images, path: Path, listing: str) -> None:
    """One safetensors file, the same bytes for the same images and listing. Raises RunFailed when the disk refuses."""
    # One key: safetensors writes several in an order that differs from process to process
    rest = {"classes": images.classes, "held_out": images.held_out, "listing": listing, "ids": images.ids}
    # Contiguous: safetensors copies the buffer as it lies, strides ignored
    tensors: dict[str, npt.NDArray[Any]] = {
        "pixels": np.ascontiguousarray(images.pixels),
        "labels": np.ascontiguousarray(images.labels),
    }
    with whole(path) as beside:
        try:
            save_file(tensors, beside, metadata={"images": json.dumps(rest)})
        except SafetensorError as error:
            raise OSError(str(error)) from None


def load(path: Path) -> tuple[Images, str]:
    """What `save` wrote, images and listing. Raises UserError when the file is missing, truncated or of another kind."""
    try:
        with safe_open(path, framework="np") as file:
            rest: dict[str, Any] = json.loads(file.metadata()["images"])
            pixels, labels = file.get_tensor("pixels"), file.get_tensor("labels")
        ids, classes = tuple(rest["ids"]), tuple(rest["classes"])
        n = len(ids)
        if pixels.dtype != np.uint8 or pixels.shape[:2] != (n, 3) or labels.dtype != np.int64 or labels.shape != (n,):
            raise ValueError(f"{pixels.dtype}{list(pixels.shape)} and {labels.dtype}{list(labels.shape)} for {n} ids")
        if not (labels < len(classes)).all() or not 0 <= int(rest["held_out"]) <= n:
            raise ValueError("labels or held_out out of range")
        return Images(pixels, labels, ids, classes, int(rest["held_out"])), str(rest["listing"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be read as images made by prepare: {_one_line(error)}") from None


def _check(source: str, root: Path | None, image_size: int, limit: int | None) -> None:
    if source not in SOURCES:
        raise UserError(f"data.source is {source}; it takes one of {', '.join(SOURCES)}")
    if source == "image_folder" and root is None:
        raise UserError(f"data.root is not set, and data.source is image_folder; {LAYOUT}")
    if source != "image_folder" and image_size != 32:
        raise UserError(f"data.image_size is {image_size}; with data.source {source} it takes 32")
    if image_size < 1:
        raise UserError(f"data.image_size is {image_size}; it takes a whole number above 0")
    if limit is not None and limit < 1:
        raise UserError(f"data.limit is {limit}; it takes a whole number above 0, or null for all train images")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


# --- a folder of images ---------------------------------------------------------------------------------------------


class _File(NamedTuple):
    id: str
    path: str
    label: int
    size: int
    mtime_ns: int


def _root(root: Path | None) -> Path:
    assert root is not None  # _check
    if not root.is_dir():
        raise UserError(f"data.root is {root} ({'not a' if root.exists() else 'no such'} folder); {LAYOUT}")
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise UserError(f"data.root is {root} (it has no folder {part}); {LAYOUT}")
    return root


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, junk left out. Raises UserError for symlinks that lead out of the root."""
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
    """Ids stand one a line in UTF-8 files."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{entry.path!a} has a name that is not UTF-8; rename it") from None
    if entry.name.splitlines() != [entry.name]:
        raise UserError(f"{entry.path!r} has a line break in its name; rename it")


def _class_files(part: str, label: int, name: str, root: Path) -> Iterator[_File]:
    for entry in _entries(root / part / name, root):
        if not entry.is_file():  # a pipe would wait for ever
            raise UserError(f"{entry.path} is not a file; {LAYOUT}")
        _check_name(entry)
        stat = entry.stat()
        yield _File(f"{part}/{name}/{entry.name}", entry.path, label, stat.st_size, stat.st_mtime_ns)


def _scan(root: Path, limit: int | None) -> tuple[list[_File], list[_File], tuple[str, ...]]:
    """Train files, held-out files, classes; class by class, then by file name, both in the order of code points."""
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
    """One image file as uint8 [H, W, 3], as it lies in the file (no EXIF rotation), sides stretched to image_size."""
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            if image.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion turns all above 255 white
                values = np.asarray(image)
                if values.min() < 0 or values.max() > 65535:
                    raise ValueError("more than 16 bits a pixel")
                image = Image.fromarray((values >> 8).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("floating-point pixels, whose range nobody knows")
            elif image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")  # PIL warns otherwise
            if image.mode != "RGB":
                image = image.convert("RGB")
            if image.size != (image_size, image_size):
                image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise nearly anything: OSError, SyntaxError, struct.error, ...
        reason = "no format that PIL knows" if isinstance(error, UnidentifiedImageError) else _one_line(error)
        raise UserError(f"{path} can't be read as an image ({reason}); mend it or take it away") from None


Part: TypeAlias = npt.NDArray[np.uint8] | UserError  # [N, 3, H, W], or the error of the first bad file of a chunk


def _decode_some(paths: list[str], image_size: int) -> Part:
    """An error is returned, not raised: whoever raises it keeps the order of files."""
    pixels = np.empty((len(paths), 3, image_size, image_size), np.uint8)
    try:
        for into, path in zip(pixels, paths, strict=True):
            into[:] = _decode(path, image_size).transpose(2, 0, 1)
    except UserError as error:
        return error
    return pixels


def _workers(files: list[_File]) -> int:
    """Processes to read with: one for each second that one alone would take, up to the number of cores."""
    seconds = len(files) * 160e-6 + sum(file.size for file in files) / 50e6
    return max(1, min(round(seconds), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 16))


def _decode_all(chunks: list[list[str]], image_size: int, workers: int) -> Generator[Part, None, None]:
    """`_decode_some` of each chunk, in order.

    In processes, as threads fight for Python's lock over small files (60,000 JPEGs of 32x32 on two cores: 7 s in two
    processes, 10 s in one, 17 s in threads). Their own, as multiprocessing either forks a caller that may have threads
    or runs its script anew, and joblib's print tracebacks when stopped."""
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
            with suppress(OSError):  # else what it was not sent breaks the pipe anew when it is let go
                worker.stdin.close()
            raise RunFailed(f"a process that reads images ended, near {paths[0]}: out of memory?") from None
        finally:
            idle.put(worker)
        return answer

    with ExitStack() as stack:
        for _ in range(workers):
            command = [sys.executable, "-c", "from lethe.data.sources import _serve; _serve()"]
            # setsid: Ctrl-C reaches the caller alone, which then ends them (as does its death, by closing stdin)
            options: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": path}, "start_new_session": True}
            worker = stack.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, **options))
            stack.callback(worker.kill)
            idle.put(worker)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(ask, chunks)  # in order; ended early, it cancels what waits


def _serve() -> None:
    """The other end of `_decode_all`."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with suppress(EOFError, BrokenPipeError):  # the caller is done, or gone
        while True:
            paths, image_size = pickle.load(sys.stdin.buffer)
            pickle.dump(_decode_some(paths, image_size), answers)
            answers.flush()


def _folder(root: Path, image_size: int, limit: int | None) -> Images:
    started = time.perf_counter()
    train, test, classes = _scan(root, limit)
    files = train + test
    pixels = np.empty((len(files), 3, image_size, image_size), np.uint8)
    step = min(max(2**20 // pixels[0].nbytes, 1), 512)  # about a MiB at a time comes back
    chunks = [[file.path for file in files[i : i + step]] for i in range(0, len(files), step)]
    parts = _decode_all(chunks, image_size, _workers(files))
    with closing(parts), _progress(MofNCompleteColumn()) as progress:
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


def _progress(*columns: TextColumn | MofNCompleteColumn | DownloadColumn) -> Progress:
    """A bar on stderr; nothing (`.disable`) when that is no terminal."""
    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


# --- CIFAR-10 -------------------------------------------------------------------------------------------------------


def _cifar10(folder: Path) -> Images:
    from torchvision.datasets import CIFAR10  # seconds to import

    def parts(**download: bool) -> list[Any]:
        return [CIFAR10(folder, train=True, **download), CIFAR10(folder, train=False)]  # checksums verified each time

    try:
        try:
            train, test = parts()
        except RuntimeError:  # not there, or a checksum differs: what is half unpacked counts as not there
            _download(CIFAR10.url, folder / CIFAR10.filename, CIFAR10.tgz_md5)
            train, test = parts(download=True)
    except OSError as error:
        raise RunFailed(f"{folder} can't take CIFAR-10: {error.strerror or error}") from error
    pixels = np.concatenate([train.data, test.data]).transpose(0, 3, 1, 2)
    labels = np.array([*train.targets, *test.targets], np.int64)
    ids = [f"train/{i}" for i in range(len(train.data))] + [f"test/{i}" for i in range(len(test.data))]
    return Images(np.ascontiguousarray(pixels), labels, tuple(ids), tuple(train.classes), len(test.data))


def _download(url: str, path: Path, md5: str) -> None:
    """Instead of torchvision's own download: that one waits without a time limit and leaves a half-written archive."""
    from torchvision.datasets.utils import check_integrity

    if check_integrity(path, md5):
        return
    with _network():
        response = urlopen(Request(url, headers={"User-Agent": "lethe"}), timeout=10)
    with response, whole(path) as beside:  # connected: only now is a folder made
        with beside.open("wb") as out, _progress(DownloadColumn()) as progress:
            size = response.length or 0
            if progress.disable:
                progress.console.print(f"downloading CIFAR-10 ({size / 1e6:.0f} MB) to {path}", soft_wrap=True)
            task = progress.add_task("downloading CIFAR-10", total=size or None)
            while chunk := _receive(response):
                out.write(chunk)
                progress.advance(task, len(chunk))
        if not check_integrity(beside, md5):
            raise _no_cifar10("what arrived has another checksum")


def _receive(response: IO[bytes]) -> bytes:
    with _network():
        return response.read(1 << 16)


@contextmanager
def _network() -> Iterator[None]:
    """Errors of the network as UserError; those of the disk are none of its business."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a proxy that is no address
        raise _no_cifar10(_one_line(error.reason if type(error) is URLError else error)) from None


def _no_cifar10(reason: str) -> UserError:
    return UserError(
        f"data.source is cifar10 and it can't be downloaded ({reason}); these need no download: a folder of images, "
        "`--data.source image_folder --data.root <folder>`, and the bundled `--data.source digits`"
    )


# --- digits ---------------------------------------------------------------------------------------------------------


def _digits() -> Images:
    """scikit-learn's 1,797 digits, 8x8 enlarged to 3x32x32. They come writer by writer, so they are shuffled (always
    the same way) before the last 500 are held out."""
    from sklearn.datasets import load_digits  # seconds to import

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))  # RandomState: frozen over numpy's versions
    grey = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(g).resize((32, 32), Image.Resampling.BILINEAR)) for g in grey])
    pixels = np.repeat(large[:, None], 3, axis=1)
    held_out = len(order) - DIGITS_TRAIN
    ids = [f"train/{i}" for i in range(DIGITS_TRAIN)] + [f"test/{i}" for i in range(held_out)]
    classes = tuple(str(name) for name in bunch.target_names)
    return Images(pixels, bunch.target[order].astype(np.int64), tuple(ids), classes, held_out)
