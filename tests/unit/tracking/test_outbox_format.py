"""What is found in an outbox is checked before it is sent."""

import json
import logging
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe._util.errors import RunFailed
from lethe.pipeline import verify
from lethe.tracking.outbox import Outbox, abandoned
from lethe.tracking.outbox_format import as_record, has_digest, is_header, is_state, own_file, to_line
from lethe.workspace.layout import Layout

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
HEADER: dict[str, Any] = {
    "row": "0123456789abcdef",
    "uri": "sqlite:///mlflow.db",
    "experiment_id": None,
    "experiment_name": "photos",
    "name": "hybrid_4",
    "run_id": None,
    "source": "src/unlearn.py",
    "started": 1700000000000,
    "previous": {"row": "fedcba9876543210", "run_id": None},
    "resumes": False,
    "parent": None,
    "once": {"split": "abc"},
}
JOINING = {key: HEADER[key] for key in ("uri", "experiment_id", "experiment_name")} | {
    "row": "join",
    "name": "",
    "join": {"run_id": None, "tags": {"method": "model_1"}},
}


def written(folder: Path, name: str, header: Any) -> Path:
    """An outbox whose process is dead."""
    own = folder / ".lethe" / "outbox" / name
    own.mkdir(parents=True)
    (own / "row.json").write_text(json.dumps(header))
    (own / "records.jsonl").write_text('{"params": {"lr": "0.1"}}\n')
    return own


@given(JSON)
def test_no_line_is_an_error(value: Any) -> None:
    line = json.dumps(value).encode()
    assert as_record(line[:-1]) is None or line[:-1].isdigit()
    assert as_record(line) is None
    assert as_record(json.dumps({"metrics": value}).encode()) in (None, ("metrics", []))
    assert not is_header(value)
    assert not is_state(value)


RECORDS = st.one_of(
    st.tuples(st.just("params"), st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=3)),
    st.tuples(st.just("artifact"), st.text(max_size=9)),
    st.tuples(st.just("metrics"), st.lists(st.tuples(st.just("gap"), st.floats(-9, 9), st.integers(0, 9), st.integers(0, 9)), max_size=2)),
)


@given(RECORDS, st.data())
def test_a_line_with_a_digest_is_the_record_or_none(record: tuple[str, Any], data: st.DataObject) -> None:
    """Any byte changed, any part missing: it is never read as another record."""
    kind, value = record
    line = to_line(kind, value)
    assert b"\n" not in line and has_digest(line)
    read = as_record(line)
    assert read == as_record(json.dumps({kind: value}).encode())  # as a reader of an earlier version sees it
    assert json.loads(line) == json.loads(json.dumps({kind: value}))
    at = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    for damaged in (line[:at] + bytes([other]) + line[at + 1 :], line[:at], line[:at] + line[at + 1 :], line + line):
        assert as_record(damaged) in (None, read)


@given(st.sampled_from(sorted(HEADER)), JSON)
def test_a_header_with_another_value_is_none_or_of_the_same_form(key: str, value: Any) -> None:
    changed = HEADER | {key: value}
    if is_header(changed):
        assert value is None or isinstance(value, type(HEADER[key]) if HEADER[key] is not None else str | dict)


@pytest.mark.parametrize("header", [HEADER, JOINING])
def test_a_header_of_ours(header: dict[str, Any]) -> None:
    assert is_header(header)
    assert not is_header(header | {"row": "../../models"})
    assert not is_header({key: value for key, value in header.items() if key != "uri"})


def test_what_is_not_an_outbox_is_left_and_the_others_are_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, "a.1", ["valid JSON", "of another shape"])
    good = written(tmp_path, "b.2", HEADER)
    elsewhere = written(tmp_path / "elsewhere", "c.3", HEADER)
    (good.parent / "c.3").symlink_to(elsewhere)
    found = list(abandoned(tmp_path))
    assert [outbox.folder for outbox in found] == [good]
    assert found[0].records() == {0: ("params", {"lr": "0.1"}), 1: ("end", {"status": "KILLED", "time": found[0].records()[1][1]["time"]})}
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"{good.parent}/a.1 can't be read and is not sent: row.json does not say what the run is"
    found[0].lock.release()


def test_a_state_of_another_form_counts_as_unknown(tmp_path: Path) -> None:
    folder = written(tmp_path, "b.2", HEADER)
    (folder / "sent.json").write_text('{"run_id": 7, "sent": "all"}')
    (outbox,) = abandoned(tmp_path)
    assert outbox.state == {"run_id": None, "tried": True, "sent": 0, "late": []}
    outbox.lock.release()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox.create(tmp_path, HEADER)
    outbox.append("params", {"lr": "0.1"})
    path = outbox.folder / "records.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(RunFailed, match=r"records\.jsonl could not be written: "):
            outbox.append("params", {"momentum": "0.9"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    outbox.append("params", {"epochs": "5"})
    with caplog.at_level(logging.WARNING):
        assert outbox.records() == {0: ("params", {"lr": "0.1"}), 1: ("params", {"epochs": "5"})}
    assert not caplog.records
    outbox.remove()


def test_what_is_damaged_is_left_out_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox.create(tmp_path, HEADER)
    for key in "abc":
        outbox.append("params", {key: "1.5"})
    path = outbox.folder / "records.jsonl"
    lines = path.read_bytes().splitlines()
    damaged = lines[1].replace(b"1.5", b"7\r5")  # a break that ends no line here
    path.write_bytes(b"\n".join([lines[0], damaged, lines[2], b""]))
    assert outbox.records() == {0: ("params", {"a": "1.5"}), 2: ("params", {"c": "1.5"})} == outbox.records()
    outbox.remove()
    kept = tmp_path / ".lethe" / "damaged" / f"{outbox.folder.name}.jsonl"
    assert kept.read_bytes() == damaged + b"\n"
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{path}: line 2 is no record, or damaged, and left out", f"{kept} has the lines that were left out"]


def with_files(home: Path) -> Outbox:
    """An outbox with two versions of an artifact, and a model."""
    outbox = Outbox.create(home, HEADER)
    for text in ("0.1\n", "0.2\n"):
        with outbox.writing(outbox.artifacts / "plots" / "curve.csv") as temporary:
            temporary.write_text(text)
        outbox.append("artifact", "plots/curve.csv")
    (outbox.models / "m").mkdir(parents=True)
    (outbox.models / "m" / "model.json").write_text("{}")
    outbox.note(outbox.models / "m")
    return outbox


def read_again(outbox: Outbox) -> Outbox:
    """As by the process that sends what a killed one left."""
    outbox.lock.release()
    (again,) = abandoned(outbox.home)
    return again


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("damaged", [b"0.3\n", b"0.2", b"0.2\n\n", b"", None])
def test_a_damaged_file_is_not_sent_and_kept(again: bool, damaged: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = with_files(tmp_path)
    outbox = read_again(outbox) if again else outbox
    path, model = outbox.artifacts / "plots" / "curve.csv", outbox.models / "m"
    assert outbox.is_whole(path) and outbox.is_whole(model) and not caplog.records
    if damaged is None:
        path.unlink()
        (model / "model.json").unlink()
    else:
        path.write_bytes(damaged)
        (model / "model.json").write_bytes(damaged)
    found = [each for each in verify.inspect(Layout(tmp_path)) if each.path == path]
    assert [(each.kind, each.reason) for each in found] == (
        [("damaged", "artifacts/plots/curve.csv is not as it was written")] if path.exists() else []
    )
    assert not outbox.is_whole(path) and not outbox.is_whole(model)
    kept = tmp_path / ".lethe" / "damaged" / outbox.folder.name
    what = "is missing, and is not sent" if damaged is None else "is not as it was written, and is not sent"
    where = [""] * 2 if damaged is None else [f"; {kept}/artifacts/plots/curve.csv has it", f"; {kept}/models/m has it"]
    where[1] = f"; {kept}/models/m has it"
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{outbox.folder}: artifacts/plots/curve.csv {what}{where[0]}",
        f"{outbox.folder}: models/m/model.json {what}{where[1]}",
    ]
    outbox.remove()
    if damaged is not None:
        assert (kept / "artifacts" / "plots" / "curve.csv").read_bytes() == (kept / "models" / "m" / "model.json").read_bytes() == damaged


def test_a_kill_between_a_files_hash_and_the_file_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = with_files(tmp_path)
    outbox.append("file", {"artifacts/plots/curve.csv": "0" * 64})  # of a third version, which did not appear
    assert read_again(outbox).is_whole(outbox.artifacts / "plots" / "curve.csv") and not caplog.records


def test_files_of_an_earlier_version_state_no_hash(tmp_path: Path) -> None:
    folder = written(tmp_path, "b.2", HEADER)
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "note.txt").write_text("told")
    (outbox,) = abandoned(tmp_path)
    assert outbox.is_whole(folder / "artifacts" / "note.txt")
    assert [each.kind for each in verify.inspect(Layout(tmp_path)) if each.path.name == "note.txt"] == ["unverified"]
    outbox.lock.release()


def test_where_lines_are_missing_the_end_of_the_run_is_sent_yet(tmp_path: Path) -> None:
    made = Outbox.create(tmp_path, HEADER)
    for key in "abc":
        made.append("params", {key: "1"})
    made.mark_sent([0, 2], run_id="0" * 32)
    made.lock.release()
    path = made.folder / "records.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    (found,) = (each for each in verify.inspect(Layout(tmp_path)) if each.path == path)
    assert (found.kind, found.reason) == ("damaged", "it has 1 records, and 3 were sent: lines are missing")
    (outbox,) = abandoned(tmp_path)
    assert [kind for kind, _ in outbox.pending().values()] == ["end"]
    outbox.lock.release()


def test_a_hash_that_the_sender_notes_itself_waits_for_nothing(tmp_path: Path) -> None:
    outbox = Outbox.create(tmp_path, HEADER)
    outbox.append("params", {"lr": "1"})
    with outbox.writing(outbox.models / "MLmodel") as temporary:
        temporary.write_text("it")
    assert [kind for kind, _ in outbox.pending().values()] == ["params", "file"]
    outbox.mark_sent([0], run_id="0" * 32)
    assert not outbox.pending()
    outbox.append("params", {"momentum": "1"})
    assert [kind for kind, _ in outbox.pending().values()] == ["file", "params"]
    outbox.lock.release()


@pytest.mark.parametrize("name", ["row.json", "sent.json"])
def test_a_damaged_header_or_state_is_not_taken(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Outbox.create(tmp_path, HEADER)
    made.append("params", {"lr": "0.1"})
    made.mark_sent([0], run_id="0" * 32)
    made.lock.release()
    path = made.folder / name
    path.write_text(path.read_text().replace("hybrid_4", "hybrid_3").replace("0" * 32, "1" * 32))
    outboxes = list(abandoned(tmp_path))
    if name == "row.json":  # where it belongs is not known
        assert outboxes == [] and "row.json is damaged or was edited" in caplog.text
    else:  # looked for in the store before anything is created
        assert [outbox.state for outbox in outboxes] == [{"run_id": None, "tried": True, "sent": 0, "late": []}]
        outboxes[0].lock.release()


def test_files_are_those_of_the_outbox(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "curves.png").write_bytes(b"curves")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    assert own_file(folder, "plots/curves.png") == folder / "plots" / "curves.png"
    assert own_file(folder, "plots") == folder / "plots"
    for name in ("", ".", "..", "../secret", "plots/../../secret", str(tmp_path / "secret"), "link", "linked/secret"):
        assert own_file(folder, name) is None, name
    (folder / "plots" / "link").symlink_to(tmp_path / "secret")
    assert own_file(folder, "plots") is None
