"""scikit-learn's bundled digits as a data source: no download, no folder."""

import numpy as np
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
    from sklearn.datasets import load_digits  # takes seconds to import

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))  # RandomState: frozen over numpy's versions
    grey = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(g).resize((32, 32), Image.Resampling.BILINEAR)) for g in grey])
    pixels = np.repeat(large[:, None], 3, axis=1)
    held_out = len(order) - TRAIN
    ids = [f"train/{i}" for i in range(TRAIN)] + [f"test/{i}" for i in range(held_out)]
    classes = tuple(str(name) for name in bunch.target_names)
    return Images(pixels, bunch.target[order].astype(np.int64), tuple(ids), classes, held_out)
