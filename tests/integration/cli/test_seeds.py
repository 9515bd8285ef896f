"""Several seeds of one method: none is repeated, all stand below one row, and what is said of them is their mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from torch import Tensor

from lethe.data.splits import SPLITS
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.score import MeasureResult
from lethe.models import architectures, checkpoint
from support.project import Project, Warm, at_step, copied

STEPS = 24  # of model_1: three epochs of eight batches


def score(project: Project, name: str) -> Any:
    return json.loads((project.root / "scores" / f"{name}.json").read_text())


def model(project: Project, name: str) -> bytes:
    return (project.root / "models" / f"{name}.safetensors").read_bytes()


def above(rows: list[dict], run_id: str) -> list[str]:
    return sorted(row["tags"]["seed"] for row in rows if row["tags"].get("mlflow.parentRunId") == run_id)


@pytest.mark.slow
def test_killed_gone_on_with_extended_and_scored_again(project: Project) -> None:
    assert (done := project.run("unlearn", "--method", "model_1", "--run.seeds", "2", **at_step(STEPS + 12))).returncode == -9, done.stderr
    assert not (project.root / "models" / "model_1.safetensors").exists()
    first = model(project, "model_1.seed0")
    said = project.ran("unlearn", "--method", "model_1", "--run.seeds", "2")
    assert "model_1: seeds 0, 1; already finished: 0" in said.stderr
    assert "model_1.seed1: resuming after epoch 1" in said.stderr
    assert "model_1: mean over 2 seeds (0, 1) ±" in said.stdout
    assert model(project, "model_1.seed0") == first
    (row,) = project.rows(method="model_1", seeds="2")
    assert row["status"] == "FINISHED" and above(project.rows(), row["run_id"]) == ["0", "1"]

    # Three where two are: one more
    (project.root / "logits" / "model_1.seed1.safetensors").touch()
    kept = {path: path.stat().st_mtime_ns for path in project.root.rglob("model_1.seed[01].*") if path.parent.name != "clock"}
    said = project.ran("unlearn", "--method", "model_1", "--run.seeds", "3")
    assert "seeds 0 to 2; already finished: 0, 1" in said.stderr
    assert "unlearning by seed 2" in said.stderr and "unlearning by seed 1" not in said.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (row,) = project.rows(method="model_1", seeds="3")
    rows = project.rows(method="model_1")
    assert above(rows, row["run_id"]) == ["0", "1", "2"] and len(rows) == 4

    # The method's own model is the first seed's, and says whose it is
    tensors, known = checkpoint.load(project.root / "models" / "model_1.safetensors")
    alone = checkpoint.load(project.root / "models" / "model_1.seed0.safetensors")
    assert checkpoint.weights_hash(tensors) == checkpoint.weights_hash(alone[0])
    assert {key: value for key, value in known.items() if key != "seeds"} == alone[1]
    assert len(set(seeds.listed(known).values())) == 3
    assert (project.root / "epochs" / "model_1.csv").read_bytes() == (project.root / "epochs" / "model_1.seed0.csv").read_bytes()

    # Means and intervals, on the file and on the row
    each, mean = [score(project, f"model_1.seed{k}") for k in range(3)], score(project, "model_1")
    retrained = score(project, "retrained")["accuracy"]
    for split in SPLITS:
        values = [one["accuracy"][split] for one in each]
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        assert mean["accuracy"][split] == pytest.approx(np.mean(values), abs=1e-6)
        found = mean["measures"][f"accuracy.{split}"]
        assert (found["interval"], found["models"]) == (intervals.SEEDS, 3)
        assert seeds.half_width(MeasureResult.from_json(found).estimate) == pytest.approx(half, abs=1e-5)
        assert row["metrics"][f"{split}.accuracy.half_width"][-1][1] == pytest.approx(half, rel=1e-5)
        assert row["metrics"][f"{split}.distance"][-1][1] == pytest.approx(np.mean(values) - retrained[split], rel=1e-5, abs=1e-6)
    assert row["metrics"]["test.accuracy"][-1][1] == pytest.approx(mean["accuracy"]["test"], rel=1e-5)
    below = [one["metrics"]["forget.loss"] for one in rows if one["run_id"] != row["run_id"]]
    steps = dict(row["metrics"]["forget.loss"])
    assert steps[3] == pytest.approx(np.mean([dict(one)[3] for one in below]), rel=1e-5)

    # The card says whose mean it is
    project.ran("report", "card", "--method", "model_1")
    (card,) = (project.root / "cards").glob("*.json")
    made = json.loads(card.read_text())
    (shown,) = [one["model"] for one in made["measures"] if one["id"] == "accuracy.forget"]
    assert (made["seeds"], shown["value"]) == ([0, 1, 2], mean["accuracy"]["forget"])
    assert "--run.seeds 3" in made["reproduce"]["commands"]["result"]
    for page in (card.with_suffix(".html"), card.with_suffix(".md")):
        assert "the mean over 3 models that differ only in their seed (0 to 2)" in page.read_text()

    # Scores again, from tables alone, are the same bytes; the rows hear of them
    made = project.files()
    scores = {name: content for name, content in made.items() if name.startswith("scores/")}
    for path in (project.root / "models").glob("model_1*"):
        path.unlink()
    for path in (project.root / "scores").glob("model_1*"):
        path.unlink()
    said = project.ran("evaluate", "--method", "model_1")
    assert "reading" not in said.stderr
    assert {name: content for name, content in project.files().items() if name.startswith("scores/")} == scores
    (project.root / "logits" / "model_1.seed1.safetensors").unlink()
    refused = project.run("evaluate", "--method", "model_1")
    assert refused.returncode == 2, refused.stderr
    assert "model_1.seed1.safetensors does not exist, and model_1 is of seeds 0 to 2; `python src/unlearn.py" in refused.stderr
    assert "--run.seeds 3` makes it" in refused.stderr


@pytest.mark.slow
def test_at_once_they_are_what_they_are_one_by_one(project: Project, built: Path, warm: Warm, tmp_path: Path) -> None:
    """In processes of their own, which read the images again."""
    said = project.ran("unlearn", "--method", "model_1", "--run.seeds", "2", "--run.workers", "2")
    assert "model_1: mean over 2 seeds (0, 1) ±" in said.stdout
    (row,) = project.rows(method="model_1", seeds="2")
    assert row["status"] == "FINISHED" and above(project.rows(), row["run_id"]) == ["0", "1"]
    alone = copied(built, tmp_path / "alone", warm)
    alone.ran("unlearn", "--method", "model_1", "--run.seeds", "2")
    assert [model(alone, f"model_1.seed{k}") for k in (0, 1)] == [model(project, f"model_1.seed{k}") for k in (0, 1)]


def test_a_run_that_was_alone_is_the_first_of_several_and_remains_what_it_was(project: Project) -> None:
    project.ran("unlearn", "--method", "model_1")
    alone, scores = model(project, "model_1"), score(project, "model_1")
    assert "seeds" not in scores
    said = project.ran("unlearn", "--method", "model_1", "--run.seeds", "2")
    assert "already finished: 0" in said.stderr
    assert model(project, "model_1.seed0") == alone
    of_both = {"of": 0, "contents": 0, "sha256": 0}
    assert score(project, "model_1.seed0") | of_both == scores | of_both
    first, second = (score(project, f"model_1.seed{k}")["accuracy"] for k in range(2))
    assert first != second
    (row,) = project.rows(method="model_1", seeds="2")
    assert above(project.rows(), row["run_id"]) == ["0", "1"]

    # A seed's file of other weights is no part of it
    other = checkpoint.load(project.root / "models" / "original.safetensors")[0]
    known = checkpoint.metadata(project.root / "models" / "model_1.seed1.safetensors")
    checkpoint.save_model(other, project.root / "models" / "model_1.seed1.safetensors", known)
    refused = project.run("evaluate", "--method", "model_1")
    assert refused.returncode == 2 and "belongs to the others; `python src/unlearn.py" in refused.stderr

    project.ran("unlearn", "--method", "model_1")  # one seed: what it always was
    assert model(project, "model_1") == alone and score(project, "model_1") == scores


def test_a_chain_takes_one_seed_and_no_seeds_are_refused(bare: Project) -> None:
    before = bare.files()
    for argv, said in (
        (("--method", "as_run", "--run.seeds", "2"), "run.seeds is 2 (command line); as_run is a chain of runs and takes 1"),
        (("--run.seeds", "0"), "run.seeds is 0 (command line); it takes an integer >= 1 and <= 10000"),
    ):
        done = bare.run("unlearn", *argv)
        assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert bare.files() == before
    said = bare.ran("unlearn", "--method", "model_1", "--run.seeds", "5", "--run.seed", "2", "--explain").stdout
    assert "5 runs from one original, by seeds 2 to 6: models/model_1.seed<k>.safetensors" in said
    assert bare.files() == before


def test_a_new_head_is_not_the_one_that_the_original_began_with(project: Project) -> None:
    """By the original's own seed, nor by another the same one."""
    keys = ["--method", "ft", "--methods.ft.reinit", "head", "--methods.ft.lr", "1e-9", "--methods.ft.retain_epochs", "1"]
    project.ran("unlearn", *keys, "--run.seeds", "2")

    def head(name: str) -> Tensor:
        return checkpoint.load(project.root / "models" / f"{name}.safetensors")[0]["fc.weight"]

    first, second, ended = (head(name) for name in ("ft.seed0", "ft.seed1", "original"))
    began = architectures.build("convnet", 10, 0).get_parameter("fc.weight")
    spread = began.std().item()
    for one, other in ((first, began), (first, ended), (first, second)):
        assert (one - other).std().item() > spread
