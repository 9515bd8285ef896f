"""Every built-in data source under contract."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from lethe.data import cifar10
from lethe.data.sources import BUILT_IN, SourceOptions
from lethe.testing import DataSourceContract


class TestDigits(DataSourceContract):
    source = "digits"


class TestImageFolder(DataSourceContract):
    source = "image_folder"

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        draw = np.random.default_rng(0)
        for part, count in (("train", 4), ("test", 2)):
            for name in ("cat", "dog", "emu"):
                (tmp_path / "own" / part / name).mkdir(parents=True)
                for i in range(count):
                    pixels = draw.integers(0, 256, (20, 30, 3), np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "own" / part / name / f"{i}.png")
        return SourceOptions(root=tmp_path / "own", image_size=16)


class TestCsv(DataSourceContract):
    source = "csv"

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        rows = []
        for i in range(18):
            name, split = f"{i}.png", "train" if i < 12 else "test"
            Image.new("RGB", (20, 30), (10 * i, 0, 0)).save(tmp_path / name)
            rows.append(f"{name},{('cat', 'dog', 'emu')[i % 3]},{split}\n")
        (tmp_path / "own.csv").write_text("path,label,split\n" + "".join(rows))
        return SourceOptions(root=tmp_path / "own.csv", image_size=16)


def _arrays() -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    draw, labels = np.random.default_rng(0), np.arange(18, dtype=np.uint8) % 3
    images = draw.integers(0, 256, (18, 8, 8), np.uint8)
    return {"train_images": images[:12], "train_labels": labels[:12], "test_images": images[12:], "test_labels": labels[12:]}


class TestNpz(DataSourceContract):
    source = "npz"

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        arrays: dict[str, Any] = _arrays()
        np.savez(tmp_path / "own.npz", **arrays)
        return SourceOptions(root=tmp_path / "own.npz", image_size=16)


class TestIdx(DataSourceContract):
    source = "idx"

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        for name, values in _arrays().items():
            part, kind = name.split("_")
            file = f"{'train' if part == 'train' else 't10k'}-{kind}-idx{values.ndim}-ubyte"
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (tmp_path / file).write_bytes(header + values.tobytes())
        return SourceOptions(root=tmp_path, image_size=16)


class TestHuggingface(DataSourceContract):
    source = "huggingface"

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        arrays = _arrays()
        for part in ("train", "test"):
            column = [{"bytes": _png(pixels), "path": None} for pixels in arrays[f"{part}_images"]]
            names = [("cat", "dog", "emu")[label] for label in arrays[f"{part}_labels"]]
            images = pa.array(column, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
            parquet.write_table(pa.table({"image": images, "label": names}), tmp_path / f"{part}-00000-of-00001.parquet")
        return SourceOptions(root=tmp_path, image_size=16)


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.slow
class TestCifar10(DataSourceContract):
    """Of an archive of its form and size: black images, ten classes."""

    source = "cifar10"

    @pytest.fixture(scope="class")
    @classmethod
    def archive(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("cifar10") / "cifar-10-batches-py"
        folder.mkdir()
        batch = pickle.dumps({"data": np.zeros((10_000, 3072), np.uint8), "labels": [i % 10 for i in range(10_000)]})
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (folder / name).write_bytes(batch)
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(cifar10.CLASSES)}))
        return folder

    @pytest.fixture
    def options(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
        from torchvision.datasets import CIFAR10

        sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in archive.iterdir()}
        monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
        monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
        return SourceOptions(root=archive.parent)


def test_every_built_in_source_is_under_contract() -> None:
    contracts = (TestDigits, TestImageFolder, TestCsv, TestNpz, TestIdx, TestHuggingface, TestCifar10)
    assert {contract.source for contract in contracts} == set(BUILT_IN)
