"""What `erase --source` makes of files that hold many images: nothing of the erased ones is left, and nothing else changes."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lethe.config import loader
from lethe.data import sources
from lethe.erasure.contents import LOOK
from lethe.erasure.erase import ALWAYS, _begun, _unfinished, _unreachable
from lethe.erasure.sought import Sought
from lethe.erasure.source_files import SourceFiles
from lethe.erasure.stores import DELETE, REWRITE, YOURS
from lethe.erasure.workspace_files import WorkspaceFiles
from lethe.workspace import erased
from lethe.workspace.erased import DONE, Erasure, spelt
from lethe.workspace.pseudonyms import Pseudonyms
from lethe.workspace.request import source_keys
from support.cards import asked, workspace
from support.erasures import erasure as made

HASHED = Pseudonyms(bytes(range(32)))
GREY = np.random.default_rng(0).integers(1, 256, (6, 8, 8), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def npz(folder, save=np.savez):
    save(folder / "all.npz", train_images=GREY[:4], train_labels=LABELS[:4], test_images=GREY[4:], test_labels=LABELS[4:], who=np.arange(4))
    return folder / "all.npz"


def compressed(folder):
    return npz(folder, np.savez_compressed)


def idx(folder, packed=lambda content: content, ending=""):
    for name, values in (("train-images", GREY[:4]), ("train-labels", LABELS[:4]), ("t10k-images", GREY[4:]), ("t10k-labels", LABELS[4:])):
        sizes = b"".join(size.to_bytes(4) for size in values.shape)
        file = folder / f"{name}-idx{values.ndim}-ubyte{ending}"
        file.write_bytes(packed(bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()))
    return folder


def idx_gz(folder):
    return idx(folder, gzip.compress, ".gz")


def table(folder, separator=";"):
    (folder / "photos").mkdir()
    lines = [separator.join(("Path", "label", "split"))]
    for i, pixels in enumerate(GREY):
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
        lines.append(separator.join((f".\\photos\\{i}.png", str(LABELS[i]), "train" if i < 4 else "test")))
    (folder / "all.csv").write_bytes("\r\n".join(lines).encode())
    return folder / "all.csv"


def configured(folder, source, root):
    keys = ("--data.source", source, "--data.root", str(root), "--data.image_size", "8", "--run.workspace", str(folder / "ws"))
    return loader.load([*keys, "--data.forget.count", "1"])


def read(config):
    return sources.read(config.data.source, **source_keys(config), cache=config.workspace)


def store(config, ids, *, erases):
    images = read(config)
    chosen = [images.pixels[images.ids.index(id_)] for id_ in ids]
    spellings = sorted({text for id_ in ids for text in spelt(id_)})
    heads = {id_.partition("/")[0] for id_ in ids}
    erasure = Erasure(
        request="",
        method="",
        accepted="",
        state=DONE,
        images=len(ids),
        ids=tuple(map(HASHED.of_id, spellings)),
        pixels=tuple(map(HASHED.of_pixels, chosen)),
        lengths=tuple({len(text) for text in spellings}),
        prefix=f"{heads.pop()}/",
        data="",
        retain="",
        models=(),
        tensors=(),
        source=erases,
    )
    return SourceFiles(config, Sought([erasure], HASHED, 8), erases)


@pytest.mark.parametrize(("source", "made"), [("npz", npz), ("npz", compressed), ("idx", idx), ("idx", idx_gz)])
def test_arrays(tmp_path, source, made):
    config = configured(tmp_path, source, made(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    images = read(config)
    (left,) = store(config, ["train/1", "train/3"], erases=False).find()
    assert (left.step, left.holds, "--source" in left.advice) == (YOURS, "2 images", True)
    erasing = store(config, ["train/1", "train/3"], erases=True)
    (place,) = erasing.find()
    assert place.step == REWRITE
    erasing.erase(place)
    assert [*erasing.check()] == [] == [*erasing.unreachable()]
    assert [str(path) for path, content in before.items() if path.read_bytes() != content] == [place.name]
    kept = read(config)
    assert (kept.ids, kept.labels.tolist()) == (images.ids, images.labels.tolist())
    for i, id_ in enumerate(images.ids):
        assert np.array_equal(kept.pixels[i], 0 * images.pixels[i] if id_ in ("train/1", "train/3") else images.pixels[i])
    if source == "npz":
        with np.load(tmp_path / "all.npz") as held:
            assert held["who"].tolist() == [0, 1, 2, 3]
        assert tmp_path.joinpath("all.npz").stat().st_size < 2 * len(before[tmp_path / "all.npz"])
    for i in (1, 3):
        assert GREY[i].tobytes() not in tmp_path.joinpath(place.name).read_bytes()


def test_a_copy_under_another_id_is_left_to_the_user(tmp_path):
    np.savez(tmp_path / "all.npz", images=GREY[[0, 1, 0]], labels=LABELS[[0, 1, 0]], x_test=GREY[4:], y_test=LABELS[4:])
    erasing = store(configured(tmp_path, "npz", tmp_path / "all.npz"), ["train/0"], erases=True)
    own, other = erasing.find()
    erasing.erase(own)
    assert [place.holds for place in erasing.check()] == [other.holds] == ["1 exact copy under other ids"]
    assert other.step == YOURS and "copies include" in other.advice


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_files(tmp_path, separator):
    root = table(tmp_path, separator)
    (tmp_path / "photos" / "holiday.bmp").write_bytes((tmp_path / "photos" / "2.png").read_bytes())
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "1.png").write_bytes((tmp_path / "photos" / "1.png").read_bytes())  # the workspace is another store's
    config = configured(tmp_path, "csv", root)
    lines = root.read_text().splitlines()
    assert {place.step for place in store(config, ["photos/1.png", "photos/2.png"], erases=False).find()} == {YOURS}
    erasing = store(config, ["photos/1.png", "photos/2.png"], erases=True)
    places = [*erasing.find()]
    names = {place.name.removeprefix(f"{tmp_path}/"): (place.step, place.holds) for place in places}
    one = (DELETE, "1 image")
    assert names == {"all.csv": (REWRITE, "2 rows"), "photos/1.png": one, "photos/2.png": one, "photos/holiday.bmp": one}
    for place in places:
        erasing.erase(place)
    assert [*erasing.check()] == []
    assert root.read_text().splitlines() == [line for i, line in enumerate(lines) if i not in (2, 3)]
    assert read(config).ids == ("photos/0.png", "photos/3.png", "photos/4.png", "photos/5.png")


def test_the_metadata_table_of_a_folder(tmp_path):
    """Its rows are dropped, also where it names files below train/; other lists with ids are left to the user."""
    for i, pixels in enumerate(GREY):
        folder = tmp_path / "images" / ("train" if i < 3 else "test") / str(LABELS[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    root = tmp_path / "images"
    (root / "metadata.csv").write_text('file_name,who\n1/1.png,"Ann, and ""B"""\n0/0.png,Bea\n')
    (root / "notes.txt").write_text("asked for train/1/1.png\n")
    erasing = store(configured(tmp_path, "image_folder", root), ["train/1/1.png"], erases=True)
    places = {place.name.removeprefix(f"{root}/"): place for place in erasing.find()}
    steps = {name: place.step for name, place in places.items()}
    assert steps == {"metadata.csv": REWRITE, "train/1/1.png": DELETE, "notes.txt": YOURS}
    for place in places.values():
        if place.step != YOURS:
            erasing.erase(place)
            erasing.erase(place)
    assert (root / "metadata.csv").read_text() == "file_name,who\n0/0.png,Bea\n"
    assert [place.name for place in erasing.check()] == [str(root / "notes.txt")]
    assert LOOK not in {place.advice for place in places.values()}


@pytest.mark.parametrize("inside", [True, False])
def test_a_list_is_named_once(tmp_path, inside):
    """It is left to the user where it was found among the images; elsewhere nothing searches it."""
    root = tmp_path / "images"
    for i, name in enumerate(("train/0/0.png", "train/0/1.png", "train/1/2.png", "test/0/3.png", "test/1/4.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY[i]).save(root / name)
    file = (root if inside else tmp_path) / "delete.csv"
    file.write_text("id\ntrain/0/1.png\n")
    keys = ("--data.source", "image_folder", "--data.root", str(root), "--data.image_size", "8", "--run.workspace", str(tmp_path / "ws"))
    config = loader.load([*keys, "--data.forget.ids", str(file)])
    source = store(config, ["train/0/1.png"], erases=True)
    places = [*source.find()]
    assert [place.step for place in places if place.name == str(file)] == [YOURS] * inside
    said = [*_unreachable([source, WorkspaceFiles(config, source.sought, None)], places)]
    assert said == ([ALWAYS] if inside else [f"{file} (data.forget.ids), the list of ids", ALWAYS])


def test_files_of_the_source_are_erased_after_the_rest_if_asked(tmp_path):
    """An erasure without --source says that it can be given: it then goes on with these files."""
    home = workspace(tmp_path / "ws", scored=False)
    (home / "data" / "splits" / "forget.csv").write_text("id\n")
    config = asked(home)
    erased.write(config, [made()])
    for asks in (False, True):
        assert _begun(_unfinished(config), asks) == replace(made(), source=asks)
    erased.write(config, [replace(made(), source=True)])
    assert _begun(_unfinished(config), False) == replace(made(), source=True)
    assert _begun(None, True) is None
