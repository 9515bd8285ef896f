"""The settings that the leaderboard tries: equal numbers of them, within the space, the configured one first."""

import json
from pathlib import Path

import pytest

from lethe._util.errors import UserError
from lethe.config.loader import load
from lethe.pipeline.cost import planned_share
from lethe.pipeline.leaderboard import chosen, chosen_file
from lethe.pipeline.leaderboard_tables import DIALS
from lethe.recipes.registry import registered_names
from lethe.search.leaderboard import OBJECTIVE, _cost_ratio, choose, evenly, leaderboard
from lethe.testing.small_runs import configured

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


def test_the_ratio_of_a_plan_that_was_cut_is_to_what_it_planned() -> None:
    whole, cut = configured("model_1").changed({"epochs": 3}), configured("cf_k")
    assert _cost_ratio(whole, 1.0, 0.12) == pytest.approx(1.2)
    assert _cost_ratio(whole, 1.2, 0.09) == pytest.approx(1.08)
    assert _cost_ratio(cut, 1.0, 0.3) == pytest.approx(0.3 / planned_share(cut))
