"""A run that is killed at any moment and started again by the same command ends as if nothing had happened."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from lethe.config import loader as config
from lethe.models import checkpoint
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.recipes.recipe import Phase, Recipe
from support.project import Project, Warm, at, at_file, at_step, copied

BATCHES = 8  # of the project's 60 images each, in batches of 8
KILLED = -signal.SIGKILL
KILLS = 5  # random batches of every phase


def command(method: str, **changes: Any) -> list[str]:
    own = [word for name, value in changes.items() for word in (f"--methods.{method}.{name}", str(value))]
    return ["--method", method, "--run.evaluate", "false", *own]


def moments(recipe: Recipe, seed: str) -> list[tuple[int, int]]:
    """Random batches of every phase, as (steps before their epoch, steps in it before they are taken): where to be killed."""
    chosen, steps = [], 0
    for phase in (step for step in recipe if isinstance(step, Phase)):  # an edit takes no step
        batches = []
        for epoch in range(phase.epochs):
            length = len(phase.batch_order(dict.fromkeys(phase.streams, BATCHES), epoch))
            batches += [(steps, batch) for batch in range(length)]
            steps += length
        chosen += random.Random(f"{seed} {phase.name}").sample(batches, KILLS)
    return sorted(chosen)


def result(project: Project, method: str) -> tuple[bytes, bytes]:
    """Equal tensors and metadata are equal bytes: test_cli holds it."""
    return tuple((project.root / path).read_bytes() for path in (f"models/{method}.safetensors", f"epochs/{method}.csv"))  # type: ignore[return-value]


def half_written(project: Project) -> list[Path]:
    return list(project.root.rglob(".*.part"))


def states(project: Project) -> list[Path]:
    return list((project.root / ".lethe" / "resume").glob("*/state.safetensors"))


def behind(said: str) -> int | None:
    """The epoch behind which a run went on, by its own words."""
    return next((int(line.rsplit(" ", 1)[1]) for line in said.splitlines() if "resuming after epoch" in line), None)


def uninterrupted(project: Project, method: str, argv: list[str]) -> tuple[bytes, bytes]:
    """What a process of its own makes at one go; taken away again."""
    project.ran("unlearn", *argv)
    made = result(project, method)
    for path in (f"models/{method}.safetensors", f"epochs/{method}.csv"):
        (project.root / path).unlink()
    return made


@pytest.fixture(scope="module")
def methods(built: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for all ten, which do not touch each other's files."""
    return copied(built, tmp_path_factory.mktemp("resume") / "project", warm)


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in PAPER_METHODS if name != "hybrid_4"]


@pytest.mark.parametrize("method", [*OTHERS, "hybrid_4", "lethe"])
def test_killed_in_every_phase_it_ends_the_same(method: str, methods: Project) -> None:
    """As processes: the report's methods, and one whose losses look at whole splits. The contract tests stop all methods."""
    argv, left = command(method, keep="best"), states(methods)  # by another method whose test failed
    whole = uninterrupted(methods, method, argv)
    recipe = config.load(argv, params=methods.root / "params.yaml").recipe()
    reached = 0  # steps from the beginning that need not be taken again
    for before, within in moments(recipe, method):
        done = methods.run("unlearn", *argv, **at_step(1 + before + within - reached))
        assert done.returncode == KILLED, done.stderr
        assert not (methods.root / "models" / f"{method}.safetensors").exists()
        reached = before
    last = methods.ran("unlearn", *argv)
    assert behind(last.stderr) is not None
    assert result(methods, method) == whole
    assert states(methods) == left
    _, row = methods.rows(method=method)
    assert row["status"] == "FINISHED"
    epochs = sum(step.epochs if isinstance(step, Phase) else 1 for step in recipe)
    assert [step for step, _ in row["metrics"]["retain.accuracy"]] == [*range(1 + epochs)]


def test_the_original_too(project: Project, built: Path) -> None:
    """With crops, flips, and a learning rate that changes in every step."""
    original = project.root / "models" / "original.safetensors"
    made = original.read_bytes()
    original.unlink()
    for step in (3, 9, 1, 13):  # 8 steps an epoch, 2 epochs and 1
        assert (done := project.run("pretrain", **at_step(step))).returncode == KILLED, done.stderr
    assert behind(project.ran("pretrain").stderr) == 2
    assert original.read_bytes() == made


def test_the_best_epoch_outlives_a_kill(project: Project) -> None:
    """An epoch that a later process no longer sees is what the run ends on."""
    argv = command("model_5", keep="best", lr=0.05, epochs=6, scale=-1.0)
    whole = uninterrupted(project, "model_5", argv)
    table = [line.split(",") for line in whole[1].decode().splitlines()]
    column = table[0].index("validation.accuracy")
    accuracy = [float(row[column]) for row in table[2:]]
    best = accuracy.index(max(accuracy))
    assert best + 2 < len(accuracy), "the numbers of this test no longer make an early epoch the best"
    assert (done := project.run("unlearn", *argv, **at_step(16 * (best + 2)))).returncode == KILLED, done.stderr  # 8 pairs an epoch
    assert behind(project.ran("unlearn", *argv).stderr) == best + 1
    assert result(project, "model_5") == whole


def test_killed_between_two_files(project: Project) -> None:
    argv = command("model_6")
    whole = uninterrupted(project, "model_6", argv)
    chain = [
        (None, at_file("state.safetensors", 1)),  # where it begins; where it is killed
        (None, at_file("state.safetensors", 3)),
        (1, at("lethe.tracking.run_log:RunLog.metrics", 3)),  # told of 0 and 1 again; 2 is saved, and MLflow has not heard of it
        (2, at_file("model_6.csv")),
        (5, at_file("model_6.safetensors")),
        (5, at("lethe.engine.resume:Resume.done", 1)),
    ]
    for epoch, moment in chain:
        done = project.run("unlearn", *argv, **moment)
        assert (done.returncode, behind(done.stderr)) == (KILLED, epoch)
        assert len(half_written(project)) == (json.loads(moment["HIT"])["file"] is not None)
    assert behind(project.ran("unlearn", *argv).stderr) == 5
    assert half_written(project) == []
    assert result(project, "model_6") == whole
    assert states(project) == []
    _, unsaved, finished = project.rows(method="model_6")
    assert (unsaved["status"], finished["status"]) == ("KILLED", "FINISHED")
    assert [step for step, _ in finished["metrics"]["forget.loss"]] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("moment", "epoch"),
    [(at_step(20, signal.SIGTERM), 1), (at_file("state.safetensors", 2, signal.SIGINT), 0), (at_step(9, signal.SIGHUP), 0)],
    ids=["SIGTERM in a step", "Ctrl-C while the state is written", "the terminal is closed"],
)
def test_stopped_by_the_user(moment: dict[str, str], epoch: int, project: Project) -> None:
    argv = command("hybrid_3")
    done = project.run("unlearn", *argv, **moment)
    assert done.returncode == 130, done.stderr
    assert f"hybrid_3: stopped; the same command resumes after epoch {epoch}" in done.stderr
    assert "Traceback" not in done.stderr
    (row,) = project.rows(method="hybrid_3")
    assert row["status"] == "KILLED"
    (state,) = states(project)
    assert list(state.parent.iterdir()) == [state], "half a file is left"
    again = project.ran("unlearn", *argv)
    assert behind(again.stderr) == epoch
    (row,) = project.rows(method="hybrid_3")
    assert row["status"] == "FINISHED"
    assert [step for step, _ in row["metrics"]["scale"]] == [1, 2, 3]
    assert [step for step, _ in row["metrics"]["gap"]] == [0, 1, 2, 3, 4, 5]


def test_stopped_when_only_records_are_left_to_send(project: Project) -> None:
    argv = command("model_1")
    done = project.run("unlearn", *argv, **at("lethe.tracking.sender:Sender._wait", 1, signal.SIGTERM))
    assert (done.returncode, "Traceback" in done.stderr) == (130, False), done.stderr
    for _ in range(2):
        (row,) = project.rows(method="model_1")
        assert row["status"] == "FINISHED" and not list(project.root.glob(".lethe/outbox/*/"))
        assert [step for step, _ in row["metrics"]["gap"]] == [0, 1, 2, 3]
        project.ran("unlearn", *argv)


def test_only_the_same_run_goes_on(project: Project) -> None:
    """Not with another recipe, split, seed or precision, nor another method with the same recipe."""
    models = project.root / "models"
    references = [
        "--pretrain.checkpoint",
        str(project.root / "given.safetensors"),
        "--retrain.checkpoint",
        str(project.root / "given.safetensors"),
    ]
    (models / "original.safetensors").rename(project.root / "given.safetensors")  # given ones belong to any seed
    (models / "retrained.safetensors").unlink()
    same = [*command("model_1"), *references]

    def goes_on(*argv: str, steps: int = 1) -> int | None:
        done = project.run("unlearn", *argv, **at_step(steps))
        assert done.returncode == KILLED, done.stderr
        return behind(done.stderr)

    assert goes_on(*same, steps=9) is None
    assert goes_on(*same, "--methods.model_1.lr", "0.02") is None
    assert goes_on(*same, "--run.seed", "1") is None
    assert goes_on(*same, "--run.precision", "bfloat16") is None
    assert goes_on(*command("model_2", trains="all"), *references) is None
    assert goes_on(*same) == 1
    other = ["--data.forget.count", "50"]
    project.ran("prepare", *other)
    project.ran("retrain", *other, *references)
    assert goes_on(*same, *other) is None
    project.ran("prepare")
    project.ran("retrain", *references)
    assert goes_on(*same, "--run.threads", "2", steps=9) == 1
    went_on = [json.loads(checkpoint.metadata(path)["state"]) for path in states(project)]
    assert [state["threads"] for state in went_on if state["number"] == 2] == [1], "the threads that it began with"


LAUNCHED = """
from lethe.tracking import mlflow_store, outbox
client = mlflow_store.connect(outbox.destination()["uri"])
tags = {"mlflow.project.entryPoint": "unlearn", "mlflow.source.type": "PROJECT"}
print(client.create_run("0", tags=tags, run_name="launched").info.run_id)
"""


def test_the_old_row_is_joined_and_under_a_new_one_all_epochs_move(project: Project) -> None:
    argv = command("model_6")
    old = project.script(LAUNCHED)
    assert (done := project.run("unlearn", *argv, MLFLOW_RUN_ID=old, **at_step(20))).returncode == KILLED, done.stderr
    stopped = project.run("unlearn", *argv, **at_step(20, signal.SIGINT))
    assert (stopped.returncode, behind(stopped.stderr)) == (130, 1)
    (row,) = project.rows()
    assert (row["run_id"], row["status"]) == (old, "KILLED")
    assert [step for step, _ in row["metrics"]["forget.accuracy"]] == [0, 1, 2]
    new = project.script(LAUNCHED)
    assert behind(project.ran("unlearn", *argv, MLFLOW_RUN_ID=new).stderr) == 2
    rows = {row["run_id"]: row for row in project.rows() if row["name"] not in ("original", "retrained")}
    assert rows.keys() == {old, new}
    assert (rows[old]["status"], rows[old]["tags"]["continued_in"]) == ("KILLED", new)
    assert (rows[new]["status"], rows[new]["name"]) == ("FINISHED", "model_6")
    assert [step for step, _ in rows[new]["metrics"]["forget.accuracy"]] == [0, 1, 2, 3, 4, 5]
    assert project.times(old, "forget.accuracy").items() < project.times(new, "forget.accuracy").items()


@pytest.mark.parametrize("word", ["lr", "peak"])
def test_a_run_that_diverges(word: str, project: Project) -> None:
    earlier = project.root / "models" / "hybrid_3.safetensors"
    earlier.write_bytes(b"of an earlier run")
    value = {"lr": "1e30", "peak": "-1e30"}[word]  # in the first steps; in epoch 1, as the ramp begins with 0
    done = project.run("unlearn", *command("hybrid_3", **{word: value}))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("failed: "))
    good = 0 if word == "lr" else 1
    assert f"hybrid_3 diverged: phase hybrid, epoch {good}, step " in said
    (state,) = states(project)
    assert str(state) in said
    from safetensors.torch import load_file

    tensors = load_file(state)
    assert tensors
    assert all(value.isfinite().all() for value in tensors.values())
    (row,) = project.rows(method="hybrid_3")
    assert row["status"] == "FAILED"
    assert [step for step, _ in row["metrics"]["gap"]] == list(range(good + 1))
    assert earlier.read_bytes() == b"of an earlier run"


def test_one_run_of_a_method_at_a_time(project: Project) -> None:
    long = command("model_1", epochs=100_000)
    first = project.start("unlearn", *long)
    try:
        first.until(lambda said: " 1/100000" in said)
        second = project.run("unlearn", *command("model_1"))
        assert second.returncode == 1, second.stderr
        assert f"model_1 is already running in this workspace (pid {first.pid})" in second.stderr
        project.ran("unlearn", *command("model_2", epochs=0))
    finally:
        os.kill(first.pid, signal.SIGKILL)
        assert (done := first.wait()).returncode == KILLED, done.stderr
    project.ran("unlearn", *command("model_1", epochs=0))
    assert [row["status"] for row in project.rows(method="model_1")] == ["KILLED", "FINISHED"]
