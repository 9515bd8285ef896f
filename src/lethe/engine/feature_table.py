"""Features of frozen layers, one row for each image: in memory, or where they are many in a file that takes none.

N images, B batch, D bytes of a row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lethe._util.errors import RunFailed
from lethe.data import pixel_store
from lethe.data.device_data import Data, RawInputs
from lethe.data.pixel_store import Pages, Pixels, Rows


class FeatureTable(Protocol):
    """A table that is filled by rows and then read as inputs."""

    def put(self, index_B: Tensor, features_B: Tensor) -> None:
        """Set rows: features [B, ...] for int64 indices [B]."""

    def inputs(self) -> RawInputs:
        """The table as the data that an epoch steps on."""


def feature_table(data: Data, like: Tensor, folder: Path | None, most: int = pixel_store.IN_MEMORY) -> tuple[FeatureTable, str]:
    """Make room for the features of all images.

    Args:
        data: the images; the table gets its labels, and its splits without test.
        like: features of one image, [1, ...], whose shape and type the table takes.
        folder: where a file without a name may be made, for features on the CPU; None: they stay in memory.
        most: bytes up to which they stay in memory.

    Returns:
        The table, and why there is no file although there should be one: a line to log, or "".
    """
    size = len(data.labels_N) * like.nbytes
    if folder is None or like.device.type != "cpu" or size <= most:
        return _InMemory(data, like), ""
    try:
        rows_ND = pixel_store.empty((len(data.labels_N), like.nbytes), folder, most)
    except RunFailed as error:  # the same sums, only in memory
        return _InMemory(data, like), f"features of frozen layers stay in memory: {error}"
    return _InFile(data, like, rows_ND, most), ""


def _splits(data: Data) -> dict[str, Tensor]:
    return {name: index for name, index in data.splits.items() if name != "test"}


class _InMemory:
    """A tensor on the data's device."""

    def __init__(self, data: Data, like: Tensor) -> None:
        form = torch.channels_last if data.channels_last and like.ndim == 4 else torch.contiguous_format
        self._data = data
        self._table = like.new_empty((len(data.labels_N), *like.shape[1:])).to(memory_format=form)

    def put(self, index_B: Tensor, features_B: Tensor) -> None:
        self._table[index_B] = features_B

    def inputs(self) -> RawInputs:
        data = self._data
        return RawInputs(self._table, data.labels_N, _splits(data), data.mean, data.std, data.channels_last)


class _InFile:
    """Rows of bytes: NumPy knows no bfloat16. Written through the map, whose pages are released, and read by reads of the file."""

    def __init__(self, data: Data, like: Tensor, rows_ND: Pixels, most: int) -> None:
        self._data, self._rows_ND, self._most, self._pages = data, rows_ND, most, Pages(rows_ND, most)
        self._row = _Row(tuple(like.shape[1:]), like.dtype, data.channels_last)

    def put(self, index_B: Tensor, features_B: Tensor) -> None:
        rows_BD = self._row.as_bytes(features_B)
        self._rows_ND[index_B.numpy()] = rows_BD
        self._pages.touched(rows_BD.nbytes)

    def inputs(self) -> RawInputs:
        self._pages.release()
        data, table = self._data, self._row.as_features(pixel_store.as_tensor(self._rows_ND))
        stored = Rows(self._rows_ND, self._most)
        return _FeaturesInFile(table, data.labels_N, _splits(data), data.mean, data.std, data.channels_last, stored=stored, row=self._row)


@dataclass(frozen=True)
class _Row:
    """How the features of an image are laid out as bytes: as they lie in memory, in channels-last format height, width, channels.

    Where both formats are the same order of values a tensor has the strides of the other one, by which torch chooses how it computes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @property
    def _permuted(self) -> bool:
        return self.channels_last and len(self.shape) == 3 and self.shape[0] > 1 and self.shape[1] * self.shape[2] > 1

    def as_bytes(self, features_B: Tensor) -> Pixels:
        """uint8 [B, D] of features [B, ...]."""
        values = features_B.permute(0, 2, 3, 1) if self._permuted else features_B
        found: Pixels = values.reshape(len(features_B), -1).view(torch.uint8).numpy()
        return found

    def as_features(self, rows_BD: Tensor) -> Tensor:
        """Features [B, ...] of bytes uint8 [B, D], which they share."""
        values = rows_BD.view(self.dtype)
        if not self._permuted:
            return values.view(-1, *self.shape)
        channels, height, width = self.shape
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _FeaturesInFile(RawInputs):
    """Inputs that are read from the file of a table: `images_NCHW` is its map, of which nothing is read."""

    row: _Row = _Row((), torch.float32, False)

    def _pixels(self, index_B: Tensor) -> Tensor:
        assert self.stored is not None
        return self.row.as_features(torch.from_numpy(self.stored[index_B.numpy()]))
