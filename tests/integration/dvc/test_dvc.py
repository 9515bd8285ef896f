"""The pipeline under the real DVC: which stages run again after which edit, and that what it made comes back.

Its experiments are those of docs/guides/mlops.md: tests/docs/test_readme.py.

DVC starts a stage with the first `python` on PATH. Here that forks it from a parent that has imported everything (conftest.py); or, to
ask which stages run, only sketches most of them: their outputs differ at every run, so all that can follow from an edit follows."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from lethe._util import checkout
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.workspace import numerics
from support import yaml_once
from support.dvc_checkout import RUN, Checkout, stages
from support.project import ROOT, Project, Warm, until

ALL_UNLEARN, ALL_EVALUATE = ({f"{stage}@{name}" for name in RUN} for stage in ("unlearn", "evaluate"))
EVALUATED = {"evaluate_reference@original", "evaluate_reference@retrained", *ALL_EVALUATE, "report"}
EVERYTHING = {"fingerprint", "prepare", "pretrain", "retrain", "bank", *ALL_UNLEARN, *EVALUATED}


def test_an_edit_runs_what_it_touches_and_nothing_else(small: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in small.environment(STAGES="sketched").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(small.root)
    monkeypatch.setattr(YAML, "load", yaml_once.load)

    def repro() -> set[str]:
        """In this process: starting DVC takes longer than most of these."""
        with Repo(str(small.root)) as repo:
            return {stage.addressing for stage in repo.reproduce()}

    (small.root / "request.csv").write_text("id\ntrain/3\ntrain/5\n")
    small.put(data__forget__fraction=None, data__forget__ids="request.csv")
    assert repro() == EVERYTHING
    assert repro() == {"fingerprint"}

    for path in (small.root / "params.yaml", *(small.root / "src" / "lethe").rglob("*.py")):
        with path.open("a") as file:
            file.write("\n# a comment\n")
    assert repro() == {"fingerprint"}

    hybrid_3 = {"fingerprint", "unlearn@hybrid_3", "evaluate@hybrid_3", "report"}
    body = "return _repaired(training, epochs, Ramp(peak, shape, power), repair_every, final_epochs, layers, layers)"
    small.edit("src/lethe/recipes/paper_methods.py", body, body.replace("repair_every", "repair_every + 1"))
    assert repro() == hybrid_3
    small.put(methods__hybrid_3__lr=0.02)
    assert repro() == hybrid_3

    small.edit("src/lethe/workspace/numerics.py", "\nENGINE = 1\n", "\nENGINE = 2\n")  # other arithmetic of steps
    assert repro() == EVERYTHING - {"prepare"}

    (small.root / "request.csv").write_text("id\ntrain/3\ntrain/4\n")
    assert repro() == EVERYTHING - {"pretrain"}

    small.put(retrain__epochs=3)  # every distance moves with it, and no method
    assert repro() == {"fingerprint", "retrain", "bank", *EVALUATED}

    small.put(retrain__seeds=2)  # the bank grows: what is measured beside it is measured again
    assert repro() == {"fingerprint", "bank", *EVALUATED}

    small.put(run__seeds=2)
    assert repro() == {"fingerprint", *ALL_UNLEARN, *ALL_EVALUATE, "report"}


@pytest.mark.slow
def test_made_versioned_and_shared(small: Checkout, tmp_path: Path, warm: Warm) -> None:
    said = small.dvc("repro")
    assert stages(said) == EVERYTHING
    assert "WARNING" not in said
    assert small.git("status", "--porcelain") == "?? dvc.lock\n"
    rows = Project(small.root, warm).rows()
    assert sorted(row["name"] for row in rows) == [*RUN, "original", "retrained"]
    assert all(row["status"] == "FINISHED" and "test.accuracy" in row["metrics"] for row in rows)
    small.commit()
    assert small.repro() == {"fingerprint"}
    kinds = ("data/splits", "models", "epochs", "logits", "scores", "metrics", "report", "recipes")
    made = small.read(*kinds)

    # To a folder, and into a second clone
    small.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    small.dvc("push")
    small.git("clone", "-q", str(small.root), str(tmp_path / "second"))
    second = Checkout(tmp_path / "second", small.bin)
    second.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    second.dvc("pull")
    assert second.read(*kinds) == made
    assert second.repro() == {"fingerprint"}
    second.put(methods__hybrid_3__lr=0.02)  # the images are no output: a stage that wants them reads them
    assert second.repro() == {"fingerprint", "unlearn@hybrid_3", "evaluate@hybrid_3", "report"}

    # Other arithmetic of scores reads no model again
    small.edit("src/lethe/workspace/numerics.py", f"\nMEASURES = {numerics.MEASURES}\n", f"\nMEASURES = {numerics.MEASURES + 1}\n")
    said = small.dvc("repro")
    assert stages(said) == {"fingerprint", "evaluate_reference@original", "evaluate_reference@retrained"}
    assert "into a logits table" not in said
    raised = made | {"recipes/measures.txt": f"{numerics.MEASURES + 1}\n".encode()}
    assert {name: content for name, content in small.read(*kinds).items() if name in raised} == raised

    # And back
    small.git("checkout", "-q", ".")
    small.dvc("checkout")
    assert small.read(*kinds) == made

    # Several seeds, and one again; single seeds lie beside what is versioned
    said = small.dvc("exp", "run", "-S", "run.seeds=2")
    assert stages(said) == {"fingerprint", *ALL_UNLEARN, *ALL_EVALUATE, "report"}
    assert list(json.loads((small.root / "scores/hybrid_4.json").read_text())["seeds"]) == ["0", "1"]
    assert "±" in (small.root / "report/report.md").read_text()
    changed = json.loads(small.dvc("metrics", "diff", "--json"))
    assert {*changed} == {f"metrics/{name}.json" for name in RUN}
    assert all(isinstance(each["new"], float) for metrics in changed.values() for each in metrics.values())
    assert all(
        {*metrics} <= {*(f"accuracy.{split}" for split in ("retain", "forget", "test")), "memory_left"} for metrics in changed.values()
    )
    assert small.repro() == {"fingerprint"}
    small.put(run__seeds=1)
    small.dvc("repro")
    again = small.read(*kinds)
    assert {name: again[name] for name in made} == made
    assert {name for name in again if name not in made} == {
        f"{kind}/{name}.seed{k}.{suffix}"
        for name in RUN
        for k in (0, 1)
        for kind, suffix in (("models", "safetensors"), ("epochs", "csv"), ("logits", "safetensors"), ("scores", "json"))
    }


@pytest.mark.slow
def test_a_bank_is_kept_when_it_grows_and_comes_back(small: Checkout, tmp_path: Path) -> None:
    small.put(retrain__seeds=1)
    assert small.repro("bank") == {"fingerprint", "prepare", "bank"}
    small.commit()
    (folder,) = (small.root / "bank").glob("*/")
    first = small.read("bank")
    assert [path.name for path in folder.iterdir()] == ["retrained.seed1.safetensors"]
    small.put(retrain__seeds=2)
    said = small.dvc("repro", "bank")
    assert stages(said) == {"fingerprint", "bank"}
    assert f"bank {folder.name}: 2 retrained requested, 1 already trained" in said
    grown = small.read("bank")
    assert first.items() <= grown.items() and len(grown) == len(first) + 1
    small.git("checkout", "-q", "dvc.lock", "params.yaml")
    small.dvc("checkout", "bank")
    assert small.read("bank") == first


@pytest.mark.slow
def test_a_search_is_run_only_when_asked_for(small: Checkout) -> None:
    """That a plain `dvc repro` leaves it alone is what EVERYTHING in the tests above says."""
    small.put(search__trials=2, search__spaces__hybrid_4={"peak": {"low": -1.0, "high": -0.01}})
    small.commit()
    said = small.dvc("repro", "search/dvc.yaml")
    assert stages(said) == {"fingerprint", "prepare", "pretrain", "search/dvc.yaml:search"}
    assert "WARNING" not in said
    assert small.git("status", "--porcelain", "search").split() == ["??", "search/dvc.lock", "??", "search/hybrid_4/"]
    found = sorted(path.name for path in (small.root / "search" / "hybrid_4").iterdir())
    assert found == ["best.json", "budgets.csv", "budgets.png", "fresh.csv", "front.csv", "front.png", "trials.csv"]
    (measured,) = json.loads(small.dvc("metrics", "show", "--json", "search/hybrid_4/best.json")).values()
    assert measured["data"]["search/hybrid_4/best.json"]["data"]["done"] == 2
    command = ("plots", "show", "--json", "search/hybrid_4/front.csv", "-t", "scatter", "-x", "unlearning", "-y", "utility")
    drawn = json.loads(small.dvc(*command))
    assert list(drawn["data"]) == ["search/hybrid_4/front.csv"]
    assert not drawn.get("errors")
    assert small.repro("search/dvc.yaml") == {"fingerprint"}
    small.put(search__trials=3)
    said = small.dvc("repro", "search/dvc.yaml")
    assert stages(said) == {"fingerprint", "search/dvc.yaml:search"}
    assert "resuming after 2 trials" in said
    assert len(list(csv.DictReader((small.root / "search/hybrid_4/trials.csv").read_text().splitlines()))) == 3


@pytest.mark.slow
def test_a_killed_dvc_is_gone_on_with(small: Checkout, warm: Warm) -> None:
    small.put(methods__hybrid_4__epochs=80)
    small.dvc("repro", "pretrain")
    command = [sys.executable, "-m", "dvc", "repro", "unlearn@hybrid_4"]
    log = small.root.parent / "log"
    with log.open("w") as into:
        began = subprocess.Popen(command, cwd=small.root, env=small.environment(STAGES="real"), stdout=into, stderr=into)
    until(lambda: log.read_text().count("\nhybrid ") > 2)
    began.send_signal(signal.SIGKILL)
    began.wait()
    until(lambda: "hybrid_4: stopped" in log.read_text())
    said = small.dvc("repro", "unlearn@hybrid_4")
    assert stages(said) == {"fingerprint", "unlearn@hybrid_4"}
    assert re.search(r"hybrid_4: resuming after epoch [1-9]", said)
    (row,) = Project(small.root, warm).rows(method="hybrid_4")
    assert row["status"] == "FINISHED"
    assert [step for step, _ in row["metrics"]["forget.accuracy"]] == list(range(83))


def test_dvc_yaml_names_what_there_is() -> None:
    pipeline = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    assert pipeline["vars"][0]["pipeline"] == list(PAPER_METHODS)
    definitions = {name: stage.get("do", stage) for name, stage in pipeline["stages"].items()}
    definitions |= YAML(typ="safe").load((ROOT / "search" / "dvc.yaml").read_text())["stages"]
    for name, stage in definitions.items():
        for path in stage.get("deps", ()):
            assert path.startswith("${run.workspace}/"), (name, path)
    needs = {"measures": "evaluate_reference", "report": "report", "search": "search"}
    for name in numerics.raised():  # else what was computed by the old number would count as up to date
        assert f"${{run.workspace}}/recipes/{name}.txt" in definitions[needs[name]]["deps"]


def test_an_experiment_of_dvc_is_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git sees no difference between files of equal size and second."""
    monkeypatch.setenv("DVC_EXP_NAME", "gentle-mule")
    known = checkout.commit()
    assert known is None or known[1], "None: the sources are no clone"
