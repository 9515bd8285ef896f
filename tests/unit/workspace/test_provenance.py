"""What belongs together: metadata of files against what is asked for."""

from pathlib import Path

import pytest
import torch

from lethe._util.errors import UserError
from lethe._util.integrity import digest_file
from lethe.models import foreign
from lethe.workspace.provenance import matches, mismatch, unknown

WANTED = {"data": "d", "normalisation": "data.mean 0.5 and data.std 0.5", "sha256": "aa"}


def test_what_an_earlier_version_did_not_record_is_unknown_and_no_mismatch() -> None:
    assert matches(WANTED, WANTED) and unknown(WANTED, WANTED) == []
    earlier = {"data": "d"}
    assert matches(WANTED, earlier) and unknown(WANTED, earlier) == ["normalisation", "sha256"]
    assert mismatch(WANTED, {}) == ["data"]
    for key in ("normalisation", "sha256"):
        assert mismatch(WANTED, WANTED | {key: "other"}) == [key]
        assert unknown({}, {}) == []


def test_a_given_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    def sha256(spec: str) -> str | None:
        return foreign.identity(spec, tmp_path, tmp_path / "downloads")

    assert sha256("a.pth") is None
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"one")
    assert sha256("a.pth") == sha256("b.pth") == digest_file(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"two")
    assert sha256("b.pth") not in (None, sha256("a.pth"))
    assert sha256("https://example.invalid/a.pth") is None
    assert sha256(f"https://example.invalid/a.pth#sha256={'AB' * 32}") == "ab" * 32


def test_a_broken_download_is_fetched_again_when_it_was_mended(tmp_path: Path) -> None:
    served, downloads = tmp_path / "served.pth", tmp_path / "downloads"
    served.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="was not written by"):
        foreign.read(served.as_uri(), tmp_path, downloads)
    torch.save({"weight": torch.ones(2)}, served)
    tensors, sha256 = foreign.read(served.as_uri(), tmp_path, downloads)
    assert torch.equal(tensors["weight"], torch.ones(2))
    assert sha256 == foreign.identity(served.as_uri(), tmp_path, downloads)
