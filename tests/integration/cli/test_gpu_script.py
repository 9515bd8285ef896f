"""bench/gpu.py where the libraries of the stages are missing, as on a machine that has a GPU and torch, and little else."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lethe.config.loader import load
from lethe.recipes.fast_protocol import fast
from lethe.recipes.recipe import parse
from support.benches import BENCH, bench
from support.without import run_without

SPLITS = {"retain", "forget", "validation", "test"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part, number in (("train", 12), ("test", 6)):
        for label in range(3):
            (folder := tmp_path / "images" / part / f"class{label}").mkdir(parents=True)
            for at in range(number):
                pixels = draw.integers(0, 80, (16, 16, 3)) + 80 * np.eye(3, dtype=int)[label]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{at}.jpg")
    return tmp_path / "images"


@pytest.fixture
def gpu() -> ModuleType:
    return bench("gpu")


def words(images: Path, tmp_path: Path) -> list[str]:
    keys = {"data.source": "image_folder", "data.root": str(images), "data.image_size": "16", "run.workspace": str(tmp_path / "none")}
    return [word for key, value in keys.items() for word in (f"--{key}", value)]


def test_a_plan_has_the_recipes_of_the_configuration(images: Path, tmp_path: Path, gpu: ModuleType) -> None:
    plan = gpu.plan(words(images, tmp_path), ["0.03"], 2, ["lethe", "ft", "cf_k"])
    config = load(words(images, tmp_path))
    assert parse(plan["original"]) == config.reference_recipe("original")
    assert parse(plan["methods"]["hybrid_3"]) == replace(config, method="hybrid_3").recipe()
    assert {"model_1", "hybrid_4", "lethe_at_3", "ft_at_3"} <= {*plan["methods"]} and "as_run" not in plan["methods"]
    assert "cf_k_at_3" in plan["left_out"] and "cf_k_at_3" not in plan["methods"]
    assert gpu.bank(plan) == [] and [unit.key for unit in gpu.bank(plan | {"bank": plan["bank"] | {"models": 2}})] == [
        "fast_original.seed0",
        "fast_retrained.seed0",
        "fast_retrained.seed1",
    ]
    assert parse(plan["bank"]["retrained"]) == fast("retain")
    units = [*gpu.methods(plan)]
    assert [unit.seed for unit in units] == sorted(unit.seed for unit in units) and len(units) == 2 * len(plan["methods"])
    assert units[0].references == ("retrained.seed0", "retrained.seed1")


@pytest.mark.slow
def test_a_plan_runs_without_the_libraries_of_the_stages(images: Path, tmp_path: Path, gpu: ModuleType) -> None:
    plan = gpu.plan(words(images, tmp_path), [], 1, bank=1)
    plan["methods"] = {name: plan["methods"][name] for name in ("model_3", "hybrid_4")}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = (str(BENCH / "gpu.py"), "run", "plan.json", "--root", str(images), "--quick")
    done = run_without(tmp_path, *command, "--write", "results.json", "--workers", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["left_out"] == [] and found["parts"]["images"]["read"] == {"images": 54}
    assert {*found["parts"]["references"]} == {"original.seed0", "retrained.seed0", "retrained.seed1"}
    assert {*found["parts"]["bank"]} == {"fast_original.seed0", "fast_retrained.seed0"}
    assert {*found["parts"]["steps"]} == {"ours", "floor"} and {*found["parts"]["at once"]} == {"1 at once", "2 at once"}
    assert {*found["parts"]["methods"]} == {"model_3.seed0", "hybrid_4.seed0"}
    for result in found["parts"]["methods"].values():
        assert {*result["accuracy"]} == SPLITS and result["references"] == 2 and result["steps"] > 0
        assert "value" in result["measures"]["avg_gap.svc"] and result["verdict"]

    done = run_without(tmp_path, *command, "--write", "none.json", "--minutes", "0", "--workers", "1")
    assert done.returncode == 0, done.stderr
    none = json.loads((tmp_path / "none.json").read_text())
    assert [one["run"] for one in none["left_out"]] == [
        *("original.seed0", "retrained.seed0", "retrained.seed1", "all", "all", "fast_original.seed0", "fast_retrained.seed0")
    ]
