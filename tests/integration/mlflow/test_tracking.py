"""Rows in real stores: a fresh SQLite file a test, and a real server that is killed and started again."""

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from lethe._util.errors import RunFailed
from lethe.tracking import mlflow_delivery, mlflow_store, outbox, sender, store_birth
from lethe.tracking.launched_run import note_error
from lethe.tracking.logged_runs import experiment, find_runs
from lethe.tracking.mlflow_delivery import Delivery, refused, unreachable
from lethe.tracking.mlflow_models import register
from lethe.tracking.mlflow_store import connect, end_abandoned_runs
from lethe.tracking.outbox import Outbox, abandoned, default_store, destination, now
from lethe.tracking.run_log import RunLog
from lethe.tracking.sender import send
from support.project import Warm, until
from support.server import Server, free_port

ROOT = Path(__file__).parents[3]
EPOCH = {"retain.accuracy": 98.5, "forget.loss": 0.25}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """An empty default store: making its tables takes MLflow 8 seconds."""
    folder = tmp_path_factory.mktemp("a root")
    with sqlite3.connect(folder / "mlflow.db") as db:  # what a process of an earlier version left that was killed while making them
        db.execute("create table experiments (experiment_id integer)")
    db.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (default,) = connect(default_store()).search_experiments()
        assert default.artifact_location == str(folder / "mlruns" / "0")
    return folder / "mlflow.db"


@pytest.fixture
def home(tmp_path, monkeypatch, migrated):
    """A workspace beside a store of its own, and nothing of MLflow in the environment but the store's address."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        if name not in mlflow_store.QUIET:
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store(tmp_path, migrated)}")
    yield tmp_path / "home"
    unreachable.clear()
    refused.clear()


def store(folder, migrated):
    shutil.copy(migrated, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as db:
        db.execute("update experiments set artifact_location = ?", [str(folder / "mlruns" / "0")])
    return folder / "mlflow.db"


def client():
    return connect(os.environ["MLFLOW_TRACKING_URI"])


def rows():
    """Oldest first."""
    return client().search_runs(["0"], order_by=["attributes.start_time"])


def steps(run_id, key="retain.accuracy"):
    return sorted(point.step for point in client().get_metric_history(run_id, key))


def outboxes(home):
    return list((home / ".lethe" / "outbox").glob("*/"))


def launcher_row(**params):
    """A row as `mlflow run` makes it before the program starts."""
    tags = {"mlflow.project.entryPoint": "hybrid", "mlflow.source.name": f"file://{ROOT}", "mlflow.source.type": "PROJECT"}
    run = client().create_run("0", tags=tags)
    for pair in params.items():
        client().log_param(run.info.run_id, *pair)
    return run.info.run_id


def artifact(run_id, path):
    return Path(client().download_artifacts(run_id, path)).read_text()


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_a_shell_still_names_is_left_alone(status, home, monkeypatch, caplog):
    old = client().create_run("0", run_name="last week's")
    client().set_terminated(old.info.run_id, status)
    monkeypatch.setenv("MLFLOW_RUN_ID", old.info.run_id)
    with RunLog.open(home, name="model_4 on digits", tags={"method": "model_4"}) as row:
        row.metrics(EPOCH, 0)
    assert 'MLFLOW_RUN_ID names the run "last week\'s", which has ended: model_4 on digits is a run of its own' in caplog.text
    kept, own = (client().get_run(run_id) for run_id in (old.info.run_id, row.run_id))
    assert (kept.info.status, kept.data.metrics, "method" in kept.data.tags) == (status, {}, False)
    assert (own.info.status, own.data.tags["method"]) == ("FINISHED", "model_4")


def test_a_run_of_another_workspace_is_left_alone(home, monkeypatch, caplog):
    theirs = client().create_run("0", run_name="theirs", tags={mlflow_store.ROW: "abc", mlflow_store.HOME: "another"}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    with RunLog.open(home, name="ours", tags={"method": "model_4"}) as row:
        row.metrics(EPOCH, 0)
    assert "MLFLOW_RUN_ID names the run 'theirs', which is of another workspace: ours is a run of its own" in caplog.text
    assert row.run_id != theirs and not client().get_run(theirs).data.metrics


def test_a_row_holds_what_it_was_told(home, capfd):
    long = "x" * 7000
    with RunLog.open(
        home,
        name="hybrid_4 on digits",
        tags={"method": "hybrid_4", "unknown": None},
        params={"lr": 0.001, "batch": None, "flip": True, "classes": ["cat", "dog"], "recipe": long},
        description="What *it* does",
    ) as row:
        row.metrics({**EPOCH, "scale": None}, 0)
        row.metrics({"retain.accuracy": 99.0, "forget.loss": math.nan, "retain.loss": math.inf}, 1)
        row.dataset(name="digits", digest="f" * 64, source="scikit-learn", shape=(3, 32, 32), classes=["0", "1"], profile={"train": 9})
        row.text("config/params.yaml", "a: 1\n")
        (home / "epochs.csv").write_text("epoch\n")
        row.file(home / "epochs.csv")
        row.tag("device", "cpu")
    assert capfd.readouterr().err == ""
    (run,) = rows()
    run_id, data = run.info.run_id, run.data
    assert (run.info.run_name, run.info.status) == ("hybrid_4 on digits", "FINISHED")
    assert row.run_id == run_id
    assert data.params == {"lr": "0.001", "batch": "null", "flip": "true", "classes": "cat,dog"}
    assert artifact(run_id, "params/recipe.txt") == long
    assert artifact(run_id, "epochs.csv") == "epoch\n"
    assert artifact(run_id, "config/params.yaml") == "a: 1\n"
    assert data.tags["method"] == "hybrid_4"
    assert data.tags["device"] == "cpu"
    assert "unknown" not in data.tags
    assert data.tags["mlflow.note.content"] == "What *it* does"
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert data.tags["mlflow.source.git.commit"] == head
    assert data.tags["git_dirty"] in ("true", "false")
    assert sorted(data.metrics) == ["forget.loss", "retain.accuracy", "retain.loss"]
    assert math.isnan(data.metrics["forget.loss"])
    assert math.isnan(data.metrics["retain.loss"])
    assert steps(run_id) == [0, 1]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "digits"
    assert json.loads(used.dataset.profile)["train"] == 9
    assert not outboxes(home)
    assert not list((home / ".lethe" / "outbox").iterdir())


def test_telling_needs_no_mlflow(tmp_path):
    """It takes seconds to import, and the first step must not wait for it."""
    code = "import sys, lethe.tracking.run_log; sys.exit(any(m in sys.modules for m in ('mlflow', 'torch', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_and_stops_end_the_row_as_what_they_were(home):
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")):
        with pytest.raises(error), RunLog.open(home, name=status):
            raise error
        assert rows()[-1].info.status == status
    assert not outboxes(home)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (MemoryError, "FAILED")])
def test_a_stop_or_failure_while_the_last_curves_are_drawn_ends_the_row(error, status, home):
    def stopped():
        raise error

    row = RunLog.open(home, name="a")
    row.refresh(stopped, "curves.png", wait=60)
    with pytest.raises(error):
        row.close()
    assert rows()[0].info.status == status and not outboxes(home)


def test_a_stop_while_a_log_is_opened_ends_its_row(home, monkeypatch):
    start = sender.Sender.start

    def stopped(self):
        monkeypatch.setattr(sender.Sender, "start", start)
        raise KeyboardInterrupt

    monkeypatch.setattr(sender.Sender, "start", stopped)
    with pytest.raises(KeyboardInterrupt):
        RunLog.open(home, name="a")
    assert rows()[0].info.status == "KILLED" and not outboxes(home)


def test_a_stop_before_a_log_has_its_header_leaves_nothing(home, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        RunLog.open(home, name="a")
    assert not list((home / ".lethe" / "outbox").iterdir())


def test_a_launchers_row_is_joined_and_its_parameters_are_left(home, monkeypatch):
    run_id = launcher_row(lr="1e-3", epochs="10")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with RunLog.open(home, name="hybrid_4", params={"lr": 0.001, "epochs": 10, "seed": 0}, tags={"method": "hybrid_4"}) as row:
        row.metrics(EPOCH, 0)
    (run,) = rows()
    assert run.info.run_id == run_id == row.reference()["run_id"]
    assert (run.info.run_name, run.info.status) == ("hybrid_4", "FINISHED")
    assert run.data.params == {"lr": "1e-3", "epochs": "10", "seed": "0"}
    assert run.data.tags["method"] == "hybrid_4"
    assert run.data.tags["mlflow.source.type"] == "PROJECT"


def test_a_launchers_row_says_why_its_program_failed(home, monkeypatch):
    run_id = launcher_row()
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    note_error("left in a shell")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert "error" not in rows()[0].data.tags
    note_error("run.sede is unknown")
    assert rows()[0].data.tags["error"] == rows()[0].data.tags["mlflow.note.content"] == "run.sede is unknown"
    client().set_terminated(run_id, "FAILED")
    note_error("something later")
    assert rows()[0].data.tags["error"] == "run.sede is unknown"


def test_rows_of_a_chain_stand_under_one(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", launcher_row())
    with RunLog.open(home, name="as_run") as chain:
        for method in ("model_1", "model_2"):
            with RunLog.open(home, name=method, parent=chain.reference()) as row:
                row.metrics(EPOCH, 0)
    top, *under = rows()
    assert [run.info.run_name for run in (top, *under)] == ["as_run", "model_1", "model_2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in under} == {top.info.run_id}


def test_the_callers_experiment(home, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cats and dogs")
    for name in ("first", "second"):
        RunLog.open(home, name=name, tags={"method": name}).close()
    assert not rows()
    assert [row["name"] for row in find_runs({})] == ["second", "first"]
    assert [row["name"] for row in find_runs({"method": "first"})] == ["first"]
    assert find_runs({"method": "first"}, "Default") == []
    client().delete_experiment(experiment())
    with RunLog.open(home, name="third") as row:
        row.metrics({"retain.accuracy": 200 / 3}, 0)
    assert "third" in [row["name"] for row in find_runs({})], "its name can't be used otherwise"
    assert client().get_run(row.run_id).data.metrics == {"retain.accuracy": 66.6667}
    RunLog.open(home, name="before", tags={"method": "before"}).close()
    client().delete_experiment("0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "a third")
    RunLog.open(home, name="there").close()
    assert "The experiment Default is deleted in MLflow; these runs are in the experiment a third" in caplog.text
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    with RunLog.join(home, tags={"method": "before"}) as row:
        row.metrics({"test.accuracy": 50.0}, 0)
    assert client().get_run(row.run_id).data.metrics == {"test.accuracy": 50.0}, "a run that was made in another experiment is joined"
    assert experiment() is None


def test_once(home):
    """Original and retrained have one row an experiment, whoever comes first."""
    tags = {"method": "original", "original": "abc"}
    for number in range(2):
        with RunLog.open(home, name=f"original {number}", tags=tags, once=tags) as row:
            row.metrics(EPOCH, 0)
            row.text("a.txt", "a")
    RunLog.open(home, name="another", tags=tags | {"original": "def"}, once=tags | {"original": "def"}).close()
    assert [run.info.run_name for run in rows()] == ["original 0", "another"]
    assert not outboxes(home)


def test_a_finished_row_gets_its_test_accuracy_later(home, caplog):
    for name in ("older", "newer"):
        RunLog.open(home, name=name, tags={"result": "abc"}).close()
    with RunLog.join(home, tags={"result": "abc"}) as row:
        row.metrics({"test.accuracy": 83.98}, 1)
    with RunLog.join(home, rows()[0].info.run_id) as row:
        row.metrics({"test.accuracy": 11}, 1)
    assert [run.data.metrics for run in rows()] == [{"test.accuracy": 11}, {"test.accuracy": 83.98}]
    assert {run.info.status for run in rows()} == {"FINISHED"}
    with RunLog.join(home, tags={"result": "else"}) as row:
        row.metrics({"test.accuracy": 1}, 1)
    assert "MLflow has no run {'result': 'else'}" in caplog.text
    assert not outboxes(home)


def test_what_the_store_refuses_costs_nothing_else(home, caplog):
    with RunLog.open(home, name="a") as row:
        row.metrics(EPOCH, 0)
        row.metrics({"retain%accuracy": 1.0}, 1)
        row.metrics(EPOCH, 2)
    assert "MLflow refused metrics" in caplog.text
    assert steps(rows()[0].info.run_id) == [0, 2]


def test_a_row_that_the_user_deletes_is_let_go(home, caplog):
    with RunLog.open(home, name="a") as row:
        until(lambda: row.run_id)
        client().delete_run(row.run_id)
        row.metrics(EPOCH, 0)
        until(lambda: row.outbox.idle)
        row.metrics(EPOCH, 1)
    assert "The run a was deleted in MLflow" in caplog.text
    assert not rows()
    assert not outboxes(home)


def test_an_artifact_store_that_refuses_does_not_hold_up_the_numbers(home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sender, "MAX_DELAY", 0.1)
    (tmp_path / "mlruns").write_text("in the way")
    row = RunLog.open(home, name="a")
    row.text("a.txt", "told")
    row.metrics(EPOCH, 0)
    until(lambda: "MLflow does not take all of" in caplog.text)
    row.metrics(EPOCH, 1)
    assert row.close() is False
    (run,) = rows()
    assert run.info.status == "RUNNING"
    assert steps(run.info.run_id) == [0, 1]
    (tmp_path / "mlruns").unlink()
    assert send([home]) == 0
    (run,) = rows()
    assert run.info.status == "FINISHED"
    assert artifact(run.info.run_id, "a.txt") == "told"
    assert not outboxes(home)


def test_a_store_that_is_begun_anew_gets_everything_again(home):
    with RunLog.open(home, name="a", params={"lr": 0.1}) as row:
        row.metrics(EPOCH, 0)
        until(lambda: row.run_id and not row.outbox.pending())
        client()._tracking_client.store._hard_delete_run(row.run_id)
        row.metrics(EPOCH, 1)
    (run,) = rows()
    assert run.data.params == {"lr": "0.1"}
    assert steps(run.info.run_id) == [0, 1]


def test_a_growing_artifact_is_refreshed_rarely_and_ends_whole(home, monkeypatch):
    table, drawn = home / "epochs.csv", []

    def draw():
        drawn.append(1)
        return b"png"

    with RunLog.open(home, name="a") as row:
        for epoch in range(100):
            table.write_text(f"{epoch}\n")
            row.refresh(table, "epochs.csv")
            row.refresh(draw, "curves.png")
        assert len(drawn) == 1
        row.refresh(draw, "last.png", last=True)
        assert len(drawn) == 1
    (run,) = rows()
    assert len(drawn) == 3
    assert artifact(run.info.run_id, "last.png") == "png"
    assert artifact(run.info.run_id, "epochs.csv") == "99\n"


KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from lethe.tracking.run_log import RunLog
previous = json.loads(sys.argv[3])
row = RunLog.open(Path(sys.argv[1]), name="killed", tags={"method": "model_1"}, params={"lr": 0.1}, previous=previous)
while sys.argv[2] == "late" and row.run_id is None:
    time.sleep(0.02)
for step in range(int(sys.argv[4]), int(sys.argv[4]) + 5):
    row.metrics({"retain.accuracy": step, "forget.loss": 1.0}, step)
row.text("note.txt", "told")
print(json.dumps(row.reference()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def forked(home, warm: Warm):
    """`python <words>`, forked, in the environment of this process; `again`: packages that it imports itself."""

    def start(*words, again=()):
        return warm.start([str(word) for word in words], home.parent, os.environ, [ROOT / "src"] if again else [], again).wait()

    return start


@pytest.fixture
def killed(home, forked):
    """Makes a run that is killed with -9 after five epochs, before or after its row was made; gives what its resume state would hold."""

    def kill(when="early", previous=None, first=0):
        (home.parent / "killed.py").write_text(KILLED)
        again = ("lethe", "mlflow") if when == "early" else ()  # while MLflow is imported nothing is sent
        done = forked(home.parent / "killed.py", home, when, json.dumps(previous), first, again=again)
        assert done.returncode == -signal.SIGKILL, done.stderr
        reference = json.loads(done.stdout)
        own = [folder for folder in outboxes(home) if folder.name.startswith(reference["row"])]
        assert own
        # the git that it had begun to start holds its lock, too, until that is another program
        until(lambda: not any(map(is_held, own)))
        return reference

    return kill


def is_held(folder):
    try:
        with FileLock(f"{folder}.lock", timeout=0):
            return False
    except Timeout:
        return True


def test_a_killed_runs_outbox_is_sent_by_the_next_start(home, killed):
    killed()
    RunLog.open(home, name="next").close()
    old, new = rows()
    assert (old.info.run_name, old.info.status) == ("killed", "KILLED")
    assert new.info.status == "FINISHED"
    assert steps(old.info.run_id) == list(range(5))
    assert artifact(old.info.run_id, "note.txt") == "told"
    assert old.data.params == {"lr": "0.1"}
    assert not outboxes(home)


def test_a_line_cut_off_by_the_kill_was_never_told(home, killed):
    killed()
    with (outboxes(home)[0] / "records.jsonl").open("a") as file:
        file.write('{"metrics": [["retain.accuracy"')
    RunLog.open(home, name="next").close()
    assert steps(rows()[0].info.run_id) == list(range(5))
    assert not outboxes(home)


EARLIER = """{"metrics": [["retain.accuracy", 98.5, 1, 1700000000000], ["forget.loss", NaN, 1, 1700000000000]]}
{"params": {"lr": "0.1"}}
{"tags": {"method": "model_1"}}
{"artifact": "note.txt"}
{"end": {"status": "FINISHED", "time": 1700000001000}}
"""


def planted(home, uri, records=EARLIER):
    """An outbox as commit 8948325 wrote it: the names of files and keys are a format."""
    folder = home / ".lethe" / "outbox" / "0123456789abcdef.01234567"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "note.txt").write_text("told")
    (folder / "records.jsonl").write_text(records)
    header: dict[str, object] = {
        "row": "0123456789abcdef",
        "uri": uri,
        "experiment_id": None,
        "experiment_name": None,
        "run_id": None,
        "name": "earlier",
    }
    header |= {"source": "src/unlearn.py", "started": 1700000000000, "previous": None, "resumes": False, "parent": None, "once": None}
    (folder / "row.json").write_text(json.dumps(header))
    (folder / "sent.json").write_text(json.dumps({"run_id": None, "tried": True, "sent": 0, "late": []}))
    return folder


def test_an_outbox_for_another_store_is_left_where_it_is_and_said(home, tmp_path, caplog):
    """It may be of somebody else: the caller's credentials and files are not for the store that it names."""
    other = tmp_path / "other"
    folder = planted(home, f"sqlite:///{other}/mlflow.db")
    assert send([home]) == 5
    RunLog.open(home, name="next").close()
    assert [run.info.run_name for run in rows()] == ["next"]
    assert not other.exists()
    assert outboxes(home) == [folder]
    (said, again) = (record.getMessage() for record in caplog.records)
    assert said == again
    assert f"another MLflow store, sqlite:///{other}/mlflow.db, and are left there" in said
    assert f"MLFLOW_TRACKING_URI=sqlite:///{other}/mlflow.db" in said


def test_an_outbox_sends_no_file_of_others_and_no_line_that_is_no_record(home, tmp_path, caplog):
    (tmp_path / "secret.txt").write_text("secret")
    lines = [
        *EARLIER.splitlines()[:-1],
        '{"artifact": "link.txt"}',
        '{"artifact": "../row.json"}',
        '{"params": [1]}',
        '{"tags": {"method": "m',
    ]
    model = {"folder": "linked", "name": "model", "kind": "safetensors", "step": 0, "final": True, "shapes": [[3, 32, 32], [10]]}
    lines += [json.dumps({"model": model}), EARLIER.splitlines()[-1]]
    folder = planted(home, os.environ["MLFLOW_TRACKING_URI"], "\n".join(lines) + "\n")
    (folder / "artifacts" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "models").mkdir()
    (folder / "models" / "linked").symlink_to(tmp_path)
    assert send([home]) == 0
    (run,) = rows()
    assert run.info.status == "FINISHED"
    assert [each.path for each in client().list_artifacts(run.info.run_id)] == ["note.txt"]
    assert not client().search_logged_models(["0"])
    said = [record.getMessage().removeprefix(f"{folder}") for record in caplog.records]
    assert said == [
        "/records.jsonl: 2 lines are no records, or damaged, and left out",
        ": the artifact link.txt is no file of its own, and is not sent",
        ": the artifact ../row.json is no file of its own, and is not sent",
        ": the model linked is no folder of its own, and is not sent",
        f"{home}/.lethe/damaged/{folder.name}.jsonl has the lines that were left out",
    ]


def test_a_damaged_file_is_kept_and_everything_else_is_sent(home, killed, caplog):
    killed()
    (folder,) = outboxes(home)
    (folder / "artifacts" / "note.txt").write_text("tolb")
    assert send([home]) == 0
    (run,) = rows()
    assert steps(run.info.run_id) == list(range(5)) and not client().list_artifacts(run.info.run_id)
    kept = home / ".lethe" / "damaged" / folder.name / "artifacts" / "note.txt"
    assert kept.read_text() == "tolb" and not outboxes(home)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{folder}: artifacts/note.txt is not as it was written, and is not sent; {kept} has it"]


def test_an_outbox_of_an_earlier_version_is_sent(home):
    planted(home, os.environ["MLFLOW_TRACKING_URI"])
    assert send([home]) == 0
    (run,) = rows()
    assert (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time) == (
        "earlier",
        "FINISHED",
        1700000000000,
        1700000001000,
    )
    assert run.data.tags["lethe.row"] == "0123456789abcdef"
    assert run.data.tags["lethe.home"] == mlflow_store.workspace_hash(home)
    assert run.data.tags["method"] == "model_1"
    assert run.data.params == {"lr": "0.1"}
    assert run.data.metrics["retain.accuracy"] == 98.5
    assert math.isnan(run.data.metrics["forget.loss"])
    assert artifact(run.info.run_id, "note.txt") == "told"
    assert not outboxes(home)


@pytest.mark.parametrize("when", ["early", pytest.param("late", marks=pytest.mark.slow)])
def test_a_resumed_run_joins_its_row(home, killed, when):
    reference = killed(when)
    history = [(step, {"retain.accuracy": step, "forget.loss": 1.0}) for step in range(5)]
    with RunLog.open(home, name="resumed", params={"lr": 0.1}, previous=reference, history=history) as row:
        row.metrics(EPOCH, 5)
    (run,) = rows()
    assert (run.info.run_name, run.info.status) == ("resumed", "FINISHED")
    assert row.reference()["row"] == reference["row"]
    assert steps(run.info.run_id) == list(range(6)) == steps(run.info.run_id, "forget.loss")


def test_a_run_killed_twice_before_anything_was_sent_has_one_row(home, killed):
    reference = killed(previous=killed(), first=5)
    assert len(outboxes(home)) == 2
    with RunLog.open(home, name="a", previous=reference, history=[(step, EPOCH) for step in range(10)]) as row:
        row.metrics(EPOCH, 10)
    (run,) = rows()
    assert run.info.status == "FINISHED"
    assert steps(run.info.run_id) == list(range(11))


def test_a_resumed_run_ends_after_its_beginning_was_sent_by_another_thread(home, killed):
    """As in a chain: the sender of the parent run took the outbox that the kill left, and is slower than the whole resumed run."""
    reference = killed()
    (beginning,) = abandoned(home)
    row = RunLog.open(home, name="resumed", previous=reference, history=[(step, EPOCH) for step in range(6)])
    with ThreadPoolExecutor() as pool:
        closing = pool.submit(row.close)
        wait([closing], timeout=1.0)
        assert Delivery(beginning).attempt() == ""
        assert closing.result()
    (run,) = rows()
    assert (run.info.run_name, run.info.status) == ("resumed", "FINISHED")
    assert steps(run.info.run_id) == list(range(6))
    assert not outboxes(home)


def test_a_nested_run_that_ends_before_its_parent_was_sent_waits_for_it(home, killed):
    reference = killed()
    (parent,) = abandoned(home)
    row = RunLog.open(home, name="nested", parent=reference)
    with ThreadPoolExecutor() as pool:
        closing = pool.submit(row.close)
        wait([closing], timeout=1.0)
        assert Delivery(parent).attempt() == ""
        assert closing.result()
    top, nested = rows()
    assert (nested.info.status, nested.data.tags["mlflow.parentRunId"]) == ("FINISHED", top.info.run_id)


@pytest.mark.parametrize("moment", ["look_up", "parents"])
def test_a_parent_that_is_sent_while_it_is_looked_for_is_found(moment, home, killed, monkeypatch):
    """A moment after the nested run did not find it in the store, or found its outbox."""
    reference = killed()
    (parent,) = abandoned(home)
    owner = mlflow_delivery if moment == "look_up" else Outbox
    original = getattr(owner, moment)
    sent: list[bool] = []

    def then_sent(*args):
        found = original(*args)
        if not sent and (moment == "parents" or args[1] == nested.outbox.header["parent"]):
            sent.append(True)
            assert Delivery(parent).attempt() == ""
        return found

    header = {"run_id": None, "source": "", "started": now(), "previous": None, "resumes": False, "once": None, **destination()}
    nested = Delivery(Outbox.create(home, {**header, "row": "nested", "name": "nested", "parent": reference}))
    monkeypatch.setattr(owner, moment, then_sent)
    assert [nested.attempt(), nested.attempt()] == [{"look_up": "", "parents": "waits"}[moment], ""]
    top, row = rows()
    assert row.data.tags["mlflow.parentRunId"] == top.info.run_id
    nested.outbox.remove()


def test_a_nested_run_waits_for_no_parent_that_the_store_refuses(home, monkeypatch):
    """Each seed and each model of a bank would wait two minutes at its end."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "999999")
    header = {"run_id": None, "source": "", "started": now(), "previous": None, "resumes": False, "once": None, **destination()}
    chain = Delivery(Outbox.create(home, {**header, "row": "chain", "name": "chain", "parent": None}))
    nested = Delivery(Outbox.create(home, {**header, "row": "nested", "name": "nested", "parent": {"row": "chain", "run_id": None}}))
    assert [nested.attempt(), chain.attempt(), nested.attempt()] == ["waits", "stuck", "stuck"]
    for delivery in (chain, nested):
        delivery.outbox.lock.release()


def test_an_older_outbox_that_nobody_can_read_holds_up_no_end(home, killed):
    reference = killed()
    (outboxes(home)[0] / "row.json").write_text("{}")
    RunLog.open(home, name="resumed", previous=reference).close()
    assert [run.info.status for run in rows()] == ["FINISHED"]


def test_a_resumed_run_sends_what_its_row_lacks(home, killed):
    """The kill came between saving the resume state and telling the epoch."""
    reference = killed()
    with RunLog.open(home, name="a", previous=reference, history=[(step, EPOCH) for step in range(8)]):
        pass
    (run,) = rows()
    assert steps(run.info.run_id) == list(range(8))


def test_a_resumed_run_under_a_new_launcher_has_all_epochs_and_ends_the_old(home, killed, monkeypatch):
    reference = killed()
    run_id = launcher_row()
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with RunLog.open(home, name="new", previous=reference, history=[(step, EPOCH) for step in range(5)]) as row:
        row.metrics(EPOCH, 5)
    old, new = sorted(rows(), key=lambda run: run.info.run_name)
    assert (old.info.run_name, old.info.status, old.data.tags["continued_in"]) == ("killed", "KILLED", run_id)
    assert (new.info.run_id, new.info.status) == (run_id, "FINISHED")
    assert steps(old.info.run_id) == list(range(5))
    assert steps(run_id) == list(range(6))
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)  # the same launcher again: the same row
    with RunLog.open(home, name="new", previous=row.reference(), history=[(step, EPOCH) for step in range(6)]) as row:
        row.metrics(EPOCH, 6)
    assert len(rows()) == 2
    assert steps(run_id) == list(range(7))


def test_a_resumed_run_whose_row_is_gone_has_a_new_one(home, killed, tmp_path, monkeypatch, migrated):
    reference = killed()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store(tmp_path / 'other', migrated)}")
    with RunLog.open(home, name="new", previous=reference, history=[(step, EPOCH) for step in range(5)]):
        pass
    (run,) = rows()
    assert run.info.run_name == "new"
    assert steps(run.info.run_id) == list(range(5))


def test_the_outbox_of_a_living_process_is_left_alone(home, forked):
    with RunLog.open(home, name="alive") as row:
        assert list(abandoned(home)) == []
        done = forked(ROOT / "src" / "send.py", home)
        assert (done.returncode, done.stdout) == (0, "1 runs are left to the processes that run them\n")
        end_abandoned_runs(home, os.environ["MLFLOW_TRACKING_URI"])
        until(lambda: row.run_id)
        end_abandoned_runs(home, os.environ["MLFLOW_TRACKING_URI"])
        assert rows()[0].info.status == "RUNNING"


def test_rows_that_nobody_holds_are_swept(home, tmp_path):
    long_ago = int((time.time() - 3600) * 1000)
    fresh = launcher_row()
    ours = {"mlflow.project.entryPoint": "hybrid", "mlflow.source.name": f"file://{ROOT}#sub"}
    left = client().create_run("0", long_ago, ours).info.run_id
    foreign = client().create_run("0", long_ago, ours | {"mlflow.source.name": "/else"}).info.run_id
    plain = client().create_run("0", long_ago).info.run_id
    elsewhere = client().create_run("0", long_ago, {mlflow_store.ROW: "a", mlflow_store.HOME: "b"}).info.run_id
    here = {mlflow_store.ROW: "a", mlflow_store.HOME: mlflow_store.workspace_hash(home)}
    lost = client().create_run("0", long_ago, here).info.run_id
    RunLog.open(home, name="next").close()
    ended = {run.info.run_id: run.info.status for run in rows() if run.info.run_name != "next"}
    assert ended == dict.fromkeys([fresh, foreign, plain, elsewhere], "RUNNING") | {left: "FAILED", lost: "KILLED"}


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory, migrated, request):
    """Begins to start with the first test, for it takes half a minute; only when a test that wants it was chosen."""
    if not any(item.originalname.startswith("test_a_server_") for item in request.session.items if item.module is request.module):
        yield None
        return
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as db:
        db.execute("update experiments set artifact_location = 'mlflow-artifacts:/0'")
    server = Server(folder, f"sqlite:///{folder}/mlflow.db")
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_server_that_goes_away_loses_nothing_and_stops_nobody(home, forked, server, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setattr(sender, "MAX_DELAY", 1.0)
    row = RunLog.open(home, name="a", params={"lr": 0.1})
    for step in range(3):
        row.metrics(EPOCH, step)
    until(server.answers)
    until(lambda: not row.outbox.pending())
    row.text("note.txt", "told")
    until(lambda: not row.outbox.pending())
    server.stop()
    for step in range(3, 50):
        row.metrics(EPOCH, step)
        row.refresh(lambda: b"csv", "epochs.csv")
    assert len(row.outbox.pending()) >= 47
    assert row.close() is False
    assert "are not sent to MLflow yet" in caplog.text
    assert f"src/send.py --run.workspace {home.resolve()}\n" in caplog.text
    assert len(outboxes(home)) == 1
    failed = forked(ROOT / "src" / "send.py", home)
    assert failed.returncode == 1, failed.stderr
    assert "records are not sent" in failed.stdout
    assert "Traceback" not in failed.stderr
    server.start()
    until(server.answers)
    done = subprocess.run([sys.executable, ROOT / "src" / "send.py", home], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Everything is sent\n", "")
    (run,) = rows()
    assert run.info.status == "FINISHED"
    assert steps(run.info.run_id) == list(range(50))
    assert artifact(run.info.run_id, "note.txt") == "told"
    assert artifact(run.info.run_id, "epochs.csv") == "csv"
    assert not outboxes(home)


def test_send_knows_its_folders(forked, tmp_path):
    wrong = forked(ROOT / "src" / "send.py", tmp_path / "nowhere")
    assert wrong.returncode == 2, wrong.stderr
    assert "nowhere is not a folder" in wrong.stderr
    assert (done := forked(ROOT / "src" / "send.py", tmp_path)).returncode == 0, done.stderr
    done = forked(ROOT / "src" / "send.py", "--run.workspace", tmp_path)
    assert (done.returncode, done.stdout) == (0, "Everything is sent\n"), done.stderr


@pytest.mark.parametrize("secret", ["s3cr3t", "s3cr3t/with?signs"])
def test_credentials_appear_nowhere(home, monkeypatch, caplog, secret):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{secret}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "t0k3n")
    with RunLog.open(home, name="a", params={"storage": f"postgresql://u:{secret}@host/db"}, tags={"t": f"https://u:{secret}@h"}) as row:
        row.text("params.yaml", f"storage: postgresql://u:{secret}@host/db t0k3n\n")
        until(lambda: unreachable)
    with pytest.raises(RunFailed) as caught:
        find_runs({})
    told = [file.read_text() for file in home.rglob("*") if file.is_file()]
    assert len(told) >= 3
    assert "postgresql://host/db" in "".join(told)
    for text in [*told, caplog.text, str(caught.value)]:
        assert "s3cr3t" not in text
        assert "t0k3n" not in text


def net():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2)).eval()


INFO = {"architecture": "toy", "classes": ["cat", "dog"], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


def weights(folder):
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(net().state_dict(), folder / "a.safetensors")
    return folder / "a.safetensors"


def test_a_safetensors_model(home):
    import mlflow
    from safetensors.torch import load_file

    with RunLog.open(home, name="a") as row:
        file = weights(home)
        row.checkpoint(file, 1, shape=(3, 8, 8), info=INFO)
        row.metrics(EPOCH, 2)
        row.model(file, "safetensors", shape=(3, 8, 8), info=INFO)
        row.model(file, "none", shape=(3, 8, 8), info=INFO)
        file.unlink()
        row.metrics({"test.accuracy": 84.0}, 2)
        until(lambda: not row.outbox.pending())
        row.metrics({"test.loss": 0.5}, 2)
    (run,) = rows()
    steps = {client().get_logged_model(output.model_id).name: output.step for output in run.outputs.model_outputs}
    assert steps == {"checkpoint": 1, "model": 0}
    (model,) = client().search_logged_models(["0"], "name = 'model'")
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert {metric.key: metric.value for metric in model.metrics} == EPOCH | {"test.accuracy": 84.0, "test.loss": 0.5}
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    signature = mlflow.models.get_model_info(f"models:/{model.model_id}").signature
    assert (signature.inputs.inputs[0].shape, signature.outputs.inputs[0].shape) == ((-1, 3, 8, 8), (-1, 2))
    folder = Path(model.artifact_location)
    assert json.loads((folder / "model.json").read_text()) == INFO
    assert load_file(folder / "model.safetensors").keys() == net().state_dict().keys()


def test_a_run_that_was_killed_when_all_but_its_end_was_sent_has_each_metric_once_and_one_model(home):
    """The metrics of its end are measured again, and have another time."""
    reference = None
    for seconds in (1.5, 2.5):
        row = RunLog.open(home, name="killed twice", history=[(0, EPOCH, 1000)], previous=reference)
        row.metrics({"seconds": seconds}, 0)
        row.model(weights(home), "safetensors", shape=(3, 8, 8), info=INFO)
        row.close("KILLED")
        reference = row.reference()
    (run,) = rows()
    for key in ("seconds", *EPOCH):
        assert steps(run.info.run_id, key) == [0]
    (model,) = client().search_logged_models(["0"])
    assert {metric.key: metric.value for metric in model.metrics} == EPOCH | {"seconds": 1.5}


def test_curves_that_are_added_a_second_time_change_nothing(home):
    RunLog.open(home, name="mean of seeds", tags={"result": "abc"}).close()
    for _ in range(2):
        with RunLog.join(home, tags={"result": "abc"}) as row:
            for step in range(3):
                row.metrics({"retain.accuracy": 90.0 + step}, step)
    assert steps(rows()[0].info.run_id) == [0, 1, 2]


def test_two_commands_at_once_add_each_metric_once_and_make_one_run(home):
    RunLog.open(home, name="a result", tags={"result": "abc"}).close()
    scores = [RunLog.join(home, tags={"result": "abc"}) for _ in range(2)]
    references = [RunLog.open(home, name="original", tags={"method": "original"}, once={"method": "original"}) for _ in range(2)]
    for row in (*scores, *references):
        row.metrics({"test.accuracy": 84.0}, 5)
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(RunLog.close, (*scores, *references)))
    assert [(run.info.run_name, steps(run.info.run_id, "test.accuracy")) for run in rows()] == [("a result", [5]), ("original", [5])]


def test_an_outbox_whose_removal_was_cut_off_belongs_to_no_killed_run(home):
    row = RunLog.open(home, name="a")
    row.close()
    folder = row.outbox.folder
    folder.mkdir()
    (folder / "records.jsonl").write_text("{}\n")  # row.json is removed first
    RunLog.open(home, name="next").close()
    assert {run.info.status for run in rows()} == {"FINISHED"} and not outboxes(home)


LOAD = """
import json, sys
sys.modules["lethe"] = None
import mlflow, torch
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(f"models:/{sys.argv[2]}")
batch = torch.linspace(-1, 1, 5 * 3 * 8 * 8).reshape(5, 3, 8, 8)
print(json.dumps(model(batch).tolist()))
"""


@pytest.mark.slow
def test_a_pt2_model_loads_without_this_repository(home, tmp_path, capfd):
    import mlflow
    import torch

    with RunLog.open(home, name="a") as row:
        row.model(weights(home), "pt2", shape=(3, 8, 8), info=INFO, module=net)
    assert capfd.readouterr() == ("", "")
    (model,) = client().search_logged_models(["0"])
    assert model.status == "READY"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    assert mlflow.models.get_model_info(f"models:/{model.model_id}").signature.inputs.inputs[0].shape == (-1, 3, 8, 8)
    assert not [file for file in Path(model.artifact_location).rglob("*") if file.suffix in (".pth", ".pkl", ".pickle")]
    command = [sys.executable, "-c", LOAD, os.environ["MLFLOW_TRACKING_URI"], model.model_id]
    given = json.loads(subprocess.check_output(command, cwd=tmp_path, text=True, stderr=subprocess.DEVNULL))
    batch = torch.linspace(-1, 1, 5 * 3 * 8 * 8).reshape(5, 3, 8, 8)
    assert given == net()(batch).tolist()


def test_an_export_that_fails_loses_nothing(home, caplog):
    def broken():
        raise RuntimeError("no such layer\nand more")

    with RunLog.open(home, name="a") as row:
        row.metrics(EPOCH, 0)
        row.model(weights(home), "pt2", shape=(3, 8, 8), info=INFO, module=broken)
        row.metrics(EPOCH, 1)
    assert "can't be exported as pt2, it is logged as safetensors: no such layer" in caplog.text
    (model,) = client().search_logged_models(["0"])
    assert model.model_type == "safetensors"
    assert steps(rows()[0].info.run_id) == [0, 1]


def test_a_result_is_the_next_version_in_the_registry_under_its_alias(home, tmp_path, caplog):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    logged = []
    for number in range(2):
        with RunLog.open(home, name=f"run {number}") as row:
            row.model(file, "safetensors", shape=(3, 2, 2), info={"classes": ["a", "b"]}, registered=("the team's cats", "champion"))
        logged.append(client().get_run(row.run_id).outputs.model_outputs[0].model_id)
        register(client(), logged[-1], str(row.run_id), "the team's cats", "champion")  # as when a process was killed right after it
    versions = sorted(client().search_model_versions(), key=lambda each: int(each.version))
    assert [(each.name, int(each.version)) for each in versions] == [("the team's cats", 1), ("the team's cats", 2)]
    assert [each.source for each in versions] == [client().get_logged_model(model).artifact_location for model in logged]
    assert int(client().get_model_version_by_alias("the team's cats", "champion").version) == 2
    assert "registered in MLflow: the team's cats version 2, alias champion" in caplog.text


def test_a_store_appears_whole_or_not_at_all(tmp_path, migrated, monkeypatch):
    """MLflow takes eight seconds for its tables. `migrated` began with the file of a process that was killed in between."""
    from mlflow.store.db import utils

    assert {path.name for path in migrated.parent.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.half-made"}
    path = tmp_path / "mlflow.db"
    with monkeypatch.context() as stopped:
        stopped.setattr(utils, "_upgrade_db", lambda engine: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            store_birth.ensure(path, "artifacts")
    assert not list(tmp_path.iterdir())
    for content in (migrated.read_bytes(), b"no database at all, and not ours to replace"):
        path.write_bytes(content)
        store_birth.ensure(path, "artifacts")
        assert path.read_bytes() == content
        assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
