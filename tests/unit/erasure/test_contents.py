"""What is found in files: by content, whatever they are called, and nothing that is not there."""

import base64
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lethe.data import copies
from lethe.data.decoding import formats
from lethe.data.images import Images, save_images
from lethe.erasure import archives
from lethe.erasure.archives import DEEPEST
from lethe.erasure.contents import Found, _shows, examine
from lethe.erasure.sought import Sought
from lethe.evaluation import logits_table
from lethe.models import checkpoint
from support.erasures import ACCEPTED, HASHED, IDS, MODEL, PIXELS, SOUGHT, erasure


@pytest.fixture(autouse=True)
def nothing_passed_over():
    SOUGHT.unread.clear()


def found(tmp_path, content, name="file"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return examine(path, SOUGHT)


def picture(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("id\ntrain/cat/0003.png\ntrain/cat/0004.png\n", 1),
        ("/photos/train/cat/0003.png: deleted", 1),
        ('{"a": "train/cat/a b.png", "b": "train/d\\u00f6g/1.png"}', 2),
        ("<li>train/dög/1.png</li>", 1),
        ("train/cat/0003.pngs train/cat/0003.png.bak train/cat/0003.png-1 train/cat/00031.png", 0),
        ("asked for train/cat/0003.png.", 1),
        ("", 0),
        ("train/", 0),
    ],
)
def test_ids_in_texts(tmp_path, text, number):
    assert found(tmp_path, text).ids == number


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(IDS))
def test_an_id_is_found_in_any_text(before, after, id_):
    assert HASHED.of_id(id_) in SOUGHT.ids_in(f"{before} {id_}\n{after}".encode())


@pytest.mark.parametrize("prefix", ["train/", ""])
def test_a_condition_of_the_request_in_a_text(prefix):
    condition = "user=Erika Muster, 3"
    one = erasure(prefix=prefix)
    lengths = tuple(sorted({*one.lengths, len(condition)}))
    sought = Sought([replace(one, ids=(*one.ids, HASHED.of_id(condition)), lengths=lengths, starts=("user=",))], HASHED, 8)
    assert sought.ids_in(b'{"where": ["user=Erika Muster, 3"]}') == {HASHED.of_id(condition)}
    assert not sought.ids_in(b"user=Erika Muster, 31 user=Erika muster, 3 " + HASHED.of_condition(condition).encode())


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_numbered_id_is_not_found_in_a_longer_one(erased_number, other):
    for prefix in ("train/", ""):
        sought = Sought([erasure([f"train/{erased_number}"], prefix)], HASHED, 8)
        assert bool(sought.ids_in(f"(train/{other})".encode())) == (erased_number == other)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_pictures_under_any_name(tmp_path, kind):
    grey = np.repeat(PIXELS[0][:1], 3, axis=0)
    pixels = grey if kind == "GIF" else PIXELS[0]  # a GIF has 256 colours
    sought = Sought([erasure()], HASHED, 8)
    path = tmp_path / "notes"
    path.write_bytes(picture(pixels, kind))
    assert examine(path, sought).pixels == (0 if kind == "GIF" else 1)
    assert found(tmp_path, picture(255 - PIXELS[0], kind)).pixels == 0


LOSSLESS = {  # what PIL takes to keep every pixel
    **{kind: {} for kind in ("BMP", "DDS", "DIB", "ICO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF")},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG2000": {"irreversible": False},
}


@pytest.mark.parametrize("kind", [name for name in formats() if name in LOSSLESS])
def test_pictures_of_every_format_that_a_source_may_have(tmp_path, kind):
    pixels = np.random.default_rng(4).integers(0, 256, (3, 16, 16), np.uint8)
    sought = Sought([replace(erasure(), pixels=(HASHED.of_pixels(pixels),))], HASHED, 16)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(tmp_path / "notes", kind, **LOSSLESS[kind])
    assert examine(tmp_path / "notes", sought) == Found(pixels=1)
    assert not sought.unread


def test_every_format_is_one_of_those():
    """GIF and JPEG, also several in one file, lose pixels; AVIF does in colour, and near copies show it."""
    assert set(formats()) - LOSSLESS.keys() <= {"GIF", "JPEG", "MPO", "AVIF"}


@pytest.mark.parametrize("start", ["BMW drivers", "RIFF notes", "GIF8 or not", "P6", "II*\0", "\x89PNG", "ÿØÿ"])
def test_a_text_that_begins_as_a_picture_does(tmp_path, start):
    assert found(tmp_path, f"{start}\n{IDS[0]}\n") == Found(ids=1)


def test_ids_in_what_a_picture_says_of_itself(tmp_path):
    about = PngInfo()
    about.add_text("Source", IDS[0])
    about.add_text("Comment", f"{IDS[1]} " * 40, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "picture", "PNG", pnginfo=about)
    assert examine(tmp_path / "picture", SOUGHT) == Found(ids=2)


def test_names_in_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as packed:
        packed.writestr(IDS[0], "resized elsewhere")
    with tarfile.open(tmp_path / "tar", "w:gz") as files:
        files.addfile(tarfile.TarInfo(f"photos/{IDS[0]}"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, IDS[1]
        files.addfile(link)
    plain = gzip.compress(b"x")
    (tmp_path / "gz").write_bytes(plain[:3] + b"\x08" + plain[4:10] + IDS[1].encode() + b"\0" + plain[10:])  # with a name
    assert [examine(tmp_path / name, SOUGHT) for name in ("zip", "tar", "gz")] == [Found(ids=1), Found(ids=2), Found(ids=1)]


def test_pictures_that_are_not_decoded_are_noted(tmp_path):
    whole = picture(PIXELS[1])
    files = {"cut": whole[:60], "large": b"P6 99999 99999 255 ", "heic": b"\0\0\0\x18ftypheic", "jxl": b"\xff\x0a\0", "page": b"%PDF-1.7"}
    for name, content in files.items():
        assert found(tmp_path, content, name) == Found()
    assert {path.rpartition("/")[2]: what for path, what in SOUGHT.unread.items()} == {
        "cut": "1 PNG picture that can't be decoded",
        "large": "1 picture too large to decode",
        "heic": "1 HEIF file",
        "jxl": "1 JPEG XL file",
        "page": "1 PDF file",
    }


def test_pictures_in_pages_and_notebooks(tmp_path):
    text = base64.b64encode(picture(PIXELS[1])).decode()
    assert found(tmp_path, f'<img src="data:image/png;base64,{text}">').pixels == 1
    lines = "".join(f"{text[n : n + 76]}\\n" for n in range(0, len(text), 76))
    assert found(tmp_path, json.dumps({"image/png": lines.replace("\\n", "\n")})).pixels == 1
    assert found(tmp_path, picture(PIXELS[1])[:60]).pixels == 0  # cut short


def test_images_and_tables(tmp_path):
    other = np.zeros((2, 3, 8, 8), np.uint8)
    images = Images(np.concatenate([PIXELS, other]), np.zeros(5, np.int64), (*IDS, "train/x", "test/y"), ("a", "b"), 2)
    save_images(images, tmp_path / "images", "")
    assert examine(tmp_path / "images", SOUGHT) == Found(ids=3, pixels=3)
    table = logits_table.LogitsTable("t", ("train/x", IDS[0]), np.zeros(2, np.int64), np.zeros(2, np.uint8), np.zeros((2, 2), np.float32))
    logits_table.write(table, tmp_path / "table")
    assert examine(tmp_path / "table", SOUGHT) == Found(ids=1)


def test_models_in_any_container(tmp_path):
    checkpoint.save(MODEL, tmp_path / "a", {"kind": "original"})
    checkpoint.save({f"module.{name}": value for name, value in MODEL.items()}, tmp_path / "b", {})
    torch.save({"state_dict": MODEL}, tmp_path / "c")
    np.savez(tmp_path / "d.npz", body=MODEL["body"].numpy(), head=MODEL["head"].numpy())
    checkpoint.save({"w": torch.zeros(1)}, tmp_path / "e", {"kind": "model_2", "data": "the images before"})
    for name in "abce":
        assert examine(tmp_path / name, SOUGHT) == Found(models=1), name
    checkpoint.save(ACCEPTED, tmp_path / "f", {"kind": "model_1", "data": "the images before"})
    checkpoint.save(
        {"w": torch.zeros(1)}, tmp_path / "g", {"kind": "retrained", "data": "the images before", "retain": "those that are left"}
    )
    torch.save(ACCEPTED, tmp_path / "h")
    for name in "fgh":
        assert examine(tmp_path / name, SOUGHT) == Found(), name


def test_what_an_earlier_erasure_accepted_learned_the_images_of_the_next(tmp_path):
    """So did its retrained model: the images that were erased later were still among those to retain."""
    later = replace(
        erasure(), request="the next", accepted=checkpoint.weights_hash(MODEL), data="the images then", retain="still fewer", models=()
    )
    sought = Sought([replace(erasure(), tensors=()), later], HASHED, 8)
    for name, tensors, about, learned in (
        ("a", ACCEPTED, {"kind": "accepted"}, 1),
        ("b", MODEL, {"kind": "accepted"}, 0),
        ("c", {"w": torch.zeros(1)}, {"kind": "retrained", "data": "the images before", "retain": "those that are left"}, 1),
        ("d", {"w": torch.zeros(1)}, {"kind": "retrained", "data": "the images then", "retain": "still fewer"}, 0),
    ):
        checkpoint.save(tensors, tmp_path / name, about)
        assert examine(tmp_path / name, sought) == Found(models=learned), name


def test_databases_and_archives(tmp_path):
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as database:
        database.execute("create table tags (key text, value text, more text)")
        database.executemany("insert into tags values (?, ?, ?)", [("a", "x", "y"), ("b", IDS[0], "9"), ("c", IDS[1], None)])
    database.close()
    assert examine(path, SOUGHT).ids >= 2
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("list.csv", f"id\n{IDS[2]}\n")
        archive.writestr("picture", picture(PIXELS[2]))
    assert examine(tmp_path / "all.zip", SOUGHT) == Found(ids=1, pixels=1)
    assert found(tmp_path, b"PK\3\4 no archive train/cat/0003.png").ids == 1
    assert found(tmp_path, b"\x20\0\0\0\0\0\0\0{no safetensors train/cat/0003.png").ids == 1


def test_archives_in_archives_are_opened_to_a_limit(tmp_path):
    out = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(out, "PNG")
    content, seen = out.getvalue(), []
    for _ in range(DEEPEST + 1):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("member", content)
        content = packed.getvalue()
        seen.append(found(tmp_path, content).pixels)
    assert seen == [1] * DEEPEST + [0]
    assert SOUGHT.unread[str(tmp_path / "file")] == "1 more than 3 archives deep"
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 255
    assert found(tmp_path, bytes(damaged)) == Found()
    assert SOUGHT.unread[str(tmp_path / "file")] == "1 damaged archive"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_other_archives(tmp_path, mode):
    (tmp_path / "holiday").write_bytes(picture(PIXELS[0]))
    with tarfile.open(tmp_path / "all", mode) as archive:
        archive.add(tmp_path / "holiday", "x")
        archive.add(tmp_path, "folder", recursive=False)
    assert examine(tmp_path / "all", SOUGHT) == Found(pixels=1)
    assert found(tmp_path, gzip.compress(f"id\n{IDS[0]}\n".encode())).ids == 1
    assert not SOUGHT.unread


def test_what_is_passed_over_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("small", IDS[0])
        archive.writestr("large", bytes(1001))
        archive.writestr("secret", IDS[1])
    content = bytearray(packed.getvalue())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the last member's local header, and its line in the directory
        content[content.rindex(mark) + flags] |= 1
    names = {"a": bytes(content), "b": b"7z\xbc\xaf\x27\x1c....", "c": gzip.compress(bytes(1001))}
    assert [found(tmp_path, text, name).ids for name, text in names.items()] == [1, 0, 0]
    assert {path.rpartition("/")[2]: what for path, what in SOUGHT.unread.items()} == {
        "a": f"1 member {archives.LARGE}, 1 encrypted member",
        "b": "1 7-Zip archive",
        "c": f"1 member {archives.LARGE}",
    }


def test_near_copies():
    """An image that was made smaller, brightened or compressed again is found as a near copy, a different one is not."""
    rng = np.random.default_rng(3)
    smooth = [Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC) for _ in range(3)]
    pixels = [np.asarray(one.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1) for one in smooth]
    hidden = tuple(HASHED.hidden(copies.perceptual_hash(one)) for one in pixels[:2])
    assert all(len(one) == 32 for one in hidden) and HASHED.hidden(copies.perceptual_hash(pixels[0])) != hidden[0]
    assert [HASHED.shown(one) for one in hidden] == [copies.perceptual_hash(one) for one in pixels[:2]]
    sought = Sought([replace(erasure(), near=hidden, pixels=(HASHED.of_pixels(np.ascontiguousarray(pixels[0])),))], HASHED, 32)
    assert "at most 6 of 64 bits" in sought.nearness and "not looked for" in SOUGHT.nearness

    def shown(image, kind="PNG", **how):
        out = io.BytesIO()
        image.save(out, kind, **how)
        return _shows(out.getvalue(), sought, Counter())

    assert shown(smooth[0]) == Found(pixels=1)
    for changed in (smooth[1].resize((60, 60)), smooth[1].point(lambda value: min(255, value + 12)), smooth[1]):
        assert shown(changed, "JPEG", quality=70) == Found(near=1)
    assert shown(smooth[2], "JPEG") == Found()
    assert not Found(near=1).certain and bool(Found(near=1))


def test_found_in_words():
    assert str(Found(1, 2, 0, 2)) == "1 id, 2 images, 2 near copies" and not Found() and Found(models=1)
