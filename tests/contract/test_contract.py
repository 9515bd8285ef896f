"""What every method promises.

A method is under contract by standing in METHODS: its numbers come from its section of params.yaml, with few epochs.
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor
from torch.nn import Module

from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.frozen_references import FrozenReferences
from lethe.engine.options import RunOptions
from lethe.engine.run_state import State
from lethe.evaluation import inference as predict
from lethe.models import architectures as model
from lethe.recipes.losses import CrossEntropy
from lethe.recipes.recipe import Phase
from lethe.recipes.registry import find_method, registered_names
from lethe.recipes.schedules import Constant, Cosine
from lethe.recipes.training import Training
from lethe.testing import MethodContract
from lethe.testing.small_runs import (
    PARAMS,
    SMALL,
    attempt,
    boom_at,
    copied,
    digests,
    images,
    moved,
    network,
    numbers,
    section,
    small,
    watched,
)
from support import loops
from support.project import ROOT

METHODS = registered_names(chains=False)
PAPER = "lethe.recipes.paper_methods"  # the others have their plain loops in test_field_methods

torch.set_num_threads(1)

# What the report says of each method; where it is silent, the notebook's number
HEAD, ALL = ("layer4", "fc"), ("all",)
QUADRATIC = {"epochs": 50, "shape": "power", "power": 2.0, "final_epochs": 10, "lr_schedule": "constant"}
HYBRID = QUADRATIC | {"peak": -1.0, "repair_every": 10, "trains": HEAD}
REPORT: dict[str, dict[str, Any]] = {
    "model_1": {"epochs": 5, "lr_schedule": "cosine", "trains": ALL},
    "model_2": {"epochs": 5, "lr_schedule": "cosine", "trains": HEAD},
    "model_3": {"epochs": 10, "scale": -1.0, "lr_schedule": "cosine", "trains": HEAD},
    "model_4": {"epochs": 10, "scale": -0.1, "lr_schedule": "constant", "trains": ALL},
    "model_5": {"epochs": 50, "scale": -0.5, "lr_schedule": "constant", "trains": ALL},
    "model_6": {"epochs": 50, "scale": -0.5, "final_epochs": 5, "lr_schedule": "constant", "trains": ALL},
    "hybrid_1": {"epochs": 50, "peak": -0.6, "shape": "linear", "lr_schedule": "constant", "trains": ALL},
    "hybrid_2": QUADRATIC | {"peak": -0.8, "trains": ALL},
    "hybrid_3": HYBRID,
    "hybrid_4": HYBRID | {"unfreeze": ("layer1", "layer2"), "unfreeze_at": 0.3},
}
EVERYWHERE = {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0005, "batch_size": 128, "batchnorm": "train", "keep": "last"}


@pytest.fixture(scope="module")
def data() -> Data:
    return images()


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# --- the section of params.yaml ---------------------------------------------------------------------------------------


@cache
def in_file() -> dict[str, Any]:
    """What params.yaml says."""
    return YAML(typ="safe", pure=True).load(PARAMS)  # type: ignore[no-any-return]


def test_the_section_holds_exactly_the_functions_arguments(method: str) -> None:
    said = in_file()["methods"][method]
    first, *own = inspect.signature(find_method(method).function).parameters
    assert first == "training"
    defaults = {field.name: field.default for field in fields(Training) if field.default is not MISSING}
    assert list(said) == [*own, *(name for name in Training.__dataclass_fields__ if name in said)]
    assert {*own, *Training.__dataclass_fields__} - {*said} <= {*defaults}
    assert not [name for name, default in defaults.items() if name in said and said[name] == default]  # written once


@pytest.mark.parametrize("name", REPORT)
def test_the_numbers_are_the_reports(name: str) -> None:
    own = section(name)
    said = EVERYWHERE | REPORT[name]
    assert {word: own[word] for word in said} == said


class TestMethods(MethodContract):
    """Every method."""

    @pytest.fixture(params=sorted(METHODS))
    def method(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


@pytest.mark.slow
def test_two_processes_end_alike() -> None:
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    one_thread = "import json, torch; torch.set_num_threads(1); from lethe.testing.small_runs import digests; "
    said = f"{one_thread}print(json.dumps([hash('R'), digests()]))"
    environment = os.environ | {"PYTHONHASHSEED": other, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    process = subprocess.run([sys.executable, "-c", said], env=environment, stdout=subprocess.PIPE, check=True)
    hash_there, there = json.loads(process.stdout)
    assert hash_there != hash("R")  # the two really differ in what could leak into a result
    assert there == digests()
    assert len(set(there.values())) == len(METHODS)  # and no two methods are one


# --- equal to a plain loop --------------------------------------------------------------------------------------------


def table(data: Data, batch_size: int, seed: int) -> loops.Table:
    """The same images in the same order, for a loop that knows nothing of the engine."""

    def batches(split: str, number: int) -> Iterator[Tensor]:
        return (batch.index_B for batch in data.batches(split, batch_size, seed, number))

    return loops.Table(data.normalised(torch.arange(len(data.labels_N))), data.labels_N, batches)


def by_loop(loop: Callable[..., None], method: str, student: Module, data: Data, seed: int, said: dict[str, Any], *more: Any) -> None:
    sgd = loops.Numbers(*(said[word] for word in ("trains", "lr", "momentum", "weight_decay")))
    own = {word: said[word] for word in inspect.signature(loop).parameters if word in said}
    # the loop of a method takes all its numbers but the ramp's form, which the report fixes
    assert set(inspect.signature(find_method(method).function).parameters) - set(own) <= {"training", "shape", "power"}
    loop(student, table(data, said["batch_size"], seed), *more, sgd, **own)


CASES: dict[str, tuple[dict[str, int], dict[str, Any]]] = {  # sizes of the splits; changes to the numbers
    "as in params.yaml, last batches short": ({}, {}),
    "a part trains, last batches joined or full": (
        {"retain": 33, "forget": 16},
        {"trains": ("layer3", "fc"), "unfreeze": ("layer1", "layer4")},
    ),
    "forget longer than retain, other rates": (
        {"retain": 19, "forget": 60},
        {"repair_every": 1, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.01, "scale": -0.05, "peak": -0.05},
    ),
    "one image to forget": ({"forget": 1}, {"final_epochs": 1, "repair_every": 0}),
}


@pytest.mark.parametrize("method", [name for name in METHODS if find_method(name).function.__module__ == PAPER])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_plain_loop_to_the_bit(method: str, case: str) -> None:
    loop = getattr(loops, method, None)
    if loop is None:
        pytest.skip("no plain loop of it in tests/support/loops.py")
    sizes, changes = CASES[case]
    data = images(**sizes)
    student, plain = network(), network()
    for _ in engine.run(small(method, **changes), student, data, RunOptions(seed=11)):
        pass
    by_loop(loop, method, plain, data, 11, numbers(method, **changes))
    assert not moved(plain.state_dict(), student.state_dict())
    assert all(value.isfinite().all() for value in student.state_dict().values())


def test_there_is_a_loop_of_each_of_the_reports_methods() -> None:
    assert all(hasattr(loops, method) for method in REPORT)


def test_frozen_statistics_equal_their_plain_loop_to_the_bit(data: Data) -> None:
    student, plain = network(), network()
    for _ in engine.run(small("model_2", batchnorm="eval_frozen"), student, data):
        pass
    by_loop(loops.model_2_with_frozen_statistics, "model_2", plain, data, 0, numbers("model_2"))
    assert not moved(plain.state_dict(), student.state_dict())


def test_the_best_epoch_equals_its_plain_loop_to_the_bit(data: Data) -> None:
    """Over six seeds, so that the best epoch is not always the last."""
    changes = {"keep": "best", "epochs": 1, "final_epochs": 3, "lr": 0.1}
    not_last = 0
    for seed in range(6):
        student, plain = network(), network()
        state = State()
        for _ in engine.run(
            small("model_6", **changes), student, data, RunOptions(seed=seed, evaluate=predict.evaluator(data, ["validation"])), state=state
        ):
            last = copied(student)
        by_loop(loops.model_6_keeping_the_best, "model_6", plain, data, seed, numbers("model_6", **changes), data.splits["validation"])
        assert not moved(plain.state_dict(), student.state_dict())
        not_last += bool(moved(last, student.state_dict()))
    assert 0 < not_last < 6


def test_hybrid_4_equals_its_plain_loop_on_resnet18_to_the_bit() -> None:
    data = images(retain=21, forget=9, validation=4, size=32)
    changes = {"epochs": 2, "final_epochs": 1, "repair_every": 2, "batch_size": 8, "lr": 0.001}
    student, plain = (model.build("resnet18", 10, 0) for _ in range(2))
    before = copied(student)
    for _ in engine.run(small("hybrid_4", **changes), student, data):
        pass
    by_loop(loops.hybrid_4, "hybrid_4", plain, data, 0, numbers("hybrid_4", **changes))
    after = moved(before, student.state_dict())
    assert {"layer1.0.conv1.weight", "layer3.0.bn1.running_mean"} <= after
    assert "layer3.0.conv1.weight" not in after
    assert not moved(plain.state_dict(), student.state_dict())


def test_a_continued_run_still_knows_its_original(data: Data, tmp_path: Path) -> None:
    start = copied(network())
    seen: list[FrozenReferences] = []
    assert len(attempt(watched(small("model_6"), boom_at(15)), tmp_path, data, network())) > 2
    attempt(watched(small("model_6"), lambda batch, refs: seen.append(refs)), tmp_path, data, network())
    assert seen
    assert not moved(start, seen[0].original.state_dict())


@pytest.mark.parametrize("name", REPORT)
def test_the_reports_methods_step_on_cross_entropy_and_only_the_first_phase_has_a_schedule(name: str) -> None:
    phases = [part for part in small(name, lr_schedule="cosine") if isinstance(part, Phase)]
    assert [phase.lr for phase in phases] == [Cosine(SMALL["lr"]), *[Constant(SMALL["lr"])] * (len(phases) - 1)]
    terms = [term for phase in phases for term in phase.terms]
    assert {type(term.loss) for term in terms} == {CrossEntropy}
    assert all(term.weight_at(0.9) < 0 for term in terms if term.stream == "forget")
