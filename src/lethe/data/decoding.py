"""Files of images to pixels, decoded in parallel processes. N images, H height, W width."""

import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lethe._util.errors import RunFailed, UserError
from lethe._util.log import log
from lethe.data.images import one_line
from lethe.data.pixel_store import Pages, empty, take
from lethe.data.progress_bar import progress_bar

# What is opened: PIL would also start Ghostscript for an EPS file, and read video, scientific and vector formats
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
LARGEST = 150_000_000  # pixels of a file; a process needs 4 bytes for each
LONGEST = 120.0  # seconds of processor time for a file: the slowest, JPEG 2000, takes 0.4 for a million pixels, 60 for LARGEST
MOST_SCANS = 500  # of a progressive JPEG, each of which passes over all pixels; programs write about 10
DEPTHS = (8, 10, 12, 14, 16)  # bits of grey that files of 16 bits a pixel are filled with
RESIZES = ("squash", "crop", "pad")
NAMED = 20  # unreadable files that a message names


class File(NamedTuple):
    """A file of an image, with its label, size in bytes and time of its last change."""

    id: str
    path: str
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Fit:
    """How an image becomes pixels of one size.

    Args:
        size: height and width.
        resize: `squash` stretches it; `crop` keeps the middle, and `pad` adds black, so that proportions stay.
        bits: of 16-bit grey that are used; the upper eight of them are kept.
    """

    size: int
    resize: str = "squash"
    bits: int = 16


def read_files(
    files: Sequence[File], fit: Fit, *, skip: bool = False, source: str = "", folder: Path = Path()
) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Decode files.

    Args:
        files: to decode.
        fit: what they become; the bits of 16-bit grey are found here.
        skip: leave out files that can't be read, and log them; otherwise they are an error.
        source: of the files, for messages.
        folder: on whose disk the pixels are kept if memory does not hold them.

    Returns:
        uint8 [N, 3, H, W], and the positions in `files` that could be read.

    Raises:
        UserError: files can't be read; the message names them.
        RunFailed: a process that reads files ended, or the disk has no room for the pixels.
    """
    started = time.perf_counter()
    pixels = empty((len(files), 3, fit.size, fit.size), folder)
    pages = Pages(pixels)
    step = min(max(2**20 // pixels[0].nbytes, 1), 512)  # a worker returns about a MiB at a time
    starts = range(0, len(files), step)
    chunks = {start: [file.path for file in files[start : start + step]] for start in starts}
    bad: dict[int, str] = {}
    highest: dict[int, int] = {}
    with progress_bar() as progress:
        task = progress.add_task("reading images", total=len(files))

        def fill(some: Sequence[int], fit: Fit) -> None:
            parts = _decode_all([chunks[start] for start in some], fit, _workers(list(files)))
            with closing(parts):
                for start, (part, errors, brightest) in zip(some, parts, strict=True):
                    pixels[start : start + len(part)] = part
                    pages.touched(part.nbytes)
                    bad.update({start + at: reason for at, reason in errors.items()})
                    highest[start] = brightest
                    progress.update(task, completed=start + len(part))

        fill(list(starts), fit)
        most = max(highest.values(), default=0)
        bits = next(depth for depth in DEPTHS if most < 2**depth)
        if most and bits < fit.bits and not (bad and not skip):
            fill([start for start in starts if highest[start]], replace(fit, bits=bits))
            log(f"16-bit grey images have values up to {most:,} ({bits} bits), and are scaled by that range")
    pages.release()
    if bad and not skip:
        raise UserError(_unreadable(files, bad))
    if bad:
        names = ", ".join(files[i].id for i in sorted(bad)[:NAMED])
        log(f"data.skip_unreadable: {len(bad):,} of {len(files):,} files can't be read as images and are left out: {names}")
    if progress.disable:
        log(f"read {len(files) - len(bad):,} images from {source} in {time.perf_counter() - started:.1f} s")
    kept = [i for i in range(len(files)) if i not in bad]
    return (take(pixels, np.array(kept, np.int64), folder) if bad else pixels), kept


def _unreadable(files: Sequence[File], bad: dict[int, str]) -> str:
    first, *others = sorted(bad)
    what = f"{files[first].path} can't be read as an image ({bad[first]})"
    if not others:
        return f"{what}; repair or remove it, or give data.skip_unreadable true"
    more = ", ".join(files[i].id for i in others[: NAMED - 1]) + (", ..." if len(others) >= NAMED else "")
    return f"{what}, nor can {len(others):,} more files: {more}; repair or remove them, or give data.skip_unreadable true"


@cache
def formats() -> tuple[str, ...]:
    """Return those of FORMATS that this PIL has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def to_pixels(image: Image.Image, image_size: int, resize: str = "squash", bits: int = 16) -> npt.NDArray[np.uint8]:
    """Return an opened image as uint8 [H, W, 3], without EXIF rotation.

    Args:
        image: opened, of any mode.
        image_size: height and width in pixels.
        resize: `squash`, `crop` or `pad`.
        bits: of 16-bit grey that are used.

    Returns:
        RGB, in [0, 255]; grey is repeated, and transparency is dropped.

    Raises:
        ValueError: its pixels have more than 16 bits, or are floating-point numbers. PIL raises other errors for damaged files.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion turns all above 255 white
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("more than 16 bits a pixel")
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels of unknown range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns otherwise
    if image.mode != "RGB":
        image = image.convert("RGB")
    size = (image_size, image_size)
    if image.size != size:
        if resize == "squash":
            image = image.resize(size, Image.Resampling.BILINEAR)
        else:
            image = (ImageOps.fit if resize == "crop" else ImageOps.pad)(image, size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _check_size(image: Image.Image) -> None:
    """Refuse an image that would take gigabytes, before it is decoded: a file of a few kB can say that it has any size.

    Raises:
        ValueError: it has more than LARGEST pixels.
    """
    if (pixels := image.width * image.height) > LARGEST:
        raise ValueError(f"it has {pixels:,} pixels, more than {LARGEST:,}")


def _check_scans(image: Image.Image, path: str | BytesIO) -> None:
    """Refuse a progressive JPEG of which a few bytes are a pass over all pixels: 64 kB, which PIL decodes in one call, can be 4,000 passes.

    Raises:
        ValueError: it has more than MOST_SCANS.
    """
    if "progressive" not in image.info:
        return
    content = path.getvalue() if isinstance(path, BytesIO) else Path(path).read_bytes()
    if (scans := content.count(b"\xff\xda")) > MOST_SCANS:  # "start of scan", which occurs in no compressed data
        raise ValueError(f"a progressive JPEG of {scans:,} scans, more than {MOST_SCANS}")


class _TooLong(BaseException):
    """The time of a file is over. No Exception: PIL's readers catch those."""


@contextmanager
def _limited_time() -> Iterator[None]:
    """Raise _TooLong after LONGEST seconds of this process's time, where the system can: in the main thread, not on Windows.

    A decoder is stopped between two of its calls: PIL hands it 64 kB at a time, or, for AVIF, JPEG 2000, TIFF and WebP, the whole file,
    whose time LARGEST limits."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    left = signal.setitimer(signal.ITIMER_VIRTUAL, 0)  # of a caller's own timer, which then goes on
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        signal.setitimer(signal.ITIMER_VIRTUAL, *left)


# uint8 [N, 3, H, W]; position -> reason of files that can't be read; the largest value of 16-bit grey, 0 where there is none
Part: TypeAlias = tuple[npt.NDArray[np.uint8], dict[int, str], int]


def decode_some(paths: Sequence[str | BytesIO], fit: Fit) -> Part:
    """Decode several files.

    Args:
        paths: of the files, or their contents.
        fit: what they become.

    Returns:
        uint8 [N, 3, H, W]; by position the reason of each that can't be read, whose pixels are 0; the largest value of 16-bit grey.
    """
    pixels = np.zeros((len(paths), 3, fit.size, fit.size), np.uint8)
    bad: dict[int, str] = {}
    highest = 0
    for at, path in enumerate(paths):
        try:
            with _limited_time():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` has its own limit
                    image = Image.open(path, formats=formats())
                with image:
                    _check_size(image)
                    _check_scans(image, path)
                    if image.mode.startswith("I"):
                        highest = max(highest, int(np.asarray(image).max(initial=0)))
                    pixels[at] = to_pixels(image, fit.size, fit.resize, fit.bits).transpose(2, 0, 1)
        except MemoryError:
            raise
        except _TooLong:
            bad[at] = f"it takes more than {LONGEST:g} seconds of processor time to decode"
        except Exception as error:  # PIL's readers raise nearly anything: OSError, SyntaxError, struct.error, ...
            known = f"none of the formats {', '.join(formats())}"
            bad[at] = known if isinstance(error, UnidentifiedImageError) else one_line(error)
    return pixels, bad, min(highest, 65535)


def _workers(files: list[File]) -> int:
    """Number of decoding processes: one for each second that a single one would take, up to the number of cores."""
    seconds = len(files) * 160e-6 + sum(file.size for file in files) / 50e6
    return max(1, min(round(seconds), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 16))


def _decode_all(chunks: list[list[str]], fit: Fit, workers: int) -> Generator[Part, None, None]:
    """`decode_some` of each chunk, in order.

    In processes, because threads compete for the interpreter lock on small files (60,000 JPEGs of 32x32 on two cores: 7 s in two
    processes, 10 s in one, 17 s in threads). Not those of multiprocessing, which either forks a caller that may have threads
    or runs its script again, nor those of joblib, which print tracebacks when stopped."""
    if workers == 1:
        yield from (decode_some(paths, fit) for paths in chunks)
        return
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    idle: SimpleQueue[Popen[bytes]] = SimpleQueue()

    def ask(paths: list[str]) -> Part:
        worker = idle.get()
        assert worker.stdin
        assert worker.stdout
        try:
            pickle.dump((paths, fit), worker.stdin)
            worker.stdin.flush()
            answer: Part = pickle.load(worker.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):  # the last: within an answer
            with suppress(OSError):  # else what is still in its buffer breaks the pipe again when it is closed
                worker.stdin.close()
            raise RunFailed(f"a process that reads images ended, near {paths[0]}: out of memory?") from None
        finally:
            idle.put(worker)
        return answer

    with ExitStack() as stack:
        for _ in range(workers):
            command = [sys.executable, "-P", "-c", "from lethe.data.decoding import _serve; _serve()"]
            # -P: no module of the current folder, which may hold anybody's files, is imported
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
            paths, fit = pickle.load(sys.stdin.buffer)
            pickle.dump(decode_some(paths, fit), answers)
            answers.flush()
