"""From a request that was unlearned to a workspace in which nothing of it is left, and on to the next request."""

import ast
import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from lethe.data.images import load_images
from lethe.models import checkpoint
from support.project import Project, at, at_file, until

WS = ("--run.workspace", "ws", "--method", "model_1")


@pytest.fixture
def unlearned(project: Project) -> Project:
    """A workspace of its own with a result that has scores and a card with thumbnails."""
    for name in ("data", "models", "epochs", "logits", "scores"):
        shutil.copytree(project.root / name, project.root / "ws" / name)
    project.ran("unlearn", *WS)
    project.ran("report", "card", *WS, "--card.thumbnails", "24")
    return project


def ids(project: Project, split: str = "forget") -> list[str]:
    with (project.root / "ws" / "data" / "splits" / f"{split}.csv").open(newline="") as file:
        return [row[0] for row in csv.reader(file)][1:]


def test_erased_and_the_next_request(unlearned: Project) -> None:
    ws, gone = unlearned.root / "ws", ids(unlearned)
    images, _ = load_images(ws / "data" / "images.safetensors")
    picture = images.pixels[images.ids.index(gone[0])]
    result = checkpoint.model_hash(ws / "models" / "model_1.safetensors")
    before = unlearned.files()
    planned = unlearned.ran("erase", *WS)
    new = {name for name in unlearned.files() if name not in before}
    assert {name: content for name, content in unlearned.files().items() if name not in new} == before
    assert new <= {"ws/.lethe/secret", "ws/.lethe/locks/secret.lock"}
    for name, step in (
        ("data/images.safetensors", "rewrite"),
        ("data/splits/forget.csv", "rewrite"),
        ("logits/retrained.safetensors", "rewrite"),
        ("models/original.safetensors", "replace"),
        ("models/model_1.safetensors", "delete"),
        ("cards/", "rewrite"),
    ):
        assert any(f"/ws/{name}" in line and f" {step} " in line for line in planned.stdout.splitlines()), name
    assert "nothing was changed; `python src/erase.py --run.workspace ws --method model_1 --yes` erases" in planned.stderr
    assert re.search("^model_1, which takes the original's place: [a-z ]+(; .+ before you accept it)?$", planned.stderr, re.MULTILINE)
    holds = f"another workspace, which holds {len(gone)} of the ids; unlearn and erase them there"
    elsewhere = f"not reached from here: {unlearned.root}, {holds}\n"
    assert elsewhere in planned.stderr and "no card of" not in planned.stderr
    assert "not reached from here: the images of data.source digits" in planned.stderr

    refused = unlearned.run("erase", "--run.workspace", "ws")
    assert refused.returncode == 2 and "hybrid_4.safetensors does not exist; there are results of model_1, which --method" in refused.stderr
    refused = unlearned.run("erase", "--run.workspace", "ws", "--check")
    assert (refused.returncode, "nothing was erased" in refused.stderr) == (2, True)
    refused = unlearned.run("erase", *WS, "--yes", "--card.remains", "backups=soon")
    assert (refused.returncode, "card.remains is backups=soon" in refused.stderr) == (2, True)
    done = unlearned.ran("erase", *WS, "--yes", "--card.remains", "backups=2027-01-31,the archive=2027-06-30")
    assert (done.stdout, "nothing is left in what was searched" in done.stderr) == ("", True)
    last = done.stderr.rindex("\nreplace by the accepted result: ")
    assert last < done.stderr.index("\nsearching again for what is left, which may take minutes: source, mlflow, dvc, git, workspace\n")
    assert elsewhere in done.stderr
    assert "near copies were not looked for" in done.stderr  # digits are too small
    checked = unlearned.ran("erase", "--run.workspace", "ws", "--check")
    assert (checked.stdout, elsewhere in checked.stderr) == ("", True)

    # Nothing of the images is left; what needs no image is
    kept, _ = load_images(ws / "data" / "images.safetensors")
    assert set(images.ids) - set(kept.ids) == set(gone)
    for table in (ws / "logits").rglob("*.safetensors"):
        with safe_open(table, "np") as file:
            assert not set(json.loads(file.metadata()["ids"])) & set(gone)
            assert len(json.loads(file.metadata()["ids"])) == len(load_file(table)["logits"]) == len(kept.ids)
    for name, content in unlearned.files().items():
        assert not name.startswith("ws/") or picture.tobytes() not in content, name
    assert checkpoint.model_hash(ws / "models" / "original.safetensors") == result
    assert not (ws / "models" / "model_1.safetensors").exists()
    assert before["ws/scores/model_1.json"] == (ws / "scores" / "model_1.json").read_bytes()
    assert before["ws/epochs/original.csv"] == (ws / "epochs" / "original.csv").read_bytes()

    # Between two requests
    (card,) = (ws / "cards").glob("*.json")
    content = json.loads(card.read_text())
    assert content["request"]["thumbnails"] == []
    section = content["erasure"]
    assert section["remains"] == [{"what": "backups", "until": "2027-01-31"}, {"what": "the archive", "until": "2027-06-30"}]
    assert [event["event"] for event in section["events"]] == ["received", "unlearned", "evaluated", "approved", "erased"]
    assert all(event["by"] and event["at"] for event in section["events"]) and section["left"] == 0
    steps = {line["step"].partition(" ")[0]: line["places"] for line in section["places"] if line["store"] == "workspace"}
    planned_steps = [line.split()[1] for line in planned.stdout.splitlines() if line.startswith("workspace")]
    assert steps == {step: planned_steps.count(step) for step in ("delete", "rewrite", "replace")}
    (page,) = (ws / "cards").glob("person-*.html")
    assert str(page) in done.stderr
    for text in (page.read_text(), card.with_suffix(".md").read_text(), card.with_suffix(".html").read_text()):
        assert "2027-06-30" in text and not any(id_ in text for id_ in gone)
    assert str(card.with_suffix(".html")) in unlearned.ran("report", "card", "--run.workspace", "ws", "--list", gone[0]).stdout
    refused = unlearned.run("report", "card", *WS)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f" were erased on {section['events'][-1]['at'][:10]}, so no card of it can be made; what was made before is " in refused.stderr
    assert refused.stderr.endswith(f"{card.with_suffix('.html')}, {page}\n")
    for stage in ("unlearn", "evaluate"):
        refused = unlearned.run(stage, *WS)
        assert refused.returncode == 2
        assert "unlearn.py --run.workspace ws --method model_1 --data.forget.ids '<list>'` takes the next" in refused.stderr

    assert unlearned.ran("erase", *WS).stdout == ""
    assert [json.loads(line)["event"] for line in (ws / "ledger.jsonl").read_text().splitlines()] == [
        *("received", "unlearned", "evaluated", "approved", "erased", "verified")
    ]
    verified = unlearned.ran("ledger", "verify", "--run.workspace", "ws")
    assert "6 lines, each follows the one before" in verified.stderr
    assert "as written, not signed" in unlearned.ran("report", "card", "--verify", str(card)).stdout

    # The next request starts from the accepted result; the erased images do not come back
    again = unlearned.run("prepare", "--run.workspace", "ws", "--data.forget.ids", "gone.csv")
    assert again.returncode == 2
    (unlearned.root / "gone.csv").write_text("id\n" + gone[0] + "\n")
    assert (
        f"1 of 1 ids unknown, first {gone[0]}" in unlearned.run("prepare", "--run.workspace", "ws", "--data.forget.ids", "gone.csv").stderr
    )
    (unlearned.root / "next.csv").write_text("id\n" + "\n".join(ids(unlearned, "retain")[:5]) + "\n")
    refused = unlearned.run("evaluate", *WS, "--data.forget.ids", "next.csv")
    assert refused.returncode == 2 and "has no deletion request" in refused.stderr, "only what unlearns begins the next one"
    said = unlearned.ran("unlearn", *WS, "--data.forget.ids", "next.csv").stderr
    assert "retrained.safetensors was for a request that was erased; the next one takes its place" in said
    assert not set(load_images(ws / "data" / "images.safetensors")[0].ids) & set(gone)
    other = unlearned.run("unlearn", *WS, "--data.forget.ids", "gone.csv")
    assert other.returncode == 2
    assert "data.forget.ids is gone.csv (command line), and" in other.stderr, "a request that was not erased is not replaced by accident"
    about = checkpoint.metadata(ws / "models" / "model_1.safetensors")
    assert about["original"] == result
    assert checkpoint.metadata(ws / "models" / "original.safetensors")["provenance"] == "unlearned"
    unlearned.ran("evaluate", *WS)
    assert unlearned.ran("erase", "--run.workspace", "ws", "--check").stdout == ""
    # ... nor with the source read anew
    (ws / "data" / "images.safetensors").unlink()
    unlearned.ran("evaluate", *WS)
    assert not set(load_images(ws / "data" / "images.safetensors")[0].ids) & set(gone)

    # A copy under another name, and a model that came back, are found
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(ws / "holiday.bmp")
    (unlearned.root / "notebooks").mkdir()
    (unlearned.root / "notebooks" / "mine.ipynb").write_text(json.dumps({"outputs": [f"shown: {gone[0]}"]}))
    (ws / "notes.txt").write_text(f"asked for {gone[1]}, done")
    (ws / "old.bin").write_bytes(before["ws/models/original.safetensors"])
    (ws / "closed").write_bytes(b"Rar!\x1a\x07....")
    left = unlearned.run("erase", "--run.workspace", "ws", "--check")
    assert left.returncode == 1
    assert [line.split()[-1] for line in left.stdout.splitlines()] != []
    for name, holds in (("holiday.bmp", "1 image"), ("notes.txt", "1 id"), ("old.bin", "1 model")):
        assert f"/ws/{name}: {holds}" in left.stdout
    assert "/notebooks/mine.ipynb: 1 id (`jupyter nbconvert --clear-output --inplace " in left.stdout
    assert left.stdout.count("\n") == 4
    assert "/ws/closed: 1 RAR archive" in left.stderr


@pytest.mark.slow
def test_killed_at_any_moment(unlearned: Project) -> None:
    """Each kill is one more in the same workspace; no other command uses it meanwhile, and the same command finishes it."""
    ws, gone = unlearned.root / "ws", ids(unlearned)
    result = checkpoint.model_hash(ws / "models" / "model_1.safetensors")
    cache = unlearned.root / ".dvc" / "cache"
    kept = cache / "files" / "md5" / "ab" / "original"
    kept.parent.mkdir(parents=True)
    shutil.copy(ws / "models" / "original.safetensors", kept)
    moments = [
        at_file("erased.json"),
        at_file("images.safetensors"),
        at("pathlib:Path.unlink", 3),
        at_file("forget.csv"),
        at_file("original.safetensors"),
        at_file("settings.yaml"),
        at_file("erased.json"),
    ]
    for n, moment in enumerate(moments):
        keep = ("--keep", str(cache)) if n < 2 else ()  # the first is killed before it begins; those that finish it keep it, too
        killed = unlearned.run("erase", *WS, "--yes", *keep, **moment)
        assert killed.returncode == -9, (n, killed.stderr)
        if n in (1, 4):
            refused = unlearned.run("evaluate", *WS)
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
            assert "was interrupted; `python src/erase.py --run.workspace ws --method model_1 --yes` finishes it" in refused.stderr
    assert unlearned.run("erase", "--run.workspace", "ws", "--check").returncode == 1  # not finished
    stopped = unlearned.run("erase", *WS, "--yes", **at_file("erased.json", 1, signal.SIGTERM))
    assert (stopped.returncode, stopped.stderr.endswith("erase: stopped; the same command finishes it\n")) == (130, True)
    unlearned.ran("erase", *WS, "--yes")
    assert checkpoint.model_hash(ws / "models" / "original.safetensors") == result
    for keep in ((), ("--keep", str(cache))):  # the check remembers what the erasure left alone
        checked = unlearned.ran("erase", "--run.workspace", "ws", "--check", *keep)
        assert checked.stdout == "" and checked.stderr.count(f"not searched: {cache}, which is kept") == 1
    assert kept.exists()
    assert not set(load_images(ws / "data" / "images.safetensors")[0].ids) & set(gone) and ids(unlearned) == []
    assert not [path for path in ws.rglob("*") if path.name.startswith(".images")], "a half-written file is left"


def test_a_command_that_is_reading_is_waited_for(unlearned: Project) -> None:
    """It has the ids in memory: an erasure meanwhile would be followed by a logits table with them."""
    table = unlearned.root / "ws" / "logits" / "model_1.safetensors"
    table.unlink()
    reading = unlearned.start("evaluate", *WS, **at_file(table.name, 1, signal.SIGSTOP))
    until(lambda: stopped(reading.pid), reading.err.read_text)
    refused = unlearned.run("erase", *WS, "--yes")
    os.kill(reading.pid, signal.SIGCONT)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "another command is working in " in refused.stderr
    assert reading.wait().returncode == 0 and table.exists()
    unlearned.ran("erase", *WS, "--yes")
    assert not table.exists()


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


LOGGED = """
from lethe.tracking import mlflow_store
from lethe.tracking.outbox import callers_store
client = mlflow_store.connect(callers_store())
everywhere = [each.experiment_id for each in client.search_experiments()]
models = [(model.model_id, client.get_run(model.source_run_id).data.tags) for model in client.search_logged_models(everywhere)]
print([(id, tags["workspace"], tags["data"]) for id, tags in models])
"""


@pytest.mark.slow
def test_two_requests_and_two_originals(unlearned: Project) -> None:
    """The model that the first request ended in was trained on the images of the second; runs from a further original are logged under
    a folder of their own, which the erasure deletes."""
    ws, logging = unlearned.root / "ws", ("--run.log_model", "safetensors")
    unlearned.ran("unlearn", *WS, *logging, "--run.originals", "2", "--methods.model_1.lr", "0.02")
    unlearned.ran("erase", *WS, "--yes")
    ((first, where, data),) = ast.literal_eval(unlearned.script(LOGGED))
    assert where == "ws", "only the accepted model is left"
    (accepted,) = (ws / "accepted").iterdir()
    (unlearned.root / "next.csv").write_text("id\n" + "\n".join(ids(unlearned, "retain")[:5]) + "\n")
    unlearned.ran("unlearn", *WS, *logging, "--data.forget.ids", "next.csv")
    done = unlearned.ran("erase", *WS, "--yes")
    assert f"delete: {accepted}\n" in done.stderr and f"delete: models:/{first}\n" in done.stderr
    ((second, where, other),) = ast.literal_eval(unlearned.script(LOGGED))
    assert (second != first, where, other != data) == (True, "ws", True)
    (left,) = (ws / "accepted").iterdir()
    assert left != accepted and checkpoint.model_hash(left) == checkpoint.model_hash(ws / "models" / "original.safetensors")
    assert not (ws / "originals").exists()

    # A run from a further original that MLflow has after its folder is gone
    unlearned.script(COMES_BACK)
    found = unlearned.run("erase", "--run.workspace", "ws", "--check")
    assert (found.returncode, found.stdout.count("mlflow "), "models:/" in found.stdout) == (1, 1, True)


COMES_BACK = """
from pathlib import Path
from lethe.tracking import mlflow_store
from lethe.tracking.outbox import callers_store
client = mlflow_store.connect(callers_store())
everywhere = [each.experiment_id for each in client.search_experiments()]
home = mlflow_store.workspace_hash(Path("ws/originals/1"))
run = next(run for run in client.search_runs(everywhere) if run.data.tags.get("lethe.home") == home)
client.create_logged_model(run.info.experiment_id, "model", run.info.run_id)
"""
REGISTER = """
import sys
from lethe.tracking import mlflow_store
from lethe.tracking.outbox import callers_store
client = mlflow_store.connect(callers_store())
everywhere = [each.experiment_id for each in client.search_experiments()]
(model,) = client.search_logged_models(everywhere, "name = 'model'")
client.create_registered_model("classifier")
version = client.create_model_version("classifier", f"models:/{model.model_id}", model_id=model.model_id)
client.set_registered_model_alias("classifier", "champion", version.version)
client.log_param(model.source_run_id, "note", GONE)
print(model.artifact_location)
"""
SERVED = """
from lethe.tracking import mlflow_store
from lethe.tracking.outbox import callers_store
client = mlflow_store.connect(callers_store())
everywhere = [each.experiment_id for each in client.search_experiments()]
models = client.search_logged_models(everywhere)
print(len(client.search_model_versions()), len(models), dict(client.get_registered_model("classifier").aliases))
"""


def test_mlflow_and_dvc(unlearned: Project) -> None:
    """The model of another method, registered, and an older copy of the original in a cache and a remote."""
    ws, root = unlearned.root / "ws", unlearned.root
    other = ("--run.workspace", "ws", "--method", "model_2")
    unlearned.ran("unlearn", *other, "--run.log_model", "safetensors")
    folder = Path(unlearned.script(REGISTER.replace("GONE", repr(ids(unlearned)[0]))).removeprefix("file://"))
    assert (folder / "model.safetensors").exists()
    own = checkpoint.metadata(ws / "models" / "model_2.safetensors")
    about = checkpoint.metadata(folder / "model.safetensors")
    assert (about["split"] != own["split"], about | {"split": own["split"]}) == (True, own)
    assert {row["tags"]["split"] for row in unlearned.rows("ws", method="model_2")} == {about["split"][:12]}
    stored = [root / "mlflow.db", *(path for path in (root / "mlruns").rglob("*") if path.is_file())]
    for path in stored:  # hashes over ids alone, by which one would find out by trying what was forgotten
        assert own["split"][:12].encode() not in path.read_bytes(), path
    cache, remote = root / ".dvc" / "cache" / "files" / "md5" / "ab", root.parent / "remote" / "files" / "md5" / "ab"
    for place in (cache, remote):
        place.mkdir(parents=True)
        shutil.copy(ws / "models" / "original.safetensors", place / "original")
        (place / "clean").write_text("nothing of them")
    folder_alone = f"['remote \"folder\"']\n    url = {root.parent / 'remote'}\n"
    (root / ".dvc" / "config").write_text(f"{folder_alone}['remote \"far\"']\n    url = s3://bucket/x\n")
    runs = root / ".dvc" / "cache" / "runs" / "a"
    runs.mkdir(parents=True)
    (runs / "one").write_text("outs: [{md5: aboriginal}]")
    (runs / "two").write_text("outs: [{md5: abclean}]")

    planned = unlearned.ran("erase", *WS)
    assert "registered as classifier version 1" in planned.stdout
    assert planned.stdout.count("\ndvc ") == 4
    assert " parameter note: what the request named" in planned.stdout
    assert "runs:/" in planned.stdout and ".html: 24 images" in planned.stdout  # the card with thumbnails
    assert "s3://bucket/x: a remote that can't be opened: s3 is supported, but requires 'dvc-s3' to be installed" in planned.stdout
    away = root.parent / "remote.away"
    (root.parent / "remote").rename(away)
    left = unlearned.run("erase", *WS, "--yes")
    assert (left.returncode, left.stdout.count("a remote that is not there now")) == (1, 1)
    away.rename(root.parent / "remote")
    (root / ".dvc" / "config").write_text(folder_alone)
    again = unlearned.ran("erase", *WS, "--yes")
    assert "nothing is left in what was searched" in again.stderr
    assert not folder.exists() or not any(folder.iterdir())
    assert unlearned.script(SERVED) == "0 0 {}"
    assert [row["params"]["note"] for row in unlearned.rows("ws", method="model_2")] == ["erased"]
    for place in (cache, remote):
        assert [path.name for path in place.iterdir()] == ["clean"]
    assert [path.name for path in runs.iterdir()] == ["two"]
    (card,) = (ws / "cards").glob("*.json")
    for suffix in (".json", ".md", ".html"):  # MLflow's copies are as the workspace's, which have no thumbnails any more
        (copy,) = (root / "mlruns").rglob(f"card/*{suffix}")
        assert copy.read_bytes() == card.with_suffix(suffix).read_bytes()
    section = json.loads(card.read_text())["erasure"]
    assert [line["places"] for line in section["places"] if line["store"] == "dvc"] == [3]  # the remote that was away included
    assert any("registered as classifier version 1" in one for one in section["derived"])
