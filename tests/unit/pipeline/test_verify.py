"""`verify` names what is damaged, how to make it again, and what belongs to nothing."""

import json
import shutil
from pathlib import Path

import pytest

from lethe.pipeline import verify
from lethe.workspace.layout import Layout
from support.cards import workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(workspace(tmp_path_factory.mktemp("made") / "workspace"))


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Layout:
    return Layout(Path(shutil.copytree(made, tmp_path / "workspace")))


def kinds(layout: Layout) -> dict[str, tuple[str, str]]:
    return {each.path.relative_to(layout.root).as_posix(): (each.kind, each.reason) for each in verify.inspect(layout)}


def test_a_workspace_as_it_was_written(layout: Layout) -> None:
    found = kinds(layout)
    assert {kind for kind, _ in found.values()} == {"whole", "unverified"}
    assert found["logits/model_1.safetensors"] == found["scores/model_1.json"] == ("whole", "")


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("data/images.safetensors", "src/prepare.py"),
        ("logits/retrained.safetensors", "src/evaluate.py --method retrained"),
        ("logits/model_1.safetensors", "src/evaluate.py --method model_1"),
        ("scores/model_1.json", "src/evaluate.py --method model_1"),
    ],
)
def test_a_damaged_file_is_named_with_what_makes_it_anew(name: str, remedy: str, layout: Layout) -> None:
    changed(layout.root / name)
    before = kinds(layout)
    assert [path for path, (kind, _) in before.items() if kind == "damaged"] == [name]
    assert remedy in verify._remedy(layout, layout.root / name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (".lethe/resume/model_1/state.safetensors", "remove it; the run then starts from its beginning"),
        (".lethe/bank/a/retrained.seed1/state.safetensors", "remove it; the run then starts from its beginning"),
        ("originals/1/models/model_1.safetensors", "remove it, then `python src/unlearn.py"),
        ("bank/a/retrained.seed1.safetensors", "remove it, then `python src/bank.py"),
    ],
)
def test_files_of_every_folder_are_read(name: str, remedy: str, layout: Layout) -> None:
    path = layout.root / name
    path.parent.mkdir(parents=True)
    shutil.copy(layout.logits("model_1"), path)
    changed(path)
    assert kinds(layout)[name][0] == "damaged"
    assert verify._remedy(layout, path).startswith(remedy)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("scores/model_1.json", "{", "can't be read as JSON"),
        ("data/splits/forget.csv", "id\n", "it names no image"),
        ("data/splits/forget.csv", "name\na\n", "begins with name"),
        (".lethe/outbox/a.1/row.json", "[]", "it does not have the form that this program writes"),
        (".lethe/outbox/a.1/records.jsonl", '{"params": {}}\n{"params"\n', "it does not have the form that this program writes"),
        ("epochs/model_9.csv", "step,phase\n0,start\n0,start\n", "its steps do not follow one another"),
        ("ledger.jsonl", '{"event": "received"}\n', "line 1 "),
    ],
)
def test_files_that_can_not_be_what_they_are_named(name: str, content: str, reason: str, layout: Layout) -> None:
    (layout.root / name).parent.mkdir(parents=True, exist_ok=True)
    (layout.root / name).write_text(content)
    kind, why = kinds(layout)[name]
    assert kind == "damaged"
    assert reason in why


def test_what_belongs_to_nothing(layout: Layout) -> None:
    (layout.models / ".model_1.safetensors.abcd1234").parent.mkdir(exist_ok=True)
    (layout.models / ".model_1.safetensors.abcd1234").write_bytes(b"half")
    layout.logits("model_1").unlink()
    found = kinds(layout)
    assert found["models/.model_1.safetensors.abcd1234"] == ("stray", "left half-written by a killed command; remove it")
    assert found["scores/model_1.json"] == ("stray", f"there is no {layout.logits('model_1')}")


def test_an_erasure_leaves_scores_and_a_request_that_names_nothing(layout: Layout) -> None:
    layout.logits("model_1").unlink()
    forget = layout.splits / "forget.csv"
    forget.write_text("".join(forget.read_text().splitlines(keepends=True)[:1]))
    layout.erased.parent.mkdir(exist_ok=True)
    layout.erased.write_text("{}")
    found = kinds(layout)
    assert {kind for path, (kind, _) in found.items() if path in ("scores/model_1.json", "data/splits/forget.csv")} <= {
        "whole",
        "unverified",
    }


def test_a_score_of_a_later_version_is_refused_in_one_line(layout: Layout) -> None:
    path = layout.scores("model_1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert "has format 99, of a later version of Lethe; this one reads up to format" in kinds(layout)["scores/model_1.json"][1]
