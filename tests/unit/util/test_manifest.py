"""The manifest of a workspace: what it covers, and what it says of files that were changed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from lethe._util import manifest
from lethe._util.errors import UserError
from lethe._util.files import read_json, write_json, write_text
from lethe.engine import epoch_table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ws" / ".lethe").mkdir(parents=True)
    return tmp_path / "ws"


def test_whoever_writes_a_file_notes_it(root: Path) -> None:
    for name in ("data/train.json", "epochs/as_run/model_1.csv", ".lethe/given.json", ".lethe/clock/model_1.json"):
        write_text(root / name, "{}")
        assert manifest.state(root / name) is True
        (root / name).write_text("{ }")
        assert manifest.state(root / name) is False
    others = ("scores/model_1.json", "cards/a.json", ".lethe/outbox/a/sent.json", "notes.txt", "settings.yaml", "data/a.png", "../a.csv")
    for name in others:
        write_text(root / name, "{}")
        assert manifest.state(root / name) is None, name
    assert manifest.damage(root) == "" and [*root.glob(".lethe/.*")] == []


def test_an_earlier_version_is_as_it_was_written(root: Path) -> None:
    path = root / "epochs" / "model_1.csv"
    for n in range(manifest.KEPT + 1):
        write_text(path, f"step\n{n}\n")
    path.write_text("step\n1\n")
    assert manifest.state(path) is True
    path.write_text("step\n0\n")  # too long ago
    assert manifest.state(path) is False
    write_text(path, "step\n5\n")
    manifest.settle(root)
    path.write_text("step\n6\n")
    assert manifest.state(path) is False


def test_what_dvc_brought_is_as_it_was_written(root: Path) -> None:
    path, other = root / "epochs" / "model_1.csv", root / "data" / "splits" / "forget.csv"
    write_text(path, "step\n0\n")
    write_text(other, "id\n")
    path.write_text("step\n1\n")
    other.write_text("id\nx\n")
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    (root.parent / "dvc.lock").write_text(
        f"    - path: ws/epochs/model_1.csv\n      md5: {md5}\n    - path: ws/data/splits\n      md5: 1.dir\n"
    )
    assert (manifest.state(path), manifest.state(other)) == (True, None)
    path.write_text("step\n2\n")
    assert manifest.state(path) is False


def test_what_reads_a_file_checks_it(root: Path) -> None:
    write_json(root / "data" / "copies.json", {"number": 1})
    assert read_json(root / "data" / "copies.json") == {"number": 1}
    (root / "data" / "copies.json").write_text('{"number": 2}')
    with pytest.raises(UserError, match=r"data/copies\.json is damaged or was edited: .*`python src/verify\.py` says what makes it again"):
        read_json(root / "data" / "copies.json")
    write_text(root / "epochs" / "ft.csv", "step,gap\n0,1.5\n")
    assert epoch_table.read_csv(root / "epochs" / "ft.csv") == [{"step": 0, "gap": 1.5}]
    (root / "epochs" / "ft.csv").write_text("step,gap\n0,7.5\n")
    with pytest.raises(UserError, match="damaged or was edited"):
        epoch_table.read_csv(root / "epochs" / "ft.csv")


def test_what_another_machine_noted_within_one_tick_is_kept(root: Path, tmp_path: Path) -> None:
    path, other = root / "epochs" / "model_1.csv", tmp_path / "other"
    (other / ".lethe").mkdir(parents=True)
    write_text(path, "step\n0\n")
    write_text(other / "epochs" / "model_1.csv", "step\n1\n")
    assert manifest.state(path) is True  # what it read is remembered
    noted = root / manifest.NAME
    before = noted.stat()
    noted.write_bytes((other / manifest.NAME).read_bytes())
    os.utime(noted, ns=(before.st_atime_ns, before.st_mtime_ns))  # as file systems have it whose times are whole seconds
    write_text(root / "data" / "train.json", "{}")
    path.write_text("step\n1\n")
    assert manifest.state(path) is True


@pytest.mark.parametrize("content", [b"", b"step\n", b"gap\n1\n", b"step\nx\n", b"step,gap\n0,1\n2,3,4\n", b"\xff\xfe\x00"])
def test_what_is_no_epoch_table_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ft.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"ft\.csv (can't be read as|is no) ") as error:
        epoch_table.read_csv(tmp_path / "ft.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"a": 1}}', '{"files": {}, "sha256": "0"}'])
def test_a_damaged_manifest_says_nothing(text: str, root: Path) -> None:
    path = root / "data" / "train.json"
    write_json(path, {})
    (root / manifest.NAME).write_text(text)
    assert manifest.damage(root) and manifest.state(path) is None
    write_json(path, {"again": 1})
    assert manifest.damage(root) == "" and manifest.state(path) is True
    assert list(json.loads((root / manifest.NAME).read_text())["files"]) == ["data/train.json"]
