"""The search without a search: spaces, fronts, what adopting writes, what is measured."""

import csv
import io
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from ruamel.yaml import YAML

from lethe._util.errors import RunFailed, UserError
from lethe.config import loader as config
from lethe.engine.epoch_table import MEASURED
from lethe.recipes.registry import registered_names
from lethe.search.adopt import with_variant
from lethe.search.objectives import AUC_ENDS, DELETED, OBJECTIVES, expected_gap, is_ruined, sizes
from lethe.search.pareto import dominates, front, hypervolume
from lethe.search.pruning import PruningRule
from lethe.search.results import SearchResults, Trial, describe_winner
from lethe.search.spaces import argument_values, widened_space
from support.phases import data
from support.project import ROOT
from support.searches import SPACE

METHODS = registered_names(chains=False)

PARAMS = ROOT / "params.yaml"


@cache
def two_methods() -> str:
    """What params.yaml says but for its searches, with two methods: reading takes time by the line."""
    said = YAML(typ="safe", pure=True).load(PARAMS)
    kept = {name: value for name, value in said.items() if name not in ("search", "demo", "full")}
    kept["methods"] = {name: kept["methods"][name] for name in ("hybrid_4", "model_1")}
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in kept.items())


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
            "peak.low is -1.0 (params.yaml, line 1); it takes a number < high, ",
        ),
        ({"hybrid_4": {"peak": {"low": -1, "high": -1}}}, "it takes a number < high"),
        ({"hybrid_4": {"peak": {"low": "deep", "high": -1}}}, "peak.low is deep (params.yaml, line 1); it takes a number"),
        ({"hybrid_4": {"peak": {"low": -1, "high": 0.5}}}, "peak.high has 0.5 (params.yaml, line 1); peak takes a number <= 0"),
        ({"hybrid_4": {"peak": {"low": -1, "high": 0, "log": True}}}, "with log it takes a number > 0"),
        ({"hybrid_4": {"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}}, "with log it takes none"),
        (
            {"hybrid_4": {"lr": {"low": 0.1, "high": 1, "step": 0.4}}},
            "lr.step is 0.4 (params.yaml, line 1); it takes a number that",
        ),
        ({"hybrid_4": {"epochs": {"low": 1.5, "high": 4}}}, "epochs.low has 1.5 (params.yaml, line 1); epochs takes an integer"),
        ({"hybrid_4": {"epochs": {"low": 1, "high": 4, "step": 1.5}}}, "epochs takes integers"),
        ({"hybrid_4": {"epochs": {"low": -1, "high": 4}}}, "epochs.low has -1.0 (params.yaml, line 1); epochs takes an integer >= 0"),
        ({"hybrid_4": {"shape": {"low": 1, "high": 2}}}, "shape (params.yaml, line 1) has no choices; shape takes linear, power"),
        ({"hybrid_4": {"shape": {"choices": ["cubic"]}}}, "shape.choices has cubic (params.yaml, line 1); shape takes linear, power"),
        ({"hybrid_4": {"shape": {"choices": ["power", "power"]}}}, "it takes different ones"),
        ({"hybrid_4": {"shape": {"choices": []}}}, "shape.choices is []"),
        ({"hybrid_4": {"lr": {"choices": [0.1], "low": 0.1}}}, "has choices and a range; it takes one of them"),
        ({"hybrid_4": {"lr": {"choices": [0.1, -1]}}}, "lr.choices has -1 (params.yaml, line 1); lr takes a number > 0"),
        ({"hybrid_4": {"unfreeze": {"choices": [["layer1"], []]}}}, "unfreeze.choices has [] (params.yaml, line 1); unfreeze takes names"),
        (
            {"hybrid_4": {"lr": {"low": 0.1, "high": 1, "when": {"shape": ["power"]}}}},
            "whose space is listed before it: none",
        ),
        (
            {"hybrid_4": {"shape": {"choices": ["linear", "power"]}, "power": {"low": 1, "high": 2, "when": {"shap": "power"}}}},
            "power.when.shap (params.yaml, line 1): it takes an argument whose space is listed before it: shape",
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
    search = {"method": "model_1", "trials": 1, "objective": "report", "sampler": "tpe", "seed": 0, "storage": None, "timeout": None}
    search |= {"workers": 1, "gpus": None, "heartbeat": 30, "fresh_seeds": 5}
    search |= {"prune": True, "prune_margin": 1, "spaces": {**space, "model_1": {"lr": {"low": 1, "high": 2}}}}
    (tmp_path / "params.yaml").write_text(f"search: {json.dumps(search)}\n{two_methods()}")
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


def test_bounds_of_the_command_line_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    said = config.load([f"--{SPACE}.epochs.high", "9", f"--{SPACE}.shape.choices", "power,cosine"])
    assert said.methods["hybrid_4"].model_dump()["epochs"] == 50
    wide, first = widened_space(said)
    assert (wide["epochs"].high, wide["shape"].choices, first) == (9, ("power", "cosine"), {})
    assert capsys.readouterr().err.splitlines() == [
        f"{SPACE}.epochs is given and excludes the configured value 50; the configured values are not tried"
    ]
    assert widened_space(config.load([f"--{SPACE}.epochs.high", "55"]))[1]["epochs"] == 50


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
    evaluate: Any = evaluator(data, ("forget", "validation"), torch.no_grad)
    measured = evaluate(Fixed())
    loss = torch.nn.functional.cross_entropy(data.normalised(torch.arange(120))[:, 0, 0, :3].double(), labels, reduction="none").numpy()
    held_out = [n for n in range(60, 120) if int(labels[n]) in classes]
    wins = [(loss[f] < loss[v]) + 0.5 * (loss[f] == loss[v]) for f in forget.tolist() for v in held_out]
    assert math.isclose(measured["forget.auc"], float(np.mean(wins)), abs_tol=1e-6)
    useful = [n for n in range(60, 120) if len(classes) == 3 or int(labels[n]) not in classes]
    right = data.normalised(torch.tensor(useful))[:, 0, 0, :3].argmax(1) == labels[useful]
    assert math.isclose(measured["utility"], 100 * float(right.double().mean()), abs_tol=1e-4)


@pytest.mark.parametrize("classes", [(0, 1, 2), (1,)])
def test_the_interval_of_the_auc_is_that_of_a_second_bootstrap(classes: tuple[int, ...]) -> None:
    """Resampling with plain loops; images of a class that forget lacks take no part."""
    from lethe.data.device_data import Data
    from lethe.search.objectives import evaluator

    draw, labels = torch.Generator().manual_seed(1), torch.arange(240) % 3
    forget = torch.tensor([n for n in range(120) if int(labels[n]) in classes])
    splits = {"retain": torch.tensor([0, 1, 2]), "forget": forget, "validation": torch.arange(120, 240)}
    pixels = torch.randint(0, 256, (240, 3, 8, 8), generator=draw, dtype=torch.uint8)
    data = Data(pixels, labels, splits, torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.2))
    evaluate: Any = evaluator(data, ("forget", "validation"), torch.no_grad, intervals=True)
    measured = evaluate(Fixed())
    logits = data.normalised(torch.arange(240))[:, 0, 0, :3].double()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
    held_out = [n for n in range(120, 240) if int(labels[n]) in classes]
    rng, values = np.random.default_rng(5), []
    for _ in range(400):
        ours, theirs = (loss[rng.choice(group, len(group))] for group in (forget.numpy(), np.array(held_out)))
        values.append(float((ours[:, None] < theirs).mean() + (ours[:, None] == theirs).mean() / 2))
    low, high = np.quantile(values, [0.025, 0.975])
    assert math.isclose(measured["forget.auc.low"], low, abs_tol=0.03)
    assert math.isclose(measured["forget.auc.high"], high, abs_tol=0.03)
    assert measured["forget.auc.low"] < measured["forget.auc"] < measured["forget.auc.high"]
    right = (logits.argmax(1) == labels).numpy()
    by_class = [100 * np.mean([right[n] for n in held_out if int(labels[n]) == each]) for each in classes]
    assert measured["unseen.accuracy"] == pytest.approx(np.average(by_class, weights=[40 for _ in classes]))


# --- the winner -------------------------------------------------------------------------------------------------------

IMAGES = {"retain": 970, "forget": 108, "validation": 359}


def measured(retain: float, forget: float, validation: float, auc: float) -> dict[str, float]:
    accuracies = {"retain.accuracy": retain, "forget.accuracy": forget, "validation.accuracy": validation, "utility": validation}
    return accuracies | {"forget.auc": auc, "forget.auc.low": auc - 0.05, "forget.auc.high": auc + 0.05}


ORIGINAL = measured(100.0, 100.0, 97.2, 0.63)
RETRAINED = measured(100.0, 94.0, 94.4, 0.51)
FORGOT_NOTHING = measured(100.0, 100.0, 97.0, 0.62)
FORGOT = measured(99.8, 94.0, 93.2, 0.52)
OVER_FORGOT = measured(95.0, 71.0, 93.9, 0.36)
USELESS = measured(60.0, 58.0, 57.0, 0.5)


def searched(*trials: dict[str, float], objective: str = "oracle_free", original: dict[str, float] = ORIGINAL) -> SearchResults:
    said = config.load(["--search.objective", objective])
    score = OBJECTIVES[objective].point
    finished = [
        Trial(number, "complete", score(each, RETRAINED), {}, {"measured": each, "ran": 1}, "") for number, each in enumerate(trials)
    ]
    return SearchResults(said, [], original, RETRAINED, finished, {}, IMAGES)


@pytest.mark.parametrize("objective", ["oracle_free", "oracle", "report"])
def test_the_numbers_of_a_retrained_model_win_and_those_of_doing_nothing_do_not(objective: str) -> None:
    results = searched(FORGOT_NOTHING, OVER_FORGOT, RETRAINED, USELESS, FORGOT, objective=objective)
    assert {key: trial.number for key, trial in results.winners().items()} == dict.fromkeys(results.objectives(), 2)
    assert [results.unseen(trial, objective) for trial in results.complete] == [False, False, True, False, True]


@pytest.mark.parametrize("objective", ["oracle_free", "oracle", "report"])
def test_a_trial_near_the_retrained_model_is_not_refused_for_being_less_accurate_than_the_original(objective: str) -> None:
    """94 and 93.2 percent beside a retrained model's 94 and 94.4: the original has 97.2, and 97.0 is kept by forgetting nothing."""
    winner = searched(FORGOT_NOTHING, FORGOT, objective=objective).winner()
    assert winner is not None
    assert winner.number == 1


def test_the_gap_that_is_expected_is_the_mean_of_four_distances() -> None:
    assert expected_gap(FORGOT, ORIGINAL) == pytest.approx((0.2 + 0.8 + 4.0 + 2.0) / 4)
    assert expected_gap(FORGOT | {"unseen.accuracy": 90.0}, ORIGINAL) == pytest.approx((0.2 + 4.0 + 4.0 + 2.0) / 4)
    assert expected_gap(measured(99.0, 97.0, 98.0, 0.49), ORIGINAL) == pytest.approx((1.0 + 1.0 + 0.0 + 1.0) / 4), "more accurate: no loss"
    assert expected_gap(ORIGINAL, ORIGINAL) == pytest.approx((0.0 + 2.8 + 0.0 + 13.0) / 4)


def test_of_trials_that_cannot_be_told_the_least_expected_gap_wins_and_not_the_most_accurate() -> None:
    """97 percent of forget right, where 95 of validation are: it has forgotten less than its losses make believe."""
    accurate, near = measured(100.0, 97.0, 95.0, 0.54), measured(100.0, 94.5, 94.8, 0.51)
    for objective, number in (("oracle_free", 1), ("report", 1), ("oracle", 0)):
        winner = searched(accurate, near, objective=objective).winner()
        assert winner is not None
        assert winner.number == number, objective


@pytest.mark.parametrize("objective", ["oracle_free", "oracle", "report"])
def test_a_ruined_trial_wins_over_none(objective: str) -> None:
    """Nothing tells forget from validation in a model that knows nothing any more; of two of them the one that knows more wins."""
    worse = measured(11.0, 11.0, 10.0, 0.5)
    winners = [searched(*trials, objective=objective).winner() for trials in ((USELESS, FORGOT_NOTHING), (worse, USELESS))]
    assert [winner and winner.number for winner in winners] == [1, 1]


def test_the_floor_is_as_low_as_retraining_on_fewer_images_can_end() -> None:
    """Three quarters forgotten, as in the demo: the retrained model is 12 points below the original, and wins."""
    images, ends = {"retain": 40, "forget": 120, "validation": 100}, dict(zip(AUC_ENDS, (0.42, 0.58), strict=True))
    retrained = measured(100.0, 81.0, 84.0, 0.5) | ends
    assert not is_ruined(retrained, measured(100.0, 100.0, 96.0, 0.7), images)
    assert is_ruined(retrained, measured(100.0, 100.0, 96.0, 0.7), images | {"retain": 4000, "forget": 40, "validation": 1000})


def test_images_of_a_class_that_is_deleted_whole_count_for_no_floor() -> None:
    """Utility is measured on the others (`evaluator`): by chance alone so few may differ by more."""
    original, less = measured(100.0, 100.0, 90.0, 0.7), measured(100.0, 0.0, 76.0, 0.5)
    images = {"retain": 700, "forget": 300, "validation": 200}
    assert is_ruined(less, original, images)
    assert not is_ruined(less, original, images | {DELETED: 160})
    assert is_ruined(less, original, images | {DELETED: 20})
    source = data()  # the class of image n is n modulo 3
    by_class = {split: torch.arange(60)[torch.arange(60) % 3 != 2][start : start + 10] for start, split in enumerate(MEASURED)}
    assert sizes(replace(source, splits=by_class)) == dict.fromkeys(MEASURED, 10)
    deleted = sizes(replace(source, splits=by_class | {"validation": torch.arange(10)}))
    assert deleted == dict.fromkeys(MEASURED, 10) | {DELETED: 3}
    assert DELETED not in sizes(replace(source, splits=by_class | {"validation": torch.arange(2, 30, 3)})), "then utility is of all"


def test_of_trials_that_cannot_be_told_those_that_keep_retain_come_first() -> None:
    forgot_retain_too = measured(90.0, 88.0, 94.0, 0.5)
    winner = searched(forgot_retain_too, FORGOT).winner()
    assert winner is not None
    assert winner.number == 1


def test_a_winner_that_lost_retain_is_not_said_to_keep_it() -> None:
    lost, kept = measured(90.0, 88.0, 94.0, 0.5), searched(FORGOT_NOTHING, FORGOT)
    results = searched(lost, FORGOT_NOTHING)
    line = describe_winner("oracle_free", results.chosen()["oracle_free"])
    assert "but no trial of which that is true keeps retain as a retrained model does" in line
    assert "those that keep retain come first" in describe_winner("oracle_free", kept.chosen()["oracle_free"])


def test_where_none_is_within_its_interval_the_nearest_wins() -> None:
    nearer = measured(99.0, 97.0, 90.0, 0.58)
    for objective in ("oracle_free", "report"):
        results = searched(FORGOT_NOTHING, OVER_FORGOT, nearer, objective=objective)
        assert not any(results.unseen(trial, objective) for trial in results.complete)
        assert getattr(results.winner(), "number", None) == 2
        assert "it is the nearest, for of no trial is it true that the 95 % interval" in describe_winner(
            objective, results.chosen()[objective]
        )


def test_a_trial_without_an_interval_is_held_against_the_spread_at_chance() -> None:
    """As an earlier version recorded it. Two samples of one distribution have an AUC beyond it in about one of twenty draws."""
    bare = {key: value for key, value in FORGOT.items() if key not in AUC_ENDS}
    rng = np.random.default_rng(0)
    unseen = 0
    for _ in range(400):
        forget, validation = rng.random(40), rng.random(60)
        auc = float((forget[:, None] > validation).mean())
        unseen += OBJECTIVES["oracle_free"].unseen(bare | {"forget.auc": auc}, {}, {"forget": 40, "validation": 60})
    assert 0.92 < unseen / 400 < 0.98
    assert OBJECTIVES["oracle_free"].unseen(bare | {"forget.auc": 0.52}, {}, IMAGES)
    assert not OBJECTIVES["oracle_free"].unseen(bare | {"forget.auc": 0.62}, {}, IMAGES)


def test_images_that_cant_tell_the_original_are_named() -> None:
    assert searched(FORGOT).undecidable("oracle_free") == ""
    weak = searched(FORGOT, original=measured(100.0, 100.0, 97.2, 0.54)).undecidable("oracle_free")
    assert weak.startswith("by oracle_free, the original itself can't be told from a model that never saw the forget images")


def test_numbers_of_a_winner_are_labelled_and_it_is_marked_on_the_front() -> None:
    results = searched(FORGOT_NOTHING, FORGOT)
    line = describe_winner("oracle_free", results.chosen()["oracle_free"])
    assert line.startswith("best by oracle_free: trial 1, |AUC - 0.5| 0.02, validation accuracy 93.2 in the search; the 95 % interval of")
    rows = list(csv.DictReader(io.StringIO(results.table(results.front()))))
    assert [(row["trial"], row["unseen"], row["winner"]) for row in rows] == [("1", "True", "oracle_free oracle"), ("0", "False", "")]
    assert results._mark(results.complete[1]) == "winner: trial 1\n|AUC - 0.5| 0.02\nvalidation accuracy 93.2"
    assert results.front_figure().startswith(b"\x89PNG")
