"""The settings that the leaderboard tries: equal numbers of them, within the space, the configured one first."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe._util.errors import UserError
from lethe.config.loader import load
from lethe.pipeline.cost import planned_share
from lethe.pipeline.leaderboard import Entry, at_share, chosen, chosen_file
from lethe.pipeline.leaderboard_tables import DIALS
from lethe.pipeline.unlearn import unlearn
from lethe.recipes.registry import registered_names
from lethe.search.leaderboard import AT, OBJECTIVE, _cost_ratio, choose, evenly, leaderboard
from lethe.testing.small_runs import configured
from lethe.workspace.layout import Layout
from support.project import ROOT

DIGITS = ["--data.source", "digits", "--data.limit", "10", "--model.architecture", "convnet", "--pretrain.min_steps", "0"]
DIGITS += ["--pretrain.epochs", "10", "--pretrain.final_epochs", "0", "--pretrain.batch_size", "50", "--run.threads", "1"]


@pytest.mark.parametrize("method", registered_names(chains=False))
def test_five_different_settings_lie_in_the_space_of_every_method(method: str) -> None:
    config = configured(method)
    tried = evenly(config, 5)
    assert tried[0] == {} and len({repr(one) for one in tried}) == 5
    for arguments in tried[1:]:
        config.changed(arguments)  # within each argument's own range
        assert not {*arguments} & {*DIALS}
        for name, value in arguments.items():
            space = config.space[name]
            assert value in space.choices if space.choices else space.low <= value <= space.high  # type: ignore[operator]


@pytest.mark.parametrize("number", ["0", "x", "-1", "51"])
def test_a_number_of_settings_that_is_none_is_refused(number: str, tmp_path: Path) -> None:
    words = [*DIGITS, "--run.workspace", str(tmp_path)]
    with pytest.raises(UserError, match=r"^settings is .*; it takes the number of settings"):
        leaderboard(load(words), words, ["ft"], ["0.1"], number)
    assert not list(tmp_path.iterdir())


def test_a_model_that_knows_nothing_is_worse_than_one_that_remembers() -> None:
    """Chance is what a model without any memory gives, and what one without any knowledge gives, too."""
    ends = {"forget.auc.low": 0.4, "forget.auc.high": 0.6}
    ruined = {"forget.auc": 0.5, "utility": 10.0, **ends}
    remembers = {"forget.auc": 0.7, "utility": 98.0, "forget.auc.low": 0.6, "forget.auc.high": 0.8}
    useful = {"forget.auc": 0.52, "utility": 92.0, **ends}
    original = {"retain.accuracy": 100.0, "forget.accuracy": 100.0, "utility": 98.0}
    images = {"retain": 100, "forget": 100, "validation": 250}
    measured = (
        one | {"retain.accuracy": 99.0, "forget.accuracy": one["utility"], "validation.accuracy": one["utility"]}
        for one in (ruined, remembers, useful)
    )
    ranks = [OBJECTIVE.rank(one, {}, images, original) for one in measured]
    assert ranks[2] < ranks[1] < ranks[0]


def test_the_choice_is_the_best_of_equally_many_runs_and_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DIGITS, "--run.workspace", str(tmp_path), "--methods.ft.batch_size", "50"]
    choose(words, "ft", 3)
    found = chosen(tmp_path, "ft")
    assert [one["arguments"] for one in found["tried"]] == [{}, {"lr": 0.03162, "crop_share": 0.4}, {"lr": 0.01778, "crop_share": 0.6}]
    best = min(found["tried"], key=lambda one: OBJECTIVE.rank(one["measured"], {}, found["images"], found["original"]))
    assert found["arguments"] == {"lr": 0.05, "crop_share": 0.6} | best["arguments"]
    assert all(one["flops"] == found["tried"][0]["flops"] > 0 for one in found["tried"])
    assert "test.accuracy" not in best["measured"]
    capsys.readouterr()
    choose(words, "ft", 3)
    assert not capsys.readouterr().err  # nothing is run again
    path = chosen_file(tmp_path, "ft")
    other = next(one for one in found["tried"] if one is not best)
    path.write_text(json.dumps({**found, "arguments": {**found["arguments"], **other["arguments"], "lr": 0.7}}))  # as by another rule
    choose(words, "ft", 3)
    assert chosen(tmp_path, "ft")["arguments"] == found["arguments"], "chosen again from what was measured"


def test_settings_are_tried_again_for_another_original(tmp_path: Path) -> None:
    words = [*DIGITS, "--run.workspace", str(tmp_path), "--methods.ft.batch_size", "50"]
    choose(words, "ft", 2)
    before = chosen(tmp_path, "ft")
    for kind in ("original", "retrained"):
        (tmp_path / "models" / f"{kind}.safetensors").unlink()
    choose([*words, "--pretrain.lr", "0.02"], "ft", 2)
    after = chosen(tmp_path, "ft")
    assert after["key"] != before["key"] and after["original"] != before["original"]
    choose([*words, "--pretrain.lr", "0.02", "--run.precision", "bfloat16"], "ft", 2)
    assert chosen(tmp_path, "ft")["key"] != after["key"]


def test_settings_that_keep_the_best_epoch_are_tried(tmp_path: Path) -> None:
    """Epochs are measured for it, by the images that a search selects on."""
    keys = ["--methods.model_1.keep", "best", "--methods.model_1.batch_size", "50"]
    choose([*DIGITS, "--run.workspace", str(tmp_path), *keys], "model_1", 2)
    assert all(one["measured"] for one in chosen(tmp_path, "model_1")["tried"])


def test_settings_are_tried_with_the_cache_that_rows_have(tmp_path: Path) -> None:
    """A head whose frozen layers are computed in every step took many times the work of its row, so that the row was cut short."""
    keys = ["--methods.cf_k.batchnorm", "eval_frozen", "--methods.cf_k.batch_size", "50"]
    words = [*DIGITS, "--run.workspace", str(tmp_path), *keys]
    choose(words, "cf_k", 1)
    (tried,) = chosen(tmp_path, "cf_k")["tried"]
    row = at_share(words, Entry("cf_k", AT), chosen(tmp_path, "cf_k"))
    assert row
    unlearn(row, show=False)
    clock = json.loads(Layout(tmp_path).clock("cf_k_at_10").read_text())
    assert clock["flops"] == tried["flops"]


def values(method: str, words: str, count: int = 6) -> list[dict[str, Any]]:
    return evenly(load(["--method", method, *words.split()]), count)[1:]


def test_settings_are_values_that_a_space_has() -> None:
    space = "--search.spaces.scrub.batch_size"
    stepped = values("scrub", f"{space}.low 16 {space}.high 128 {space}.step 16", 40)
    assert {one["batch_size"] for one in stepped} == {*range(16, 129, 16)}
    by_ratio = sorted(one["batch_size"] for one in values("scrub", f"{space}.low 1 {space}.high 1024 {space}.log true", 40))
    assert by_ratio[19] == pytest.approx(32, rel=0.3), "half of them are below the middle of the logarithms"
    scale = "--search.spaces.model_3.scale"
    quarters = values("model_3", f"{scale}.low -1 {scale}.high 0 {scale}.step 0.25", 40)
    assert {one["scale"] for one in quarters} == {-1, -0.75, -0.5, -0.25, 0}


def test_an_argument_that_another_switches_off_is_not_tried(tmp_path: Path) -> None:
    """Also the learning rate, which is drawn first."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    spaces = {"trains": {"choices": ["all", "head"]}, "lr": {"low": 0.01, "high": 0.1, "when": {"trains": ["head"]}}}
    params["search"]["spaces"]["model_1"] = spaces
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    tried = evenly(load(["--method", "model_1"], params=path), 9)[1:]
    assert {one["trains"] for one in tried} == {"all", "head"}
    assert all(("lr" in one) == (one["trains"] == "head") for one in tried)


def test_the_ratio_of_a_plan_that_was_cut_is_to_what_it_planned() -> None:
    whole, cut = configured("model_1").changed({"epochs": 3}), configured("cf_k")
    assert _cost_ratio(whole, 1.0, 0.12) == pytest.approx(1.2)
    assert _cost_ratio(whole, 1.2, 0.09) == pytest.approx(1.08)
    assert _cost_ratio(cut, 1.0, 0.3) == pytest.approx(0.3 / planned_share(cut))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("--retrain.checkpoint notes.pth", "retrain.checkpoint: .*notes.pth"),
        ("--model.architecture alexnet", "model.architecture is alexnet"),
    ],
)
def test_settings_that_cannot_be_tried_are_refused_before_anything_is_written(keys: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("hello\n")
    words = keys.replace("notes.pth", str(tmp_path / "notes.pth")).split()
    given = [word for word in DIGITS if "--model.architecture" not in words or word not in ("--model.architecture", "convnet")]
    with pytest.raises(UserError, match=says):
        choose([*given, *words, "--run.workspace", str(tmp_path / "new")], "ft", 2)
    assert not (tmp_path / "new").exists()
