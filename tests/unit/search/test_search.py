"""The search without a search: spaces, fronts, what adopting writes, what is measured."""

import json
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from lethe._util.errors import RunFailed, UserError
from lethe.config import loader as config
from lethe.recipes.registry import registered_names
from lethe.search.adopt import with_variant
from lethe.search.pareto import dominates, front, hypervolume
from lethe.search.pruning import PruningRule
from lethe.search.spaces import argument_values, widened_space
from support.project import ROOT
from support.searches import SPACE

METHODS = registered_names(chains=False)

PARAMS = ROOT / "params.yaml"


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
