"""Hugging Face datasets on disk, as `datasets` 5.2.0 writes them: the same Arrow files, schema metadata and JSON, without the package."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from lethe._util.errors import UserError
from lethe.data import sources
from lethe.data.images import Images
from lethe.data.sources import Reading

SIZE = 8
NAMES = ["ant", "bee", "cat"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}


def pictures(number: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (number, SIZE, SIZE, 3), dtype=np.uint8)


def png(pixels: npt.NDArray[Any]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def table(images: npt.NDArray[Any], labels: list[Any], features: Any = FEATURES, **more: list[Any]) -> pa.Table:
    column = pa.array([{"bytes": png(image), "path": None} for image in images], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    made = pa.table({**more, "image": column, "label": labels})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})} if features else None)


def save(made: pa.Table, folder: Path, shards: int = 1, **state: Any) -> None:
    """As save_to_disk."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-{shards:05}.arrow" for n in range(shards)]
    step = -(-len(made) // shards)
    for n, name in enumerate(names):
        part = made.slice(n * step, step)
        with pa.ipc.new_stream(folder / name, part.schema) as writer:
            writer.write_table(part, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **state}))


def read(root: Path, share: float | None = None, **more: Any) -> Images:
    return sources.read("huggingface", root=root, image_size=SIZE, limit=None, cache=root, reading=Reading(held_out=share, **more))


def refusal(root: Path, share: float | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(root, share)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", ["saved", "parquet", "arrow file"])
def test_splits_rows_and_classes_are_the_dataset_s_own(layout: str, tmp_path: Path) -> None:
    train, test = pictures(7), pictures(3, 1)
    tables = {"train": table(train, [0, 1, 2, 0, 1, 2, 2], person=["a"] * 7), "test": table(test, [2, 1, 0], person=["b"] * 3)}
    if layout == "saved":
        for name, shards in (("train", 2), ("test", 1)):
            save(tables[name], tmp_path / "d" / name, shards)
        (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    else:
        (tmp_path / "d" / "data").mkdir(parents=True)
        for name, made in tables.items():
            path = tmp_path / "d" / "data" / f"{name}-00000-of-00001"
            if layout == "parquet":
                parquet.write_table(made, path.with_suffix(".parquet"))
            else:
                with pa.ipc.new_file(path.with_suffix(".arrow"), made.schema) as writer:
                    writer.write_table(made)
    images = read(tmp_path / "d")
    assert images.classes == tuple(NAMES) and images.held_out == 3
    assert images.ids == (*(f"train/{n}" for n in range(7)), *(f"test/{n}" for n in range(3)))
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 2, 1, 0]
    assert np.array_equal(images.pixels, np.concatenate([train, test]).transpose(0, 3, 1, 2))
    counted = sources.class_counts("huggingface", root=tmp_path / "d", image_size=SIZE, limit=None, cache=tmp_path)
    assert counted == {"ant": 2, "bee": 2, "cat": 3}


def test_a_share_of_train_alone_is_held_out(tmp_path: Path) -> None:
    save(table(pictures(12), ["cat", "dog"] * 6, features=None), tmp_path / "d")
    images = read(tmp_path / "d", 0.5)
    assert images.classes == ("cat", "dog") and images.held_out == 6 and {id_.partition("/")[0] for id_ in images.ids} == {"train"}
    assert "it has train alone" in refusal(tmp_path / "d")


def test_images_that_cannot_be_read_are_named_or_left_out(tmp_path: Path) -> None:
    made = table(pictures(6), [0, 1, 2] * 2)
    broken = made["image"].to_pylist()
    broken[1], broken[4] = {"bytes": b"no image", "path": None}, {"bytes": None, "path": "gone.png"}
    save(made.set_column(0, made.schema.field("image"), pa.array(broken, made.schema.field("image").type)), tmp_path / "d")
    said = refusal(tmp_path / "d", 0.3)
    assert "2 images can't be read" in said and "train/1, train/4" in said
    kept = sorted(read(tmp_path / "d", 0.4, skip_unreadable=True).ids)
    assert kept == ["train/0", "train/2", "train/3", "train/5"]


def test_sixteen_bit_grey_is_scaled_by_its_range(tmp_path: Path) -> None:
    grey = np.full((4, SIZE, SIZE), 4095, np.uint16)
    save(table(grey, [0, 1] * 2), tmp_path / "d")
    assert read(tmp_path / "d", 0.5).pixels.max() == 255


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("empty", "no dataset"),
        ("missing", "no such file or folder"),
        ("cut", "can't be read"),
        ("selection", "is a selection of rows that are kept elsewhere"),
        ("label", "(a label is 7); it takes 0 to 2"),
        ("no label", "no column of labels in image, kind"),
        ("no image", "no column of images in label"),
        ("no state", "state.json can't be read"),
    ],
)
def test_what_is_none_is_one_line(damage: str, says: str, tmp_path: Path) -> None:
    folder, made = tmp_path / "d", table(pictures(6), [0, 1, 2] * 2)
    if damage == "empty":
        folder.mkdir()
    elif damage == "label":
        save(table(pictures(3), [0, 1, 7]), folder)
    elif damage == "no label":
        save(made.rename_columns(["image", "kind"]).replace_schema_metadata(None), folder)
    elif damage == "no image":
        save(made.select(["label"]).replace_schema_metadata(None), folder)
    elif damage != "missing":
        save(made, folder, 1, **({"_indices_files": [{"filename": "indices.arrow"}]} if damage == "selection" else {}))
    if damage == "cut":
        (file,) = folder.glob("*.arrow")
        file.write_bytes(file.read_bytes()[:100])
    if damage == "no state":
        (folder / "state.json").write_text("{")
    assert says in refusal(folder, 0.3)
