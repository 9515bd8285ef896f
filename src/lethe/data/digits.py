"""scikit-learn's bundled digits as a data source: no download, no folder."""

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lethe.data.images import Images
from lethe.data.sources import SourceOptions, register_data_source

TRAIN = 1297  # of the 1,797; 500 are held out
PER_CLASS = (132, 130, 125, 133, 121, 145, 130, 121, 131, 129)  # of those


def _nothing(options: SourceOptions) -> list[str]:
    """They are part of scikit-learn, and never change."""
    return []


def _counts(options: SourceOptions) -> dict[str, int]:
    return dict(zip("0123456789", PER_CLASS, strict=True))


@register_data_source("digits", listing=_nothing, counts=_counts, image_size=32, near_copies=False)
def read_digits(options: SourceOptions) -> Images:
    """scikit-learn's 1,797 digits of 8x8 pixels, enlarged to 3x32x32; the last 500, after a fixed shuffle, are held out.

    They are sorted by writer, hence the shuffle."""
    drawings, digit = bundled()
    order = np.random.RandomState(0).permutation(len(digit))  # RandomState: frozen over numpy's versions
    grey = np.round(drawings[order] * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(g).resize((32, 32), Image.Resampling.BILINEAR)) for g in grey])
    pixels = np.repeat(large[:, None], 3, axis=1)
    held_out = len(order) - TRAIN
    ids = [f"train/{i}" for i in range(TRAIN)] + [f"test/{i}" for i in range(held_out)]
    return Images(pixels, digit[order], tuple(ids), tuple("0123456789"), held_out)


def bundled() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read the file that scikit-learn's `load_digits` reads, where it is in its place: importing scikit-learn takes a second, before the
    first step of a command on digits.

    Returns:
        Images float64 [1797, 8, 8], 0 to 16, and their digits int64 [1797].
    """
    found = importlib.util.find_spec("sklearn")
    file = Path(found.origin or "").parent / "datasets/data/digits.csv.gz" if found else None
    if file is None or not file.exists():
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target.astype(np.int64)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
