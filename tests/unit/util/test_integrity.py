"""A file that is not what it was when it was written is noticed, whichever byte changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lethe._util import integrity
from lethe._util.errors import UserError
from lethe._util.files import read_json, write_json
from lethe.data import images
from lethe.data.images import Images
from lethe.models import checkpoint
from lethe.workspace import settings as workspace_settings
from support.sealing import written

TENSORS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(3)}
ABOUT = {"provenance": "{}", "kind": "model_1", "ä": "ö"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "model.safetensors"
    checkpoint.save(TENSORS, path, ABOUT)
    return path


def test_what_was_written_is_read_and_its_hash_is_no_metadata_of_ours(file: Path) -> None:
    tensors, about = checkpoint.load(file)
    assert about == ABOUT == checkpoint.metadata(file)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert integrity.check(file)
    again = file.with_name("again.safetensors")
    checkpoint.save(dict(reversed(TENSORS.items())), again, dict(reversed(ABOUT.items())))
    assert again.read_bytes() == file.read_bytes()


def test_the_bytes_are_those_of_the_librarys_writer(tmp_path: Path) -> None:
    """Of every type, also without dimensions or elements: models and tables of earlier versions keep their hashes."""
    shapes = ((), (0, 3), (2, 3))
    tensors = {f'{dtype} {n}€"': torch.ones(shape).to(dtype) for dtype in checkpoint.DTYPES for n, shape in enumerate(shapes)}
    tensors |= {"transposed": torch.arange(6.0).view(2, 3).T.requires_grad_(), "a row": torch.arange(6).view(2, 3)[1]}
    for each in (tensors, dict(reversed(tensors.items())), TENSORS, {}):
        checkpoint.save(each, tmp_path / "own", ABOUT)
        plain = {name: value.detach().contiguous() for name, value in each.items()}
        assert (tmp_path / "own").read_bytes() == written(save_file, plain, tmp_path / "theirs", ABOUT)
        assert integrity.check(tmp_path / "own")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed(at: int, bit: int, file: Path) -> None:
    content = bytearray(file.read_bytes())
    key = content.index(b'"content_sha256":')
    at %= len(content)
    assume(not key <= at < key + len(b'"content_sha256":"'))  # without its key a file states no hash, like those of earlier versions
    content[at] ^= 1 << bit
    damaged = file.with_name("damaged.safetensors")
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.safetensors"):
        checkpoint.load(damaged)


def test_images_too(tmp_path: Path) -> None:
    pixels, labels = np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), np.array([0, 1])
    images.save_images(Images(pixels, labels, ("a", "b"), ("cat", "dog"), 1), tmp_path / "images.safetensors", "listing")
    assert integrity.check(tmp_path / "images.safetensors")
    content = bytearray((tmp_path / "images.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "images.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"images\.safetensors is damaged: .* `python src/verify\.py` says what makes it again"):
        images.load_images(tmp_path / "images.safetensors")


def test_a_file_of_another_program_states_no_hash(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "plain.safetensors")
    assert not integrity.check(tmp_path / "plain.safetensors")
    assert checkpoint.load(tmp_path / "plain.safetensors")[1] == {}


@given(st.dictionaries(st.text(max_size=5), st.none() | st.floats() | st.integers() | st.lists(st.text(max_size=3)), max_size=4))
def test_a_json_file_that_was_edited(content: dict[str, Any]) -> None:
    content.pop(integrity.KEY, None)
    written = json.loads(json.dumps(integrity.sealed(content)))
    assert integrity.check_json(written, "a.json")
    assert not integrity.check_json(content, "a.json")
    with pytest.raises(UserError, match=r"a\.json is damaged or was edited"):
        integrity.check_json(written | {"another": 1}, "a.json")


# --- files of a later version -------------------------------------------------------------------------------------------


def test_a_later_format_is_refused_in_one_line(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors", {"format": "2"})
    write_json(tmp_path / "a.json", {"format": 2})
    (tmp_path / "settings.yaml").write_text("format: 2\nrun: {seed: 1}\n")
    for name, read in {
        "a.safetensors": lambda: checkpoint.load(tmp_path / "a.safetensors"),
        "a.json": lambda: read_json(tmp_path / "a.json"),
        "settings.yaml": lambda: workspace_settings.layer(tmp_path),
    }.items():
        with pytest.raises(UserError) as raised:
            read()
        assert str(raised.value) == f"{tmp_path / name} has format 2, of a later version of Lethe; this one reads up to format 1"
    with pytest.raises(UserError, match="has format 2"):
        checkpoint.metadata(tmp_path / "a.safetensors")


def test_another_programs_format_is_none_of_ours(tmp_path: Path) -> None:
    checkpoint.save(TENSORS, tmp_path / "a.safetensors", {"format": "pt"})
    assert checkpoint.load(tmp_path / "a.safetensors")[1] == {"format": "pt"}
    write_json(tmp_path / "a.json", {"format": "list"})
    assert read_json(tmp_path / "a.json") == {"format": "list"}


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 16, b"\x02" + bytes(7) + b"[]", b"\x14" + bytes(7) + b'{"__metadata__": []}'])
def test_a_header_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors can't be read as safetensors"):
        checkpoint.load(tmp_path / "a.safetensors")
    if len(content) > 8:
        with pytest.raises(ValueError, match=r"its header has another form|says that its header"):
            integrity.check(tmp_path / "a.safetensors")
