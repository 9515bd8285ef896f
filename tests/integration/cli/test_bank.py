"""The reference bank: it grows, is kept, is gone on with, and is taken for no other; and what is measured beside it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lethe._util.errors import UserError
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.evaluation import logits_table as table
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.uncertainty import EXAMPLES, SEEDS
from lethe.models import checkpoint
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.workspace import bank
from lethe.workspace import read_model as reading
from lethe.workspace import scores as results
from support.banks import fake, prepared
from support.project import Project, at, at_file


def models(project: Project, folder: str = "*") -> dict[str, int]:
    """File -> when it was written."""
    return {path.stem: path.stat().st_mtime_ns for path in sorted((project.root / "bank").glob(f"{folder}/*.safetensors"))}


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_it_grows_is_kept_and_gone_on_with(project: Project, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    # Killed within a stack, then between two of its tables, which is cheap; each model has its row, and none has two
    four = ("--retrain.seeds", "4")
    assert (done := project.run("bank", *four, **at("lethe.engine.resume:Resume.save", 3))).returncode == -9, done.stderr
    assert not models(project)
    said = project.run("bank", *four, **at_file("retrained.seed3.safetensors"))
    assert said.returncode == -9 and "retrained, seeds 1 to 4: resuming after epoch 1" in said.stderr
    first = models(project)
    assert [*first] == ["retrained.seed1", "retrained.seed2"]
    said = project.ran("bank", *four, "--pretrain.seeds", "1")
    assert "4 retrained requested, 2 already trained" in said.stderr
    assert "retrained, seeds 1 to 4: resuming after epoch 3" in said.stderr
    said = project.ran("bank", "--retrain.seeds", "5")
    assert "5 retrained requested, 4 already trained" in said.stderr
    grown = models(project)
    assert grown.items() >= first.items()
    assert [*grown] == ["original.seed1", *(f"retrained.seed{seed}" for seed in (1, 2, 3, 4, 5))]
    assert not list((project.root / ".lethe" / "bank").glob("*/*.seed*"))
    rows = project.rows()
    above = [row for row in rows if row["name"] == "bank"]
    assert [row["status"] for row in above] == ["FINISHED"]
    below = [row for row in rows if row["tags"].get("mlflow.parentRunId") == above[0]["run_id"]]
    assert sorted(row["name"] for row in below) == [*grown]
    assert {row["status"] for row in rows} == {"FINISHED"}

    # What is there is not made again; what belongs to other settings stands elsewhere
    project.ran("bank", "--retrain.seeds", "3")
    assert models(project) == grown
    (folder,) = (project.root / "bank").glob("*/")
    project.ran("bank", "--retrain.seeds", "1", "--retrain.epochs", "1")
    assert len(list((project.root / "bank").glob("*/"))) == 2
    assert models(project, folder.name) == grown

    # At once or alone, a model is the one that its seed makes, but for the order of sums, of which training makes more: up to 3 % of the
    # distance between models, as the processor has it
    here = prepared(project, monkeypatch)
    other = bank.tables(here, "retrained")[0].logits
    for made in bank.tables(here, "retrained")[3:]:
        network = here.network(int(made.about["seed"]))
        list(engine.run(here.config.reference_recipe("retrained"), network, here.data, RunOptions(seed=int(made.about["seed"]))))
        alone = reading.read(here, "alone", network.state_dict(), {})
        assert np.abs(made.logits - alone.logits).mean() < 0.1 * np.abs(made.logits - other).mean()
        assert made.ids == alone.ids


def test_beside_it_all_is_measured_and_again_when_it_grows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of run.seed too, which it does not hold."""
    here = prepared(project, monkeypatch)
    for seed in (1, 2, 3):
        table.write(fake(here, seed), bank.path(here, "retrained", seed))
    project.ran("unlearn", "--method", "model_1")
    scores = {name: json.loads((project.root / "scores" / f"{name}.json").read_text()) for name in ("original", "retrained", "model_1")}
    for name, measured in scores.items():
        assert (measured["references"], measured["tier"]) == (3, 1)
        assert measured["of"]["bank"]["models"] == 3, name
        theirs = measured["measures"]["accuracy.forget"]["reference"]
        assert (theirs["models"], theirs["interval"]) == (3, SEEDS)
        assert measured["measures"]["distance.forget"]["interval"] == EXAMPLES
    mean = np.mean([made.correct[made.rows("forget")].mean() for made in bank.tables(here, "retrained")])
    apart = scores["model_1"]["measures"]["distance.forget"]["value"]
    assert apart == pytest.approx(scores["model_1"]["accuracy"]["forget"] - 100 * mean, abs=1e-5)
    (row,) = project.rows(method="model_1")
    assert row["metrics"]["forget.distance"][-1][1] == pytest.approx(apart, rel=1e-5)
    assert row["tags"]["references"] == "3"
    table.write(fake(here, 4), bank.path(here, "retrained", 4))
    project.ran("evaluate", "--method", "all")
    for name, before in scores.items():
        anew = json.loads((project.root / "scores" / f"{name}.json").read_text())
        assert anew["of"] != before["of"] and anew["references"] == 4


def test_it_says_which_models_were_read_otherwise(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepared(project, monkeypatch)
    made = fake(here, 1)
    table.write(replace(made, about={**made.about, "reading": reading.reading_hash(here)}), bank.path(here, "retrained", 1))
    table.write(fake(here, 2), bank.path(here, "retrained", 2))
    assert "1 of the 2 existing retrained tables were computed in another way" in project.ran("bank", "--retrain.seeds", "2").stderr
    assert "2 of the 2 existing retrained" in project.ran("bank", "--retrain.seeds", "2", "--evaluate.features", "true").stderr


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def altered(change: Callable[[LogitsTable], LogitsTable]) -> Callable[[Path], None]:
    return lambda path: table.write(change(table.read(path)), path)


def of(**about: str) -> Callable[[Path], None]:
    return altered(lambda made: replace(made, about={**made.about, **about}))


def poisoned(path: Path) -> None:
    tensors, about = checkpoint.load(path)
    tensors["logits"][3, 0] = float("nan")
    checkpoint.save(tensors, path, about)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another split": (
        of(split="0" * 64),
        "retrained.seed2.safetensors does not belong to this bank: its split is 000000000000, these settings",
    ),
    "another recipe": (of(recipe="()"), r"does not belong to this bank: its recipe is \(\), these settings have"),
    "truncated": (cut, "retrained.seed2.safetensors can't be read as safetensors"),
    "NaN": (poisoned, "retrained.seed2.safetensors: NaN or infinite for 1 of"),
    "other ids": (
        altered(lambda made: replace(made, ids=("train/99999", *made.ids[1:]))),
        "and .*retrained.seed2.safetensors do not match: 2 images occur in only one of them",
    ),
    "classes": (
        altered(lambda made: replace(made, logits=np.pad(made.logits, ((0, 0), (0, 1))))),
        "and .*retrained.seed2.safetensors do not match: 10 and 11 classes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_belong_names_both_sides(project: Project, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    here = prepared(project, monkeypatch)
    for seed in (1, 2):
        table.write(fake(here, seed), bank.path(here, "retrained", seed))
    assert len(bank.tables(here, "retrained")) == 2
    spoil, says = FAULTS[fault]
    spoil(bank.path(here, "retrained", 2))
    with pytest.raises(UserError, match=says):
        results.scores(here, "original")


def test_the_key_knows_what_makes_a_model_and_nothing_else(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(*said: str) -> str:
        return bank.key(prepared(project, monkeypatch, *said))

    same = (("--retrain.seeds", "9"), ("--run.seed", "5"), ("--method", "model_2"), ("--run.threads", "2"))
    other = (("--pretrain.lr", "0.05"), ("--retrain.epochs", "1"), ("--model.architecture", "resnet18"), ("--run.precision", "bfloat16"))
    assert {key(*said) for said in same} == {key()}
    assert len({key(), *(key(*said) for said in other)}) == 1 + len(other)


def test_the_model_of_run_seed_is_held_out(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepared(project, monkeypatch)
    for seed in (0, 1, 2):
        table.write(fake(here, seed), bank.path(here, "retrained", seed))
    assert [made.about["seed"] for made in bank.tables(here, "retrained")] == ["1", "2"]


@pytest.mark.slow
def test_the_full_demo_from_bank_to_report(project: Project) -> None:
    """Two methods by as many seeds as the bank has retrained models, the others by run.seeds; all of it measured beside the bank."""
    short = [word for name in PAPER_METHODS for word in (f"--methods.{name}.epochs", "1")]
    short += ["--evaluate.shadows", "2", "--evaluate.relearn", "4"]  # their numbers are what other tests are about
    done = project.ran(
        "demo", "--full", "--pretrain.epochs", "8", "--pretrain.seeds", "1", "--retrain.seeds", "2", "--run.seeds", "1", *short
    )
    home = project.root / "demo-full"
    assert {path.stem for path in home.glob("bank/*/*")} == {"original.seed1", "retrained.seed1", "retrained.seed2"}
    assert {path.stem for path in home.glob("models/*.seed1.*")} == {"hybrid_4.seed1", "model_1.seed1"}
    assert {path.stem for path in home.glob("scores/*.json")} >= {*PAPER_METHODS, "original", "retrained"}
    assert json.loads((home / "scores" / "model_2.json").read_text())["references"] == 2
    assert "Hybrid-4" in done.stdout and (home / "report" / "measures.csv").exists()
