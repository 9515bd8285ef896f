"""Which runs from several originals belong together: those by one recipe, from originals that were trained alike."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lethe.evaluation import logits_table, seed_aggregation
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import MeasureResult, Score, accuracy_and_loss
from lethe.evaluation.uncertainty import Estimate
from lethe.models import checkpoint
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, Term
from lethe.testing.tables import drawn
from lethe.workspace import read_model, replication
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing
from lethe.workspace.provenance import HOW, made_otherwise
from lethe.workspace.workspace import Prepared
from support.cards import asked, workspace

METHOD = "model_1"
RECIPES = {epochs: repr((Phase("train", epochs, (Term("retain"),), 8, optimizer=SGD(0.9, 0.0)),)) for epochs in (1, 2)}


def put(prepared: Prepared, place: Layout, name: str, number: int, **about: str) -> str:
    """Weights that nobody trained, and a logits table that is theirs; returns their hash."""
    hashes = {key: prepared.hashes[key] for key in ("data", "normalisation", *(() if name == "original" else ("split", "retain")))}
    known = {"kind": name.partition(".")[0], "architecture": "convnet", "recipe": RECIPES[1]} | hashes | about
    weights = checkpoint.save_model({"weight": torch.tensor([float(number)])}, place.weights(name), known)
    of = {"model": weights, "split": prepared.hashes["split"], "reading": read_model.reading_hash(prepared), "recipe": known["recipe"]}
    of |= {key: about[key] for key in (seed_aggregation.KEY,) if key in about}
    logits_table.write(replace(drawn(number, 1.0), about=of), place.logits(name))
    return weights


def unlearned(prepared: Prepared, seed: int, *, trained: Mapping[str, str] | None = None, **about: str) -> None:
    """An original of a seed and two runs from it; that of seed 0 is the workspace's own."""
    place = Layout(prepared.layout.original_runs(seed)) if seed else prepared.layout
    known = {"provenance": "trained", "seed": str(seed)} | dict(trained or {})
    about = {"original": put(prepared, place, "original", 100 + seed, **known)} | about
    runs = {each: put(prepared, place, f"{METHOD}.seed{each}", 10 * seed + each, seed=str(each), **about) for each in (seed, seed + 1)}
    put(prepared, place, METHOD, 11 * seed, seed=str(seed), **about, **seed_aggregation.noted(runs))


@pytest.fixture(autouse=True)
def one_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others take seconds."""

    def score(table: LogitsTable, *given: Any, **named: Any) -> Score:
        accuracy, loss = accuracy_and_loss(table)
        return Score(accuracy, loss, measures={"accuracy.forget": MeasureResult(Estimate(accuracy["forget"]))})

    monkeypatch.setattr(replication, "score_model", score)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A workspace with runs from its own original and those of seeds 1 and 2."""
    home = workspace(tmp_path / "workspace", scored=False)
    here = load_existing(asked(home, "--run.device", "cpu", method=METHOD))
    for seed in (0, 1, 2):
        unlearned(here, seed)
    return here


def counted(prepared: Prepared) -> dict[int, list[int]]:
    """The runs that are averaged; what is read must be what is computed."""
    found = replication.replicated(prepared, METHOD)
    assert replication.read(prepared, METHOD) == found
    return {seed: list(runs) for seed, runs in found.originals.items()} if found else {}


def test_runs_by_one_recipe_from_originals_trained_alike(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    assert counted(prepared) == {0: [0, 1], 1: [1, 2], 2: [2, 3]}
    path = prepared.layout.replication(METHOD)
    before = path.stat().st_mtime_ns
    assert counted(prepared) and path.stat().st_mtime_ns == before
    assert "other settings" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"recipe": RECIPES[2]}, "its recipe"),
        ({"architecture": "resnet18"}, "its architecture"),
        ({"original": "0" * 64}, "it started from another original than is there now"),
        ({"trained": {"recipe": RECIPES[2]}}, "its original's recipe"),
        ({"trained": {"init": "0" * 64}}, "its original's init"),
        ({"trained": {"provenance": "unknown"}}, "its original's provenance"),
    ],
)
def test_results_of_other_settings_are_left_out_by_name(
    other: dict[str, str], why: str, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    counted(prepared)
    unlearned(prepared, 1, **other)  # type: ignore[arg-type]
    assert replication.read(prepared, METHOD) is None  # of what was, so neither report nor card has it
    capsys.readouterr()
    assert counted(prepared) == {0: [0, 1], 2: [2, 3]}
    lines = [line for line in capsys.readouterr().err.splitlines() if "settings" in line]
    assert lines == [f"{METHOD}: results of other settings are left out: originals/1 ({why})"]


def test_a_single_seed_of_another_recipe_is_noticed(prepared: Prepared) -> None:
    """As a command for several seeds leaves it that was stopped."""
    start = checkpoint.metadata(prepared.layout.weights(METHOD))["original"]
    put(prepared, prepared.layout, f"{METHOD}.seed1", 9, recipe=RECIPES[2], original=start)
    assert counted(prepared) == {}


def test_where_the_workspaces_own_result_is_of_other_settings_nothing_is_averaged(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `unlearn` by another learning rate from one original."""
    counted(prepared)
    unlearned(prepared, 0, recipe=RECIPES[2])
    assert counted(prepared) == {}
    assert "left out: originals/1 (its recipe), originals/2 (its recipe)" in capsys.readouterr().err
    unlearned(prepared, 0)
    assert len(counted(prepared)) == 3


def test_an_original_of_the_workspaces_own_seed_counts_once(prepared: Prepared) -> None:
    other = prepared.layout.original_runs(0)
    prepared.layout.original_runs(1).rename(other)
    assert counted(prepared) == {0: [0, 1], 2: [2, 3]}


def test_a_result_without_its_model_is_known_by_its_table(prepared: Prepared) -> None:
    for name in (METHOD, f"{METHOD}.seed0", f"{METHOD}.seed1", "original"):
        prepared.layout.weights(name).unlink()
    assert len(counted(prepared)) == 3
    unlearned(prepared, 2, recipe=RECIPES[2])
    assert [*counted(prepared)] == [0, 1]


def test_a_verdict_on_all_is_made_again_for_a_request_that_names_the_images(prepared: Prepared) -> None:
    found = replication.replicated(prepared, METHOD)
    ids = str(prepared.layout.splits / "forget.csv")
    named = load_existing(asked(prepared.layout.root, "--run.device", "cpu", "--data.forget.ids", ids, method=METHOD))
    assert replication.read(prepared, METHOD) == found and replication.read(named, METHOD) is None
    again = replication.replicated(named, METHOD)
    assert again and found and again.judged != found.judged and again.measures == found.measures


def test_how_two_models_were_made_is_compared_by_what_the_first_one_says() -> None:
    one = {"kind": "model_1", "recipe": RECIPES[1], "data": "d", "normalisation": "n", "seed": "0", "original": "a"}
    assert made_otherwise(one, one | {"seed": "1", "original": "b"}) == []
    assert made_otherwise(one, {key: text for key, text in one.items() if key != "normalisation"}) == []  # of an earlier version
    assert made_otherwise({}, one) == []
    for key in ("kind", "recipe", "data", "normalisation", "init", "classes"):
        assert key in HOW and made_otherwise(one, one | {key: "other"}) == [key]
