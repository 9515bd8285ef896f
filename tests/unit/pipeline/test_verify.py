"""`verify` names what is damaged, how to make it again, and what belongs to nothing."""

import json
import shutil
from pathlib import Path

import pytest

from lethe._util import manifest
from lethe._util.errors import UserError
from lethe._util.files import write_text
from lethe.config.loader import load
from lethe.engine import epoch_table
from lethe.pipeline import verify
from lethe.pipeline.accept import accept
from lethe.workspace import repair
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
    assert remedy in repair.remedy(layout.root / name, layout.root)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (".lethe/resume/model_1/state.safetensors", "remove it; the run then starts from its beginning"),
        (".lethe/bank/a/retrained.seed1/state.safetensors", "remove it; the run then starts from its beginning"),
        ("originals/1/models/model_1.safetensors", "remove it, then `python src/unlearn.py"),
        ("bank/a/retrained.seed1.safetensors", "remove it, then `python src/bank.py"),
        ("models/my/own/model.safetensors", "remove it; no command makes such a file"),
    ],
)
def test_files_of_every_folder_are_read(name: str, remedy: str, layout: Layout) -> None:
    path = layout.root / name
    path.parent.mkdir(parents=True)
    shutil.copy(layout.logits("model_1"), path)
    changed(path)
    assert kinds(layout)[name][0] == "damaged"
    assert repair.remedy(path, layout.root).startswith(remedy)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data/splits/retain.csv", "src/prepare.py"),
        ("epochs/original.csv", "src/pretrain.py"),
        ("epochs/as_run/model_2.csv", "src/unlearn.py --method as_run"),
        ("models/model_1.seed3.safetensors", "src/unlearn.py --method model_1"),
        ("metrics/model_1.json", "src/evaluate.py --method model_1"),
        ("recipes/ft.txt", "src/fingerprint.py"),
        ("search/hybrid_4/trials.csv", "src/search.py --search.method hybrid_4"),
        ("report/table_7.csv", "src/report.py"),
        ("cards/model_1-abc.json", "src/report.py card --method model_1"),
        ("cards/as_run/model_2-abc.json", "src/report.py card --method as_run"),
        ("others/shadows/model_1/0.safetensors", "src/evaluate.py"),
    ],
)
def test_the_command_that_makes_a_file_again(name: str, words: str, layout: Layout) -> None:
    asked = f"remove it, then `python {words} --run.workspace {layout.root}` makes it again"
    assert repair.remedy(layout.root / name, layout.root) == asked


def accepted(layout: Layout, *names: str) -> None:
    accept(load(["--run.workspace", str(layout.root)]), names)


def test_a_file_that_was_replaced_on_purpose_is_accepted(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    layout.state.mkdir(exist_ok=True)
    path = layout.epochs("model_1")
    write_text(path, "step\n0\n")
    path.write_text("step\n0\n1\n")
    assert kinds(layout)["epochs/model_1.csv"][0] == "damaged"
    with pytest.raises(UserError, match="is damaged or was edited"):
        epoch_table.read_csv(path)
    by = repair.remedy(path)
    assert f"`python src/verify.py --accept {path} --run.workspace {layout.root}` takes it as it is, if it was changed on purpose" in by
    write_text(layout.about("train"), "{}")
    head = manifest.noted_heads(layout.ledger)
    accepted(layout, "epochs/model_1.csv", "data/train.json")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{path}: accepted as it is, by ") and said[1] == f"{layout.about('train')}: it is as it was written"
    assert kinds(layout)["epochs/model_1.csv"] == ("whole", "") and len(epoch_table.read_csv(path)) == 2
    assert [*manifest.accepted(layout.root)] == ["epochs/model_1.csv"] and manifest.noted_heads(layout.ledger) == head
    verify.verify(load(["--run.workspace", str(layout.root)]))
    assert f"accepted: {path}: as it is since 2" in capsys.readouterr().out
    write_text(layout.about("train"), "[]")  # what is written afterwards forgets nothing
    assert [*manifest.accepted(layout.root)] == ["epochs/model_1.csv"]
    write_text(path, "step\n0\n")
    assert manifest.accepted(layout.root) == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "scores/model_1.json",
            '{"accuracy": {}, "sha256": "0"}',
            r"can't be accepted: it is checked by a hash of its own, .*evaluate",
        ),
        ("ledger.jsonl", "{}\n", r"can't be accepted: nothing can make a ledger again"),
        (".lethe/manifest.json", None, r"can't be accepted: remove it; files that were written before can then not be verified"),
        ("epochs/model_1.csv", "gap\n1\n", r"can't be accepted: it is no epoch table: .*src/unlearn\.py --method model_1"),
        ("data/train.json", '{"a": 1, "sha256": "0"}', r"can't be accepted: it is damaged or was edited: its content .*src/prepare"),
        ("data/nothing.csv", None, r"accept is 'data/nothing\.csv': there is no such file under"),
        ("", None, r"accept is '': there is no such file"),
        ("/etc/hostname", None, r"accept is /etc/hostname: it is a link, or not under"),
    ],
)
def test_what_is_not_accepted(name: str, content: str | None, said: str, layout: Layout) -> None:
    layout.state.mkdir(exist_ok=True)
    write_text(layout.about("held_out"), "{}")
    if content is not None:
        (layout.root / name).parent.mkdir(exist_ok=True)
        (layout.root / name).write_text(content)
    layout.about("held_out").write_text("[]")
    before = layout.manifest.read_bytes()
    with pytest.raises(UserError, match=said):
        accepted(layout, "data/held_out.json", name)
    assert layout.manifest.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("scores/model_1.json", "{", "can't be read as JSON"),
        ("data/splits/forget.csv", "id\n", "it names no image"),
        ("data/splits/forget.csv", "name\na\n", "begins with name"),
        (".lethe/outbox/a.1/row.json", "[]", "it does not have the form that this program writes"),
        (".lethe/outbox/a.1/records.jsonl", '{"params": {}}\n{"params"\n', "line 2 is no record, or not as it was written"),
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
    (layout.damaged / "a.1.jsonl").parent.mkdir(parents=True)
    (layout.damaged / "a.1.jsonl").write_text('{"params"\n')
    layout.logits("model_1").unlink()
    found = kinds(layout)
    assert found[".lethe/damaged/a.1.jsonl"] == ("stray", verify.LEFT_OUT)
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
