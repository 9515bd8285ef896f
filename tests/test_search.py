"""The search: its spaces, what it may see, what a kill costs, what it leads to."""

import csv
import io
import json
import math
import signal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import optuna
import pytest
import torch
from conftest import ROOT, Project, Warm, at_step, copied
from hypothesis import given

from lethe._util.errors import RunFailed, UserError
from lethe.config import loader as config
from lethe.data import sources
from lethe.models import checkpoint
from lethe.recipes.paper_methods import METHODS
from lethe.search.adopt import with_variant
from lethe.search.pareto import dominates, front, hypervolume
from lethe.search.pruning import PruningRule
from lethe.search.spaces import argument_values, widened_space

PARAMS = ROOT / "params.yaml"
SPACE = "search.spaces.hybrid_4"
SMALL = ["--search.prune", "false"]
SMALL += [f"--{SPACE}.{key}" if "." in key else key for key in ("epochs.low", "2", "epochs.high", "4", "final_epochs.high", "2")]


# --- spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"hybrid_5": {}}, "search.spaces.hybrid_5 is unknown (params.yaml, line 1); nearest: "),
        ({"as_run": {}}, "search.spaces.as_run is unknown"),
        ({"hybrid_4": {"peek": {}}}, "search.spaces.hybrid_4.peek is unknown (params.yaml, line 1); nearest: search.spaces.hybrid_4.peak"),
        ({"hybrid_4": {"peak": {"lo": 1}}}, "search.spaces.hybrid_4.peak.lo is unknown (params.yaml, line 1); nearest: "),
        ({"hybrid_4": 3}, "search.spaces.hybrid_4 is 3 (params.yaml, line 1); it takes a space for each argument"),
        ({"hybrid_4": {"peak": {"low": -1}}}, "lacks high; it takes low and high, or choices"),
        (
            {"hybrid_4": {"peak": {"low": -1, "high": -2}}},
            "peak.low is -1.0 (params.yaml, line 1); it takes a number below high, ",
        ),
        ({"hybrid_4": {"peak": {"low": -1, "high": -1}}}, "it takes a number below high"),
        ({"hybrid_4": {"peak": {"low": "deep", "high": -1}}}, "peak.low is deep (params.yaml, line 1); it takes a number"),
        ({"hybrid_4": {"peak": {"low": -1, "high": 0.5}}}, "peak.high has 0.5 (params.yaml, line 1); peak takes a number up to 0"),
        ({"hybrid_4": {"peak": {"low": -1, "high": 0, "log": True}}}, "with log it takes a number above 0"),
        ({"hybrid_4": {"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}}, "with log it takes none"),
        (
            {"hybrid_4": {"lr": {"low": 0.1, "high": 1, "step": 0.4}}},
            "lr.step is 0.4 (params.yaml, line 1); it takes a number that",
        ),
        ({"hybrid_4": {"epochs": {"low": 1.5, "high": 4}}}, "epochs.low has 1.5 (params.yaml, line 1); epochs takes a whole number"),
        ({"hybrid_4": {"epochs": {"low": 1, "high": 4, "step": 1.5}}}, "epochs takes whole numbers"),
        ({"hybrid_4": {"epochs": {"low": -1, "high": 4}}}, "epochs.low has -1.0 (params.yaml, line 1); epochs takes a whole number from 0"),
        ({"hybrid_4": {"shape": {"low": 1, "high": 2}}}, "shape (params.yaml, line 1) has no choices; shape takes linear, power"),
        ({"hybrid_4": {"shape": {"choices": ["cubic"]}}}, "shape.choices has cubic (params.yaml, line 1); shape takes linear, power"),
        ({"hybrid_4": {"shape": {"choices": ["power", "power"]}}}, "it takes different ones"),
        ({"hybrid_4": {"shape": {"choices": []}}}, "shape.choices is []"),
        ({"hybrid_4": {"lr": {"choices": [0.1], "low": 0.1}}}, "has choices and a range; it takes one of them"),
        ({"hybrid_4": {"lr": {"choices": [0.1, -1]}}}, "lr.choices has -1 (params.yaml, line 1); lr takes a number above 0"),
        ({"hybrid_4": {"unfreeze": {"choices": [["layer1"], []]}}}, "unfreeze.choices has [] (params.yaml, line 1); unfreeze takes names"),
        (
            {"hybrid_4": {"lr": {"low": 0.1, "high": 1, "when": {"shape": ["power"]}}}},
            "whose space stands before it: none",
        ),
        (
            {"hybrid_4": {"shape": {"choices": ["linear", "power"]}, "power": {"low": 1, "high": 2, "when": {"shap": "power"}}}},
            "power.when.shap (params.yaml, line 1): it takes an argument whose space stands before it: shape",
        ),
        (
            {"hybrid_4": {"shape": {"choices": ["linear", "power"]}, "power": {"low": 1, "high": 2, "when": {"shape": "cubic"}}}},
            "power.when has cubic (params.yaml, line 1); shape takes linear",
        ),
        (
            {"hybrid_4": {"shape": {"choices": ["linear", "power"]}, "power": {"low": 1, "high": 2, "when": {"shape": 3}}}},
            "power.when has 3 (params.yaml, line 1); shape takes linear",
        ),
        ({"hybrid_4": {"lr": {"low": 1, "high": 2, "when": 3}}}, "lr.when is 3 (params.yaml, line 1); it takes arguments with values, as"),
        ({"hybrid_4": {"lr": {"low": 1, "high": 2, "when": {"epochs": True}}}}, "it takes arguments with values, as {shape: [power]}"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_space_is_refused(space: dict[str, Any], says: str, tmp_path: Path) -> None:
    text = PARAMS.read_text()
    begins, ends = text.index("\nsearch:"), text.index("\n# What `make demo` changes")
    search = {"method": "model_1", "trials": 1, "objective": "report", "sampler": "tpe", "seed": 0, "storage": None, "timeout": None}
    search |= {"workers": 1, "gpus": None, "heartbeat": 30, "fresh_seeds": 5}
    search |= {"prune": True, "prune_margin": 1, "spaces": {**space, "model_1": {"lr": {"low": 1, "high": 2}}}}
    (tmp_path / "params.yaml").write_text(f"search: {json.dumps(search)}{text[:begins]}{text[ends:]}")
    with pytest.raises(UserError) as refused:
        config.load(params=tmp_path / "params.yaml")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_space_that_holds_its_own_values(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = config.load(["--method", method, "--search.method", method])
    wide, first = widened_space(said)
    assert wide == said.spaces[method]
    assert first.items() <= argument_values(said).items()
    assert first.keys() >= {word for word, space in wide.items() if not space.when}
    assert capsys.readouterr().err == ""


def test_a_variant_is_searched_in_the_space_of_what_it_is_like(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("\nrun:\n", "\n  gentle: {like: hybrid_4, peak: -0.5}\n\nrun:\n"))
    said = config.load(["--method", "gentle"], params=tmp_path / "params.yaml")
    assert said.space == said.spaces["hybrid_4"]
    keys = ["--search.spaces.gentle.peak.low", "-1", "--search.spaces.gentle.peak.high", "0"]
    said = config.load(["--method", "gentle", "--search.method", "gentle", *keys], params=tmp_path / "params.yaml")
    assert {word: (space.low, space.high) for word, space in said.space.items()} == {"peak": (-1.0, 0.0)}


def test_a_space_is_widened_to_the_configurations_own_value(capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"peak": -5, "repair_every": 7, "epochs": 70, "shape": "linear"}
    said = config.load([part for key, value in keys.items() for part in (f"--methods.hybrid_4.{key}", str(value))])
    wide, first = widened_space(said)
    assert (wide["peak"].low, wide["epochs"].high, wide["repair_every"].choices) == (-5.0, 70, (0, 2, 5, 10, 20, 7))
    assert first.items() >= keys.items()
    assert "power" not in first
    assert capsys.readouterr().err.count("is widened to include the configured value") == 3
    wide, first = widened_space(config.load([f"--{SPACE}.lr.log", "false", f"--{SPACE}.lr.step", "0.0333"]))
    assert first == {}
    assert "lr can't include the configured value 0.001" in capsys.readouterr().err


# --- fronts -----------------------------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(POINTS)
def test_a_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    best = front(points)
    assert not any(dominates(points[a], points[b]) for a in range(len(points)) for b in best)
    assert all(any(dominates(points[b], point) or points[b] == point for b in best) for point in points)
    assert [points[n][0] for n in best] == sorted(points[n][0] for n in best)


@given(POINTS)
def test_the_hypervolume_counts_the_cells_that_a_point_dominates(points: list[tuple[int, int]]) -> None:
    cells = sum(any(a <= x and b > y for a, b in points) for x in range(5) for y in range(1, 6))
    assert hypervolume(points, (5, 1)) == cells


def test_a_trial_is_stopped_when_it_is_hopeless_and_not_before() -> None:
    stop = PruningRule(original=90.0, margin=20.0, chance=20.0, min_trials=2)
    dip = [("start", 0, 0.1, 90.0), ("hybrid", 0, 0.1, 50.0), ("hybrid", 1, 0.1, 19.0)]
    assert stop.reason(dip, None, []) == ""
    assert "guessing" in stop.reason([*dip, ("hybrid", 2, 0.1, 19.0)], None, [])
    late = [*dip, ("final", 0, 0.1, 69.0)]
    assert stop.reason(late, 0.4, []) == ""
    assert "over 20 points below the original" in stop.reason(late, 0.5, [])
    assert stop.reason([*dip, ("final", 0, 0.1, 71.0)], 0.5, []) == ""
    better, other = [("final", 0, 0.1, 89.0)], [("final", 0, 0.2, 89.0)]
    assert "dominated at final 0 by 2 of 2" in stop.reason(late, None, [better, better])
    assert "by 1 of 2" in stop.reason(late, None, [better, other])
    assert stop.reason(late, None, [better]) == ""
    assert stop.reason(late, None, [better, other, other]) == ""


# --- searches ---------------------------------------------------------------------------------------------------------


def trials(project: Project, store: str = "search.db") -> list[dict[str, Any]]:
    """Those of the only search in the database, by number; `history`: which trials it tries again."""
    return read(f"sqlite:///{project.root}/.lethe/trials/{store}")


def read(url: str) -> list[dict[str, Any]]:
    study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
    history = [trial.system_attrs.get("retry_history", []) for trial in study.trials]
    found = [{"number": t.number, "state": t.state.name, "params": t.params, "values": t.values, **t.user_attrs} for t in study.trials]
    return [trial | {"history": before} for trial, before in zip(found, history, strict=True)]


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


@pytest.mark.slow
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
        assert row["metrics"]["search.unlearning"][-1][1] == trial["values"][0]
        assert not [key for key in row["metrics"] if key.startswith("test")]
    assert above["metrics"]["search.done"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    (pictures,) = searched.root.glob(f"mlruns/0/{above['run_id']}/artifacts")
    assert (pictures / "front.png").read_bytes().startswith(b"\x89PNG")
    printed = (searched.root / "stdout").read_text()
    assert printed == (pictures / "front.csv").read_text()
    found = searched.root / "search" / "hybrid_4"
    assert sorted(path.name for path in found.iterdir()) == [
        "best.json",
        "budgets.csv",
        "budgets.png",
        "fresh.csv",
        "front.csv",
        "front.png",
        "trials.csv",
    ]
    for name in ("front.csv", "trials.csv", "front.png"):
        assert (found / name).read_bytes() == (pictures / name).read_bytes()
    best = json.loads((found / "best.json").read_text())
    assert (best["done"], best["hypervolume"]) == (3, above["metrics"]["search.hypervolume"][-1][1])
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
    table = list(csv.DictReader((searched.root / "search/hybrid_4/trials.csv").open()))
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


@pytest.mark.slow
def test_the_winner_is_run_anew_and_what_choosing_cost_is_said(searched: Project) -> None:
    best = json.loads((searched.root / "search/hybrid_4/best.json").read_text())["chosen"]
    original = json.loads((searched.root / "scores/original.json").read_text())["accuracy"]["validation"]
    reference = json.loads((searched.root / "scores/retrained.json").read_text())["accuracy"]["validation"]
    found = trials(searched)
    floor = {"oracle_free": original - 1, "oracle": min(original, reference) - 1}
    able = {reading: [t for t in found if t["measured"]["utility"] >= floor[reading] - 1e-4] for reading in floor}
    assert best
    assert sorted(best) == sorted(reading for reading, ones in able.items() if ones)
    fresh = list(csv.DictReader((searched.root / "search/hybrid_4/fresh.csv").open()))
    above = next(row for row in searched.rows() if row["name"] == "search/hybrid_4")
    said = (searched.root / "stderr").read_text()
    for reading, of in best.items():
        winner = min(able[reading], key=lambda trial: (trial[reading][0], -trial[reading][1]))
        assert (of["trial"], of["unlearning"], of["utility"]) == (winner["number"], *winner[reading])
        runs = [row for row in fresh if int(row["trial"]) == of["trial"]]
        assert [row["seed"] for row in runs] == ["1", "2"]
        scores = [float(row[reading]) for row in runs]
        assert of["fresh.unlearning"] == pytest.approx(np.mean(scores), rel=1e-4, abs=1e-6)
        half = 12.706205 * np.std(scores, ddof=1) / math.sqrt(2)  # Student's t with one degree of freedom
        assert of["fresh.unlearning.high"] - of["fresh.unlearning"] == pytest.approx(half, rel=1e-3, abs=1e-4)
        assert of["bias.unlearning"] == pytest.approx(of["unlearning"] - of["fresh.unlearning"])
        assert of["bias.unlearning.low"] == pytest.approx(of["unlearning"] - of["fresh.unlearning.high"])
        assert above["metrics"][f"search.{reading}.bias.unlearning"] == [(3, of["bias.unlearning"])]
        assert f"best by {reading}: trial {of['trial']}, " in said
        rows = [row for row in searched.rows(fresh="1") if row["tags"]["trial"] == str(of["trial"])]
        assert [row["params"]["run.seed"] for row in rows] == ["1"]
    assert said.count("selection bias (search minus fresh)") == len(best)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_it_was_not(searched: Project, built: Path, warm: Warm, tmp_path: Path) -> None:
    """kill -9 in the second trial, Ctrl-C in the same one when it is tried again, then to the end."""
    project = copied(built, tmp_path / "project", warm)
    command = ("search", *SMALL, "--search.trials", "3")
    assert project.run(*command, **at_step(85)).returncode == -signal.SIGKILL
    assert [trial["state"] for trial in trials(project)] == ["COMPLETE", "RUNNING"]
    stopped = project.run(*command, **at_step(5, signal.SIGINT))
    assert stopped.returncode == 130, stopped.stderr
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


@pytest.mark.slow
def test_the_test_split_changes_nothing(searched: Project, built: Path, warm: Warm, tmp_path: Path) -> None:
    """Other test images, other test labels: every trial is the same to the last bit."""
    project = copied(built, tmp_path / "project", warm)
    path = project.root / "data" / "images.safetensors"
    tensors, said = checkpoint.load(path)
    ids = sources.load(path)[0].ids
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
from lethe.workspace import workspace
from lethe.search.objectives import without_test
whole = workspace.prepare(config.load())
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


@pytest.mark.slow
def test_a_trial_that_diverges_is_a_failed_one_with_its_reason(project: Project) -> None:
    lr = "--search.spaces.model_1.lr"
    keys = ["--search.method", "model_1", "--methods.model_1.lr", "1e30", "--search.spaces.model_1.epochs", "null"]
    keys += [f"{lr}.low", "null", f"{lr}.high", "null", f"{lr}.log", "false", f"{lr}.choices", "0.001,0.002,0.003,0.004"]
    failed = project.run("search", *keys, "--search.trials", "1")
    assert failed.returncode == 1
    assert "is complete; the last: diverged: phase retain, epoch 0" in failed.stderr
    assert [row["status"] for row in project.rows()] == ["FAILED", "FAILED"]
    assert project.rows()[1]["tags"]["trial.reason"].startswith("diverged")
    went_on = project.ran("search", *keys, "--search.trials", "2")
    assert "2 of 2 done, 0 running, 0 pruned, 1 failed" in went_on.stderr
    assert [(trial["state"], bool(trial["values"])) for trial in trials(project)] == [("FAIL", False), ("COMPLETE", True)]


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


@pytest.mark.slow
def test_bad_input_is_one_line_and_nothing_is_written(project: Project) -> None:
    before = project.files()
    for argv, says in (
        (
            ["--search.method", "hybrid_9"],
            "search.method is hybrid_9 (command line); it takes a method with a space in search.spaces: ",
        ),
        (["--method", "hybrid_4"], "a search takes --search.method"),
        ([f"--{SPACE}.peak.low", "1"], "it takes a number below high"),
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
    assert project.files() == before
    assert not project.rows()


@pytest.mark.slow
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
        assert searched.run("search", *argv).returncode == 2
    assert params.read_text() == after


# --- what adopt writes ------------------------------------------------------------------------------------------------


def test_a_variant_is_one_line_more() -> None:
    text = PARAMS.read_text()
    made = with_variant(text, "gentle", "hybrid_4", {"peak": -0.00001234, "epochs": 7, "unfreeze": "layer1,layer2", "shape": "power"})
    new = "  gentle: {like: hybrid_4, peak: -0.00001234, epochs: 7, unfreeze: [layer1, layer2], shape: power}\n"
    assert made.replace(new, "") == text
    assert made.index(new) < made.index("\nrun:\n")
    twice = with_variant(made, "gentler", "gentle", {})
    assert twice.replace("  gentler: {like: gentle}\n", "") == made


@pytest.mark.parametrize("text", ["methods: {a: {lr: 1}}\nrun: {}\n", "methods: {a: {lr: 1}}"])
def test_a_file_that_cant_be_added_to_is_left_with_the_line_to_add(text: str) -> None:
    with pytest.raises(RunFailed, match=r"add this line to its methods: b: \{like: a, lr: 2.0\}"):
        with_variant(text, "b", "a", {"lr": 2.0})


def test_a_variant_at_the_end_of_the_file() -> None:
    assert with_variant("# one\nmethods:\n  a: {lr: 1}  # two", "b", "a", {}) == "# one\nmethods:\n  a: {lr: 1}  # two\n  b: {like: a}\n"


# --- what is measured -------------------------------------------------------------------------------------------------


class Fixed(torch.nn.Module):
    """Logits that stand in the image's first pixels."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW[:, 0, 0, :3]


@pytest.mark.parametrize("classes", [(0, 1, 2), (1,)])
def test_the_auc_is_the_chance_that_forgets_loss_is_lower(classes: tuple[int, ...]) -> None:
    from lethe.data.device_data import Data
    from lethe.search.objectives import evaluator

    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    forget = torch.tensor([n for n in range(60) if int(labels[n]) in classes])
    retain = torch.tensor([n for n in range(60) if n not in set(forget.tolist())] or [0, 1, 2])
    splits = {"retain": retain, "forget": forget, "validation": torch.arange(60, 120)}
    pixels = torch.randint(0, 256, (120, 3, 8, 8), generator=draw, dtype=torch.uint8)
    data = Data(pixels, labels, splits, torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.2))
    measured = evaluator(data, ("forget", "validation"), torch.no_grad)(Fixed())
    loss = torch.nn.functional.cross_entropy(data.normalised(torch.arange(120))[:, 0, 0, :3].double(), labels, reduction="none").numpy()
    held_out = [n for n in range(60, 120) if int(labels[n]) in classes]
    wins = [(loss[f] < loss[v]) + 0.5 * (loss[f] == loss[v]) for f in forget.tolist() for v in held_out]
    assert math.isclose(measured["forget.auc"], float(np.mean(wins)), abs_tol=1e-6)
    useful = [n for n in range(60, 120) if len(classes) == 3 or int(labels[n]) not in classes]
    right = data.normalised(torch.tensor(useful))[:, 0, 0, :3].argmax(1) == labels[useful]
    assert math.isclose(measured["utility"], 100 * float(right.double().mean()), abs_tol=1e-4)
