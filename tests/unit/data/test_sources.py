"""Data sources from outside: by decorator, by package.module:function, by entry point; and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lethe
from lethe._util.errors import UserError
from lethe.config import loader
from lethe.data import sources
from lethe.data.images import Images
from lethe.data.sources import SourceOptions

MODULE = """
import numpy as np
import lethe

def digits(options):
    draw = np.random.default_rng(int((options.root / "seed.txt").read_text()))
    return [(draw.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 3) for n in (30, 6)]

def nothing(options):
    return {}["the sky"]

@lethe.register_data_source("outside.named", listing=lambda options: ["fixed"], image_size=8)
def named(options):
    return digits(options)

a_number = 7
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_REGISTERED", dict(sources._REGISTERED))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package `outside_source` with an entry point, and a folder of data."""
    (tmp_path / "outside_source.py").write_text(MODULE)
    (tmp_path / "outside_source-1.dist-info").mkdir()
    (tmp_path / "outside_source-1.dist-info" / "METADATA").write_text("Name: outside_source\nVersion: 1\n")
    points = "[lethe.data_sources]\nsky = outside_source:digits\n"
    (tmp_path / "outside_source-1.dist-info" / "entry_points.txt").write_text(points)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "seed.txt").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "root"
    sys.modules.pop("outside_source", None)


def read(source: str, root: Path | None, image_size: int = 8, limit: int | None = None) -> Images:
    return sources.read(source, root=root, image_size=image_size, limit=limit, cache=Path("never"))


def listing(source: str, root: Path | None) -> str:
    return sources.listing(source, root=root, image_size=8, limit=None)


@pytest.mark.parametrize("source", ["outside_source:digits", "sky", "outside_source:named"])
def test_a_source_of_another_package(outside: Path, source: str) -> None:
    images = read(source, outside)
    assert images.pixels.shape == (36, 3, 8, 8) and images.pixels.flags.c_contiguous
    assert (images.train, images.held_out, images.classes) == (30, 6, ("0", "1", "2"))
    assert (images.ids[29], images.ids[30]) == ("train/29", "test/0")
    assert read(source, outside, limit=2).ids[:7] == (*(f"train/{i}" for i in range(6)), "test/0")
    assert sources.class_counts(source, root=outside, image_size=8, limit=4, cache=Path("never")) == {"0": 4, "1": 4, "2": 4}
    assert loader.load(["--data.source", source]).data.source == source


def test_the_listing_follows_the_files_unless_the_source_has_its_own(outside: Path) -> None:
    first, own = listing("sky", outside), listing("outside_source:named", outside)
    assert listing("sky", outside) == first != listing("outside_source:digits", outside)
    (outside / "seed.txt").write_text("22")
    assert listing("sky", outside) != first
    assert listing("outside_source:named", outside) == own


def test_a_registered_source_without_files_is_listed_by_its_images() -> None:
    seeds = [1]

    @lethe.register_data_source("drawn")
    def drawn(options: SourceOptions) -> Any:
        draw = np.random.default_rng(seeds[0])
        return [(draw.integers(0, 256, (n, 8, 8, 3), np.uint8), np.arange(n) % 2) for n in (8, 4)]

    first = listing("drawn", None)
    assert listing("drawn", None) == first
    assert "drawn" in sources.names() and loader.load(["--data.source", "drawn"]).data.source == "drawn"
    seeds[0] = 2
    assert listing("drawn", None) != first


def pair(**changes: Any) -> Any:
    of: dict[str, Any] = {"shape": (8, 3, 8, 8), "dtype": np.uint8, "labels": np.arange(8) % 2} | changes
    return (np.zeros(of["shape"], of["dtype"]), of["labels"]), (np.zeros((4, 3, 8, 8), np.uint8), np.arange(4) % 2)


def images(**changes: Any) -> Images:
    of = Images(np.zeros((6, 3, 8, 8), np.uint8), np.arange(6) % 2, tuple("abcdef"), ("x", "y"), 2)
    return Images(**{**vars(of), **changes})


MISFITS: dict[str, tuple[Any, str]] = {
    "floats": (pair(dtype=np.float32), "gives images of float32"),
    "a vector": (pair(shape=(8, 3)), "images have shape [8, 3]; a source returns Images, or"),
    "one part": (pair()[0], "a source returns Images, or (images, labels) of train and of held-out"),
    "none": (None, "a source returns Images, or"),
    "another size": (pair(shape=(8, 3, 8, 8))[0] and images(pixels=np.zeros((6, 3, 9, 8), np.uint8)), "gives images of 9x8"),
    "negative labels": (pair(labels=np.arange(8) - 1), "has labels from -1 to 6"),
    "too few labels": (pair(labels=np.arange(7)), "for 12 ids"),
    "one class": (images(classes=("x",), labels=np.zeros(6, np.int64)), "has 1 classes"),
    "none held out": (images(held_out=0), "0 held-out images"),
    "ids twice": (images(ids=tuple("abcdea")), "gives an id more than once"),
    "a line break": (images(ids=("a\nb", *"bcdef")), "which has a line break"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_a_source_gives_is_checked(case: str) -> None:
    given, words = MISFITS[case]
    sources.register_data_source("bad")(lambda options: given)
    with pytest.raises(UserError) as caught:
        read("bad", None)
    assert "data.source bad" in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_are_none_are_refused(outside: Path) -> None:
    def refused(source: str, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            read(source, outside)
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)

    refused("mnist", "data.source is mnist", "cifar10, image_folder, digits, ", "sky", "or package.module:function")
    refused("no_such_module:f", "data.source is 'no_such_module:f'", "ModuleNotFoundError")
    refused("outside_source:missing", "AttributeError")
    refused("outside_source:a_number", "a int, not a function")
    refused("outside_source:nothing", "data.source outside_source:nothing: KeyError: 'the sky'")
    with pytest.raises(UserError, match=r"^data.source is mnist \(command line\); it takes cifar10, .*sky, or package"):
        loader.load(["--data.source", "mnist"])
    with pytest.raises(UserError, match="takes 8"):
        read("outside_source:named", outside, image_size=32)


def test_a_name_is_registered_once() -> None:
    sources.find("digits")
    with pytest.raises(UserError, match=r"digits is registered already, by lethe\.data\.digits:read_digits"):
        lethe.register_data_source("digits")(lambda options: None)
