"""Other requests: which images they forget, what is trained on them, and what a real run makes of it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lethe.data import shadow_splits
from lethe.data.splits import Splits
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.evaluation import logits_table as table
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Array
from lethe.models import checkpoint
from lethe.testing.tables import lower_tiers
from lethe.workspace import artifacts, bank
from lethe.workspace import read_model as reading
from lethe.workspace import scores as results
from lethe.workspace.workspace import Prepared
from support.banks import fake, prepared
from support.project import Project, at, at_file

# --- a real run -----------------------------------------------------------------------------------------------------------


def by_hand(here: Prepared, mine: Splits, seeds: tuple[int, int], learned: Mapping[str, Tensor] | None = None) -> tuple[Array, Array]:
    """phi [N], by id, of what learned retain and forget of these splits, and of what then forgot; one model after the other."""
    index = {name: torch.from_numpy(rows) for name, rows in mine.items()}
    index["train"] = torch.from_numpy(np.sort(np.concatenate([mine["retain"], mine["forget"]])))
    data, network, phi = replace(here.data, splits=index), here.network(seeds[0]), []
    if learned:
        network.load_state_dict(dict(learned))
    for recipe, seed in zip((() if learned else here.config.reference_recipe("original"), here.config.recipe()), seeds, strict=True):
        list(engine.run(recipe, network, data, RunOptions(seed=seed)))
        phi.append(reading.read(here, "by hand", network.state_dict(), {}).phi)
    return phi[0], phi[1]


def score(project: Project, name: str, id_: str) -> Any:
    return json.loads(project.files()[f"scores/{name}.json"])["measures"][id_]


def same_files(project: Project, before: Mapping[str, bytes]) -> bool:
    now = project.files()
    return all(now[name] == text for name, text in before.items() if name.startswith(("scores", "logits", "others")))


def test_a_real_run_has_the_second_side(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.ran("unlearn", "--method", "model_3")
    asked = ("--method", "original,model_3", "--evaluate.swap", "true")
    done = project.ran("evaluate", *asked)
    assert done.stderr.count("train  ") == 2
    before, rows = project.files(), project.rows()
    assert "\nmodel_3               ulira.auc: needs at least 64 models unlearned on other requests" in done.stdout
    for name in ("original", "model_3"):
        got = score(project, name, "swap.advantage")
        assert 0 <= got["low"] <= got["value"] <= got["high"] <= 1
    again = project.ran("evaluate", *asked)
    assert "train  " not in again.stderr and "into a logits table" not in again.stderr
    assert same_files(project, before) and len(project.rows()) == len(rows)
    here = prepared(project, monkeypatch, "--method", "model_3")
    mine = shadow_splits.swapped(here.splits, here.images)
    made = artifacts.logits(here, "model_3")
    there = replace(made, logits=made.columns["swapped"]).phi
    pool = [made.ids.index(here.images.ids[i]) for i in (*here.splits["forget"], *mine["forget"])]
    np.testing.assert_allclose(there[pool], by_hand(here, mine, (0, 0))[1][pool], atol=1e-3)
    # from the table alone, and gone with the weights that it was read beside
    shutil.rmtree(project.root / "others")
    project.ran("evaluate", "--method", "model_3")
    assert score(project, "model_3", "swap.advantage") == json.loads(before["scores/model_3.json"])["measures"]["swap.advantage"]
    tensors, known = checkpoint.load(project.root / "models" / "model_3.safetensors")
    name, value = next((name, value) for name, value in tensors.items() if value.is_floating_point())
    checkpoint.save(tensors | {name: value + 1e-3}, project.root / "models" / "model_3.safetensors", known)
    project.ran("evaluate", "--method", "model_3")
    assert "missing" in score(project, "model_3", "swap.advantage")


@pytest.mark.slow
def test_shadows_learn_and_forget_their_own_halves(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.ran("unlearn", "--method", "model_3")
    asked = ("--method", "original,model_3", "--evaluate.shadows", "6")
    learned = project.root / "others" / "shadows" / "original.learned"
    killed = project.run("evaluate", *asked, **at_file("3.safetensors"))  # between two files of what was made at once
    first = {path.name: path.read_bytes() for path in learned.glob("[0-9]*")}
    assert killed.returncode == -9 and sorted(first) == ["0.safetensors", "1.safetensors", "2.safetensors"]
    killed = project.run("evaluate", *asked, **at("lethe.engine.resume:Resume.save", 3))  # in the second epoch of their unlearning
    assert killed.returncode == -9 and "shadows 0 to 5: resuming after epoch 3" in killed.stderr
    assert len([*learned.glob("[0-9]*")]) == 6 and all((learned / name).read_bytes() == was for name, was in first.items())
    done = project.ran("evaluate", *asked)
    assert "model_3, shadows 0 to 5: resuming after epoch 1" in done.stderr and "train  " not in done.stderr
    assert not list((project.root / ".lethe" / "others").glob("*"))
    said = score(project, "model_3", "ulira")["missing"]
    assert said == "needs at least 64 models unlearned on other requests (evaluate.shadows); 6 available"
    before = project.files()
    again = project.ran("evaluate", *asked)
    assert "into a logits table" not in again.stderr and "train  " not in again.stderr and same_files(project, before)

    # Stepped at once or one after another; and what each half is to it
    here = prepared(project, monkeypatch, "--method", "model_3")
    made = artifacts.logits(here, "model_3")
    phi, role = (made.columns[name] for name in SHADOWS)
    for number in (0, 3):
        forgotten, unseen = shadow_splits.halved(here.splits, here.images, number)
        mine = {**here.splits, "forget": forgotten, "validation": unseen}
        for rows, what in ((forgotten, FORGOT), (unseen, NEVER_SAW)):
            assert {*np.flatnonzero(role[:, number] == what)} == {made.ids.index(here.images.ids[i]) for i in rows}
        pool = np.flatnonzero(role[:, number])
        seed = here.config.run.seed + 1 + number
        weights, _ = checkpoint.load(project.root / "others" / "shadows" / "original.learned" / f"{number}.safetensors")
        began, ended = by_hand(here, mine, (seed, seed), weights)
        np.testing.assert_allclose(phi[pool, number], ended[pool], atol=1e-3)
        alone, _ = by_hand(here, mine, (seed, seed))  # from scratch, sums in another order grow apart: test_stack.py compares in float64
        assert np.abs(began - alone).mean() < 0.1 * began.std()
        assert not phi[role[:, number] == 0, number].any()

    # Another method takes what is there, and trains its own alone; of several seeds all have the same shadows
    project.ran("unlearn", "--method", "model_1", "--run.seeds", "2", "--run.evaluate", "false")
    done = project.ran("evaluate", "--method", "model_1", "--evaluate.shadows", "8", "--evaluate.swap", "true")
    assert "model_1, shadows: 8 at once" in done.stderr
    assert {path.name: path.read_bytes() for path in learned.glob("[0-9]*") if path.name in first} == first
    assert artifacts.logits(here, "model_1").columns[SHADOWS[0]].shape[1] == 8
    assert score(project, "model_1", "swap.advantage")["models"] == 2
    assert SHADOWS[0] not in artifacts.logits(here, "model_1.seed0").columns
    with monkeypatch.context() as patch:
        lower_tiers(patch, 2, 8)
        found = results.scores(here, "model_1", recompute=True).to_json()["measures"]
    assert 0 <= found["ulira.auc"]["value"] <= 1 and "ulira" not in found and "missing" in found["klom"]

    # Fewer keep what is there; another reading of the model keeps what others said
    project.ran("evaluate", "--method", "model_1", "--evaluate.shadows", "6", "--evaluate.features", "true")
    made = artifacts.logits(prepared(project, monkeypatch, "--evaluate.features", "true"), "model_1")
    assert "features" in made.columns and made.columns[SHADOWS[0]].shape[1] == 8 and SWAPPED not in made.columns

    # One that diverges costs its own column
    broken = ("--methods.model_5.lr", "1e18", "--methods.model_5.scale", "-100")
    project.ran("unlearn", "--method", "model_5", "--run.evaluate", "false")
    tensors, known = checkpoint.load(project.root / "models" / "model_5.safetensors")
    recipe = prepared(project, monkeypatch, "--method", "model_5", *broken).config.recipe()
    checkpoint.save(tensors, project.root / "models" / "model_5.safetensors", known | {"recipe": repr(recipe)})
    done = project.run("evaluate", "--method", "model_5", "--evaluate.shadows", "6", *broken)
    assert done.returncode == 1 and "failed: model_5 is scored without evaluate.swap or evaluate.shadows: model_5, shadows" in done.stderr
    assert "missing" in score(project, "model_5", "ulira") and score(project, "model_5", "accuracy.forget")["value"] >= 0

    # By another recipe than the model's they would be of another method
    refused = project.run("evaluate", "--method", "original,model_3", "--evaluate.shadows", "9", "--methods.model_3.lr", "0.5")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    said = refused.stderr.splitlines()[-1]
    assert "model_3 was made by another recipe than methods.model_3 asks for now" in said and "train  " not in refused.stderr
    assert "--methods.model_3.lr 0.5 --method model_3` makes it by these" in said or "--method model_3 --methods.model_3.lr 0.5`" in said


def test_of_someones_original_the_others_must_be_as_good(project: Project) -> None:
    shutil.copy(project.root / "models" / "original.safetensors", project.root / "theirs.safetensors")
    shutil.copy(project.root / "models" / "retrained.safetensors", project.root / "reference.safetensors")
    given = ("--pretrain.checkpoint", "theirs.safetensors", "--retrain.checkpoint", "reference.safetensors")
    project.ran("pretrain", *given)
    project.ran("retrain", *given)
    assert "--pretrain.checkpoint theirs.safetensors" in project.run("report", "card", "--method", "model_1").stderr
    project.ran("evaluate", "--method", "original", "--evaluate.swap", "true", *given)
    done = project.run("evaluate", "--method", "original", "--evaluate.swap", "true", "--pretrain.lr", "1e-6", *given)
    assert done.returncode == 2 and "set it to what made that file" in done.stderr.splitlines()[-1]


def test_the_retrained_model_has_the_bank_for_its_others(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = prepared(project, monkeypatch)
    for seed in range(1, 7):
        table.write(fake(here, seed), bank.path(here, "retrained", seed))
    project.ran("evaluate", "--method", "retrained", "--evaluate.shadows", "6", "--evaluate.swap", "true")
    made = artifacts.logits(here, "retrained")
    alike = bank.tables(here, "retrained")
    role = made.columns[SHADOWS[1]]
    expected = np.where(role > 0, np.stack([one.phi for one in alike], axis=1), 0)
    np.testing.assert_allclose(made.columns[SHADOWS[0]], expected, atol=1e-5)
    assert (made.columns["swapped"] == alike[0].logits).all()
    assert score(project, "retrained", "swap.advantage")["value"] >= 0
