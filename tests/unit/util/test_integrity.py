"""A file that is not what it was when it was written is noticed, whichever byte changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lethe._util import integrity
from lethe._util.errors import UserError
from lethe.data import images
from lethe.data.images import Images
from lethe.models import checkpoint

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
