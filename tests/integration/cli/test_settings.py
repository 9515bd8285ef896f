"""A workspace's own settings: what made it is a layer of the configuration."""

import json
import re
import shutil

import pytest
from ruamel.yaml import YAML

from lethe._util.files import write_json
from support.project import Project

NONE = ("--method", "model_1", "--methods.model_1.epochs", "0")  # an unlearning that changes nothing


def test_a_workspace_keeps_its_settings(project: Project) -> None:
    """No key is typed again; one that contradicts what exists is an error that names the command which replaces it."""
    asked = ("--run.workspace", "other")
    home = project.root / "other"
    project.ran("prepare", "--data.source", "digits", "--data.limit", "11", "--data.mean", "0.4,0.5,0.5", *asked)
    assert YAML(typ="safe").load(home / "settings.yaml") == {"data": {"source": "digits", "limit": 11, "mean": [0.4, 0.5, 0.5]}}
    done = project.run("unlearn", *NONE, *asked, "--data.source", "cifar10")
    assert done.returncode == 2 and "reading cifar10" not in done.stderr
    assert (
        f"error: data.source is cifar10 (command line), and {home} was made with digits; "
        "`python src/prepare.py --run.workspace other --data.source cifar10` replaces it\n" == done.stderr
    )
    done = project.run("report", *asked)
    assert done.returncode == 2, done.stderr
    assert "`python src/unlearn.py --run.workspace other` creates some" in done.stderr
    # a file of the user's own, and its mistakes
    text = (home / "settings.yaml").read_text()
    (home / "settings.yaml").write_text(text + "pretrain: {epoch: 1}\n")
    assert (
        f"error: pretrain.epoch is unknown ({home}/settings.yaml, line 6); nearest: pretrain.epochs\n"
        == project.run("report", *asked).stderr
    )
    (home / "settings.yaml").write_text(text)
    # another request keeps the other keys; a refused command records nothing
    project.ran("prepare", "--data.forget.count", "9", *asked)
    done = project.run("unlearn", *NONE, *asked, "--data.forget.classes", "3", "--model.architecture", "resnet18")
    assert (
        "data.forget.classes is 3 (command line)" in done.stderr
        and "was made with data.forget.count 9; `python src/prepare.py" in done.stderr
    )
    settings = YAML(typ="safe").load(home / "settings.yaml")
    assert settings == {"data": {"source": "digits", "limit": 11, "mean": [0.4, 0.5, 0.5], "forget": {"count": 9}}}
    # what made an original is recorded with it, whatever params.yaml says later
    project.ran("pretrain", *asked, "--pretrain.lr", "0.05", "--model.architecture", "convnet")
    weights = (home / "models" / "original.safetensors").read_bytes()
    project.ran("unlearn", *NONE, *asked)
    assert (home / "models" / "original.safetensors").read_bytes() == weights
    done = project.run("unlearn", *NONE, *asked, "--pretrain.lr", "0.2")
    assert done.returncode == 2 and "pretrain.lr is 0.2 (command line)" in done.stderr
    assert "was made with 0.05; `python src/pretrain.py --run.workspace other --pretrain.lr 0.2` replaces it" in done.stderr
    edited = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(edited.replace("limit: 20", "limit: 15"))
    project.ran("evaluate", "--method", "model_1", *asked)
    project.ran("retrain", *asked, "--retrain.epochs", "1")
    project.ran("evaluate", "--method", "original,retrained", *asked)
    assert (home / "models" / "original.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_the_demo_keeps_its_section_of_the_parameters(project: Project) -> None:
    params = YAML().load(project.root / "params.yaml")
    params["data"]["source"], params["data"]["limit"], params["model"]["architecture"] = "cifar10", None, "resnet18"
    params["pretrain"]["epochs"] = params["methods"]["model_1"]["epochs"] = 2
    params["demo"]["pretrain"]["epochs"] = params["demo"]["retrain"]["epochs"] = 1
    params["demo"]["methods"]["lethe"]["retain_epochs"] = 1
    for own in ("hybrid_4", "model_1"):
        params["demo"]["methods"][own] |= {word: 0 for word in ("epochs", "final_epochs") if word in params["methods"][own]}
    YAML().dump(params, project.root / "params.yaml")
    project.ran("demo")
    asked = ("--run.workspace", "demo")
    project.ran("unlearn", "--method", "model_1", *asked)
    for stage in (("evaluate", "--method", "hybrid_4"), ("evaluate", "--method", "all"), ("report",), ("report", "card"), ("bank",)):
        project.ran(*stage, *asked)
    project.ran("search", "--search.method", "model_1", "--search.trials", "1", *asked)
    params["demo"]["pretrain"]["epochs"] = 3
    YAML().dump(params, project.root / "params.yaml")
    done = project.run("demo")
    assert done.returncode == 2 and "pretrain.epochs is 3 (params.yaml), and" in done.stderr and "was made with 1; `python" in done.stderr


def test_the_checkout_itself_is_set_by_its_parameters(project: Project) -> None:
    """Keys given there are repeated in suggested commands, but an edit of params.yaml always counts."""
    project.ran("prepare", "--data.limit", "11")
    assert not (project.root / "settings.yaml").exists()
    done = project.run("unlearn", *NONE)
    assert done.returncode == 2, done.stderr
    assert "it was made with --data.limit 11, so give that, or `python src/prepare.py" in done.stderr
    shutil.rmtree(project.root / "scores")
    assert "`python src/unlearn.py --data.limit 11` creates some" in project.run("report").stderr
    project.ran("prepare")
    project.ran("retrain", "--retrain.epochs", "1")
    done = project.run("unlearn", *NONE)
    assert done.returncode == 2 and "(other recipe" in done.stderr and "`python src/retrain.py` makes it again" in done.stderr


def test_a_workspace_of_an_earlier_version_keeps_its_settings_too(project: Project) -> None:
    asked = ("--run.workspace", "other")
    project.ran("prepare", "--data.limit", "11", *asked)
    home = project.root / "other"
    (home / "settings.yaml").unlink()
    given = {"of": json.loads((home / "data" / "train.json").read_text())["hash"], "given": {"data.limit": "11"}}
    write_json(home / ".lethe" / "given.json", given)
    project.ran("pretrain", *asked, "--pretrain.epochs", "1")
    settings = YAML(typ="safe").load(home / "settings.yaml")
    assert settings == {"data": {"limit": 11}, "pretrain": {"epochs": 1}}
    project.ran("unlearn", *NONE, *asked)


def test_a_damaged_file_is_found_and_made_anew(project: Project) -> None:
    said = project.ran("verify").stdout
    assert re.search(r"^\d+ files are as they were written, .* 0 damaged, 0 belong to nothing$", said)
    path = project.root / "scores" / "original.json"
    path.write_text(path.read_text().replace('"tier": ', '"tier": 1'))
    found = project.run("verify")
    assert (found.returncode, found.stderr) == (1, "")
    damaged, _ = found.stdout.splitlines()
    assert damaged.startswith(f"damaged: {path}: is damaged or was edited: its content does not have the SHA-256 that it states; remove it")
    refused = project.run("evaluate", "--method", "original")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    ((stage, words),) = re.findall(r"remove it, then `python src/(\w+)\.py (.*)` makes it again", damaged)
    path.unlink()
    project.ran(stage, *words.split())
    assert project.run("verify").returncode == 0
