"""The search: its spaces, what it may see, what a kill costs, what it leads to."""

import csv
import io
import json
import math
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lethe.config import loader as config
from lethe.data.images import load_images
from lethe.engine.epoch_table import MEASURED
from lethe.evaluation.uncertainty import margin_of_error
from lethe.models import checkpoint
from lethe.search.pareto import front
from lethe.search.spaces import argument_values
from support.project import Project, Warm, at_step, copied
from support.searches import SMALL, SPACE, trials


def told(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What must be equal where nothing but a kill differs."""
    same = ("state", "params", "values", "arguments", "curve", "measured", "ran")
    return [{key: trial[key] for key in same} for trial in found if trial["state"] != "FAIL" or "reason" in trial]


@pytest.fixture(scope="module")
def searched(built: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three trials of hybrid_4, undisturbed."""
    project = copied(built, tmp_path_factory.mktemp("searched") / "project", warm)
    done = project.ran("search", *SMALL, "--search.trials", "3", "--search.fresh_seeds", "2")
    (project.root / "stdout").write_text(done.stdout)
    (project.root / "stderr").write_text(done.stderr)
    return project


def test_a_search_and_its_rows(searched: Project) -> None:
    found = trials(searched)
    assert [trial["state"] for trial in found] == ["COMPLETE"] * 3
    own = config.load(params=searched.root / "params.yaml")
    assert found[0]["arguments"] == argument_values(own) | {"unfreeze": "layer1,layer2"}
    assert found[0]["params"].items() <= found[0]["arguments"].items()
    assert found[1]["arguments"] != found[2]["arguments"]
    for trial in found:
        ran = trial["arguments"]["epochs"] + trial["arguments"]["final_epochs"]
        assert (trial["ran"], len(trial["curve"])) == (ran, ran + 1)
    above, *below = (row for row in searched.rows() if row["name"].startswith("search/"))
    assert (above["name"], above["status"]) == ("search/hybrid_4", "FINISHED")
    names = [f"search/hybrid_4/{n}" for n in range(3)]
    assert [row["name"] for row in below[:3]] == names
    for trial, row in zip(found, below[:3], strict=True):
        assert row["status"] == "FINISHED"
        assert row["tags"]["mlflow.parentRunId"] == above["run_id"]
        assert row["tags"]["trial.state"] == "complete"
        assert [step for step, _ in row["metrics"]["search.utility"]] == list(range(trial["ran"] + 1))
        assert row["metrics"]["search.unlearning"][-1][1] == pytest.approx(trial["values"][0], rel=1e-5)  # MLflow has six digits
        assert not [key for key in row["metrics"] if key.startswith("test")]
    assert above["metrics"]["search.done"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    (pictures,) = searched.root.glob(f"mlruns/0/{above['run_id']}/artifacts")
    assert (pictures / "front.png").read_bytes().startswith(b"\x89PNG")
    printed = (searched.root / "stdout").read_text()
    assert printed == (pictures / "front.csv").read_text()
    folder = searched.root / "search" / "hybrid_4"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.json",
        "budgets.csv",
        "budgets.png",
        "fresh.csv",
        "front.csv",
        "front.png",
        "trials.csv",
    ]
    for name in ("front.csv", "trials.csv", "front.png"):
        assert (folder / name).read_bytes() == (pictures / name).read_bytes()
    best = json.loads((folder / "best.json").read_text())
    assert (best["done"], best["hypervolume"]) == (3, pytest.approx(above["metrics"]["search.hypervolume"][-1][1], rel=1e-5))
    assert best.get("trial", -1) == int(above["tags"].get("winner", -1))
    points = [(float(row["unlearning"]), float(row["utility"])) for row in csv.DictReader(io.StringIO(printed))]
    assert front(points) == list(range(len(points)))
    said = (searched.root / "stderr").read_text()
    assert said.count(" of 3 done, 0 running, 0 pruned, 0 failed | ") == 3
    assert "Warning" not in said


@pytest.mark.slow
def test_every_trial_can_be_read_both_ways(searched: Project) -> None:
    """oracle_free searched, yet what oracle would have said of each trial is known: a retrained model lies there."""
    reference = json.loads((searched.root / "scores/retrained.json").read_text())["accuracy"]
    table = list(csv.DictReader(io.StringIO((searched.root / "search/hybrid_4/trials.csv").read_text())))
    for trial, row in zip(trials(searched), table, strict=True):
        apart = [abs(trial["measured"][f"{split}.accuracy"] - reference[split]) for split in ("retain", "forget", "validation")]
        assert float(row["oracle"]) == pytest.approx(sum(apart) / 3, abs=1e-4)
        assert trial["oracle"][0] == pytest.approx(sum(apart) / 3, abs=1e-4)
        assert trial["oracle_free"] == trial["values"]


@pytest.mark.slow
def test_a_retrained_model_that_is_given_is_read_too(project: Project) -> None:
    theirs = project.root / "theirs.safetensors"
    (project.root / "models" / "retrained.safetensors").rename(theirs)
    project.ran("search", *SMALL, "--search.trials", "1", "--retrain.checkpoint", str(theirs))
    (trial,) = trials(project)
    assert {"oracle", "oracle_free"} <= trial.keys()


def gap_by_hand(measured: dict[str, float], original: dict[str, float]) -> float:
    distances = [abs(measured["retain.accuracy"] - original["retain"]), abs(measured["forget.accuracy"] - measured["unseen.accuracy"])]
    distances += [max(0.0, original["validation"] - measured["utility"]), 100 * abs(measured["forget.auc"] - 0.5)]
    return sum(distances) / 4


@pytest.mark.slow
def test_the_winner_is_run_anew_and_what_choosing_cost_is_said(searched: Project) -> None:
    best = json.loads((searched.root / "search/hybrid_4/best.json").read_text())["chosen"]
    reference = json.loads((searched.root / "scores/retrained.json").read_text())["accuracy"]
    found, small = trials(searched), config.load(params=searched.root / "params.yaml")
    images = {split: len((searched.root / f"data/splits/{split}.csv").read_text().split()) - 1 for split in MEASURED}
    assert small.search.objective == "oracle_free"
    near = {"oracle_free": [t for t in found if t["measured"]["forget.auc.low"] <= 0.5 <= t["measured"]["forget.auc.high"]]}
    pairs = [[((t["measured"][f"{each}.accuracy"], images[each]), (reference[each], images[each])) for each in MEASURED] for t in found]
    near["oracle"] = [t for t, of in zip(found, pairs, strict=True) if all(abs(a[0] - b[0]) <= margin_of_error(a, b) for a, b in of)]
    original = json.loads((searched.root / "scores/original.json").read_text())["accuracy"]
    cost = {"oracle": lambda measured: -measured["utility"], "oracle_free": lambda measured: gap_by_hand(measured, original)}
    assert sorted(best) == ["oracle", "oracle_free"]
    fresh = list(csv.DictReader(io.StringIO((searched.root / "search/hybrid_4/fresh.csv").read_text())))
    above = next(row for row in searched.rows() if row["name"] == "search/hybrid_4")
    said = (searched.root / "stderr").read_text()
    for reading, of in best.items():
        useful = [(cost[reading](trial["measured"]), -trial["measured"]["utility"], trial["number"]) for trial in near[reading]]
        least = [(trial[reading][0], -trial["measured"]["utility"], trial["number"]) for trial in found]
        number = min(useful or least)[2]
        assert (of["trial"], of["unlearning"], of["utility"], of["unseen"]) == (number, *found[number][reading], bool(useful))
        runs = [row for row in fresh if int(row["trial"]) == of["trial"]]
        assert [row["seed"] for row in runs] == ["1", "2"]
        scores = [float(row[reading]) for row in runs]
        assert of["fresh.unlearning"] == pytest.approx(np.mean(scores), rel=1e-4, abs=1e-6)
        half = 12.706205 * np.std(scores, ddof=1) / math.sqrt(2)  # Student's t with one degree of freedom
        assert of["fresh.unlearning.high"] - of["fresh.unlearning"] == pytest.approx(half, rel=1e-3, abs=1e-4)
        assert of["bias.unlearning"] == pytest.approx(of["unlearning"] - of["fresh.unlearning"])
        assert of["bias.unlearning.low"] == pytest.approx(of["unlearning"] - of["fresh.unlearning.high"])
        assert above["metrics"][f"search.{reading}.bias.unlearning"] == [(3, pytest.approx(of["bias.unlearning"], rel=1e-5))]
        assert f"best by {reading}: trial {of['trial']}, " in said
        rows = [row for row in searched.rows(fresh="1") if row["tags"]["trial"] == str(of["trial"])]
        assert [row["params"]["run.seed"] for row in rows] == ["1"]
    assert said.count("selection bias (search minus fresh)") == len(best)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_it_was_not(searched: Project, built: Path, warm: Warm, tmp_path: Path) -> None:
    """kill -9 in the second trial, Ctrl-C in the same one when it is tried again, then to the end."""
    project = copied(built, tmp_path / "project", warm)
    command = ("search", *SMALL, "--search.trials", "3")
    assert (done := project.run(*command, **at_step(85))).returncode == -signal.SIGKILL, done.stderr
    assert [trial["state"] for trial in trials(project)] == ["COMPLETE", "RUNNING"]
    stopped = project.run(*command, **at_step(5, signal.SIGINT))
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.endswith("search: stopped; the same command resumes\n")
    assert "resuming after 1 trials" in stopped.stderr
    assert [trial["state"] for trial in trials(project)] == ["COMPLETE", "FAIL", "FAIL", "WAITING"]
    assert "RUNNING" not in {row["status"] for row in project.rows()}
    project.ran(*command)
    after = trials(project)
    assert [trial["state"] for trial in after] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial["history"] for trial in after] == [[], [], [1], [1, 2], []]
    assert told(after) == told(trials(searched))
    above, *below = (row for row in project.rows() if row["name"].startswith("search/"))
    assert [row["status"] for row in (above, *below)] == ["FINISHED", "FINISHED", "KILLED", "KILLED", "FINISHED", "FINISHED"]
    assert {row["tags"]["mlflow.parentRunId"] for row in below} == {above["run_id"]}
    assert [row["tags"]["trial"] for row in below] == ["0", "1", "1", "1", "2"]
    for table in ("trials.csv", "front.csv"):
        assert [path.read_text() for path in project.root.glob(f"search/*/{table}")] == [
            path.read_text() for path in searched.root.glob(f"search/*/{table}")
        ]


@pytest.mark.slow
def test_the_test_split_changes_nothing(searched: Project, built: Path, warm: Warm, tmp_path: Path) -> None:
    """Other test images, other test labels: every trial is the same to the last bit."""
    project = copied(built, tmp_path / "project", warm)
    path = project.root / "data" / "images.safetensors"
    tensors, said = checkpoint.load(path)
    ids = load_images(path)[0].ids
    asked = set((project.root / "data/splits/test.csv").read_text().split()[1:])
    test = torch.tensor([id_ in asked for id_ in ids])
    assert test.sum() == len(asked) > 100
    for name, value in tensors.items():
        value[test] = value[test].flip(0) if value.ndim == 1 else 255 - value[test]
        assert not torch.equal(value, checkpoint.load(path)[0][name])
    checkpoint.save(tensors, path, said)
    (project.root / "data" / "held_out.json").unlink()
    project.ran("search", *SMALL, "--search.trials", "3")
    assert told(trials(project)) == told(trials(searched))


@pytest.mark.slow
def test_nothing_of_the_test_split_is_handed_to_a_trial(searched: Project) -> None:
    out = searched.script("""
from lethe.config import loader as config
from lethe.workspace.prepare import prepare
from lethe.search.objectives import without_test
whole = prepare(config.load())
blind = without_test(whole)
assert blind.hashes == whole.hashes
assert sorted(blind.data.splits) == ["forget", "retain", "train", "validation"]
for name, index in blind.splits.items():
    assert [blind.images.ids[i] for i in index] == [whole.images.ids[i] for i in whole.splits[name]]
    assert (blind.images.pixels[index] == whole.images.pixels[whole.splits[name]]).all()
test = {whole.images.ids[i] for i in whole.splits["test"]}
assert test and not test & set(blind.images.ids) and len(blind.data.images_NCHW) == len(whole.images.ids) - len(test)
try:
    blind.data.splits["test"]
except KeyError:
    print("no such split")
""")
    assert out == "no such split"


@pytest.mark.slow
def test_the_other_objectives_and_methods(searched: Project) -> None:
    for method, objective, store in (("model_1", "oracle", "o.db"), ("model_4", "report", "r.db")):
        storage = f"sqlite:///{searched.root}/.lethe/trials/{store}"
        keys = ("--search.method", method, "--search.objective", objective, "--search.storage", storage, "--search.trials", "1")
        searched.ran("search", *keys)
        (trial,) = trials(searched, store)
        measured = trial["measured"]
        if objective == "report":
            assert trial["values"] == [measured["forget.accuracy"], measured["retain.accuracy"]]
        else:
            reference = json.loads((searched.root / "scores/retrained.json").read_text())["accuracy"]
            apart = [abs(measured[f"{split}.accuracy"] - reference[split]) for split in ("retain", "forget", "validation")]
            assert trial["values"] == pytest.approx([sum(apart) / 3, measured["validation.accuracy"]], abs=1e-5)


def test_a_trial_that_diverges_is_a_failed_one_with_its_reason(project: Project) -> None:
    lr = "--search.spaces.model_1.lr"
    keys = ["--search.method", "model_1", "--methods.model_1.lr", "1e30", "--search.spaces.model_1.epochs", "null"]
    keys += [f"{lr}.low", "null", f"{lr}.high", "null", f"{lr}.log", "false", f"{lr}.choices", "0.001,0.002,0.003,1e30"]
    failed = project.run("search", *keys, "--search.trials", "1")
    assert failed.returncode == 1, failed.stderr
    assert "is complete; the last: diverged: phase retain, epoch 0" in failed.stderr
    assert [row["status"] for row in project.rows()] == ["FAILED", "FAILED"]
    assert project.rows()[1]["tags"]["trial.reason"].startswith("diverged")
    went_on = project.ran("search", *keys, "--search.trials", "2")
    assert "2 of 2 done, 0 running, 0 pruned, 1 failed" in went_on.stderr
    assert [(trial["state"], bool(trial["values"])) for trial in trials(project)] == [("FAIL", False), ("COMPLETE", True)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_that_would_cost_more_than_the_limit_is_not_run(sampler: str, project: Project) -> None:
    space = "--search.spaces.model_1.epochs"
    keys = ["--search.method", "model_1", "--search.max_share", "2", "--search.sampler", sampler, "--search.fresh_seeds", "0"]
    searched = project.ran("search", *keys, f"{space}.low", "1", f"{space}.high", "12", "--search.trials", "8")
    found = trials(project)
    above = [trial for trial in found if trial["share"] > 2]
    assert 0 < len(above) < len(found) == 8
    assert all((trial["state"], trial["ran"]) == ("PRUNED", 0) for trial in above)
    assert all(trial["state"] == "COMPLETE" for trial in found if trial not in above)
    assert above[0]["reason"] == f"would cost {above[0]['share']:.3g} of retraining; search.max_share is 2"
    assert f"8 of 8 done, 0 running, {len(above)} pruned, 0 failed" in searched.stderr
    table = csv.DictReader(io.StringIO((project.root / "search/model_1/trials.csv").read_text()))
    assert [float(row["share"]) for row in table] == pytest.approx([trial["share"] for trial in found], rel=1e-5)


GREEDY = """
import torch
from lethe.models.architectures import ConvNet

class Greedy(ConvNet):
    def forward(self, images):
        if len(images) > 30 and self.training:
            torch.empty(2**56)
        return super().forward(images)

def net(num_classes):
    return Greedy(num_classes)
"""


@pytest.mark.slow
def test_a_trial_without_enough_memory_is_a_failed_one_with_its_reason(project: Project) -> None:
    (project.root / "greedy.py").write_text(GREEDY)
    original = ["--model.architecture", "greedy:net", "--pretrain.epochs", "1"]
    project.ran("pretrain", *original)
    space = "--search.spaces.model_1"
    keys = ["--search.method", "model_1", "--methods.model_1.batch_size", "40", "--search.trials", "3", "--search.sampler", "random"]
    keys += [f"{space}.epochs", "null", f"{space}.lr", "null", f"{space}.batch_size.choices", "40,8"]
    went_on = project.ran("search", *original, *keys)
    found = trials(project)
    assert found[0]["state"] == "FAIL"
    assert len(found) == 3
    assert all((trial["state"] == "FAIL") == (trial["params"]["batch_size"] == 40) for trial in found)
    assert "trial 0 fail: out of memory: " in went_on.stderr
    row = project.rows(trial="0")[0]
    assert row["status"] == "FAILED"
    assert row["tags"]["trial.reason"].startswith("out of memory: ")


def test_bad_input_is_one_line_and_nothing_is_written(project: Project) -> None:
    before = project.files()
    for argv, says in (
        (
            ["--search.method", "hybrid_9"],
            "search.method is hybrid_9 (command line); it takes a method with a space in search.spaces: ",
        ),
        (["--method", "hybrid_4"], "a search takes --search.method"),
        ([f"--{SPACE}.peak.low", "1"], "it takes a number < high"),
        ([f"--{SPACE}.unfreeze.choices", "layer1,layer9"], "no layer is called 'layer9'"),
        ([f"--{SPACE}.batch_size.low", "8", f"--{SPACE}.batch_size.high", "5000"], "methods.hybrid_4.batch_size is 5000; it takes at most"),
        (["--search.storage", "postgresql+nodriver://me:secret@db/x"], "search.storage: Optuna can't work with postgresql+nodriver://db/x"),
        (["adopt"], "it takes the number of a trial"),
        (["adopt", "-1"], "adopt"),
        (["adopt", "3"], "there is no search with"),
        (["adopt", "3", "hybrid_3"], "methods.hybrid_3 already exists"),
        (["adopt", "3", "a.b"], "a variant can't be called 'a.b'"),
    ):
        done = project.run("search", *argv)
        assert done.returncode == 2, (argv, done.stderr)
        assert done.stderr.count("error: ") == 1
        assert says in done.stderr.splitlines()[-1]
        assert "secret" not in done.stderr
    for name, says in (("unfreeze.choices", "no layer is called 'layer9'"), ("batch_size.choices", "methods.hybrid_4.batch_size is 5000")):
        value = "layer1,layer9" if name.startswith("unfreeze") else "8,5000"
        done = project.run("search", f"--{SPACE}.{name}", value, "--run.workspace", "new")
        assert done.returncode == 2 and says in done.stderr.splitlines()[-1], done.stderr
    assert project.files() == before
    assert not project.rows()


OWN = """
from lethe.recipes.ordering import Together
from lethe.recipes.optimizers import SGD
from lethe.recipes.parameters import Epochs, Scale
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.schedules import Constant

def joint(*, epochs: Epochs = 1, scale: Scale = -0.1) -> Recipe:
    terms = (Term("retain"), Term("forget", weight=scale))
    return (Phase("joint", epochs, terms, 16, Constant(0.01), Together(), optimizer=SGD(0.9, 0.0)),)
"""


def test_a_search_of_ones_own_method_in_a_database_of_many_is_adopted_by_the_command_that_it_prints(project: Project) -> None:
    (project.root / "our_methods.py").write_text(OWN)
    space = "--search.spaces.joint.scale"
    words = ["--search.method", "our_methods:joint", f"{space}.low", "-1", f"{space}.high", "-0.3", "--search.trials", "1"]
    done = project.ran("search", *words, "--search.fresh_seeds", "0", "--search.storage", f"sqlite:///{project.root}/many.db")
    adopt = shlex.split(next(line for line in done.stderr.splitlines() if line.startswith("adopt the best")).partition("search.py ")[2])
    assert adopt[:2] == ["adopt", "0"]
    project.ran("search", *adopt)
    assert "joint_trial_0: 1 phases" in project.ran("unlearn", "--method", "joint_trial_0", "--explain").stdout


def test_adopt_writes_a_variant_that_runs(searched: Project) -> None:
    params = searched.root / "params.yaml"
    before = params.read_text()
    done = searched.ran("search", "adopt", "1", "gentle")
    assert "methods.gentle is trial 1" in done.stderr
    after = params.read_text()
    (line,) = set(after.splitlines()) - set(before.splitlines())
    assert after.replace(line + "\n", "") == before
    trial = trials(searched)[1]
    said = config.load(["--method", "gentle"], params=params)
    assert said.like["gentle"] == "hybrid_4"
    assert argument_values(said) == trial["arguments"]
    assert "gentle: 2 phases" in searched.ran("unlearn", "--method", "gentle", "--explain").stdout
    for argv in (["adopt", "2", "gentle"], ["adopt", "7"]):
        assert (done := searched.run("search", *argv)).returncode == 2, done.stderr
    assert params.read_text() == after
