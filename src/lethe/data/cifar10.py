"""CIFAR-10 as a data source: downloaded once, checksums verified each time."""

from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import numpy as np

from lethe._util.errors import RunFailed, UserError
from lethe._util.files import atomic_write
from lethe._util.log import log
from lethe._util.network import network
from lethe.data.images import Images
from lethe.data.progress_bar import progress_bar
from lethe.data.sources import SourceOptions, register_data_source

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _nothing(options: SourceOptions) -> list[str]:
    """The archive's checksum is known, so its images never change."""
    return []


def _counts(options: SourceOptions) -> dict[str, int]:
    return dict.fromkeys(CLASSES, 5000)


@register_data_source("cifar10", listing=_nothing, counts=_counts, image_size=32)
def read_cifar10(options: SourceOptions) -> Images:
    """CIFAR-10 (Krizhevsky 2009): 50,000 train and 10,000 held-out images; downloaded to data.root, or the cache, when missing.

    Raises:
        UserError: it is missing and can't be downloaded.
        RunFailed: the folder can't be written.
    """
    from torchvision.datasets import CIFAR10  # takes seconds to import

    folder = options.root or options.cache
    if folder.name == CIFAR10.base_folder:  # the unpacked archive itself
        folder = folder.parent

    def parts(**download: bool) -> list[Any]:
        return [CIFAR10(folder, train=True, **download), CIFAR10(folder, train=False)]  # checksums verified each time

    try:
        try:
            train, test = parts()
        except RuntimeError:  # missing, or a checksum differs: a half unpacked archive counts as missing
            _download(CIFAR10.url, folder / CIFAR10.filename, CIFAR10.tgz_md5)
            train, test = parts(download=True)
    except OSError as error:
        raise RunFailed(f"{folder} can't hold CIFAR-10: {error.strerror or error}") from error
    pixels = np.concatenate([train.data, test.data]).transpose(0, 3, 1, 2)
    labels = np.array([*train.targets, *test.targets], np.int64)
    ids = [f"train/{i}" for i in range(len(train.data))] + [f"test/{i}" for i in range(len(test.data))]
    return Images(np.ascontiguousarray(pixels), labels, tuple(ids), tuple(train.classes), len(test.data))


def _download(url: str, path: Path, md5: str) -> None:
    """Download an archive, whole or not at all; torchvision's own download has no time limit and leaves a half-written file."""
    from torchvision.datasets.utils import check_integrity

    if check_integrity(path, md5):
        return
    with network(_no_cifar10):
        response = urlopen(Request(url, headers={"User-Agent": "lethe"}), timeout=10)
    with response, atomic_write(path) as temporary:  # the folder is created only once connected
        with temporary.open("wb") as out, progress_bar(download=True) as progress:
            size = response.length or 0
            if progress.disable:
                log(f"downloading CIFAR-10 ({size / 1e6:.0f} MB) to {path}")
            task = progress.add_task("downloading CIFAR-10", total=size or None)
            while chunk := _receive(response):
                out.write(chunk)
                progress.update(task, completed=out.tell())
        if not check_integrity(temporary, md5):
            raise _no_cifar10("the downloaded file has another checksum")


def _receive(response: IO[bytes]) -> bytes:
    with network(_no_cifar10):
        return response.read(1 << 16)


def _no_cifar10(reason: str) -> UserError:
    return UserError(
        f"data.source is cifar10 and it can't be downloaded ({reason}); these need no download: a folder of images, "
        "`--data.source image_folder --data.root <folder>`, and the bundled `--data.source digits`"
    )
