"""The stages as a person types them: what they print, write and leave in MLflow, and what they refuse."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from lethe.cli import completion
from lethe.evaluation.verdict.words import WORDS
from lethe.models import checkpoint
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.recipes.registry import registered_names
from support.project import ROOT, Project, at_step, no_larger

METHODS = registered_names(chains=False)

STAGES = ("prepare", "pretrain", "retrain", "unlearn", "evaluate", "demo")
SPLITS = ("retain", "forget", "validation", "test")
NONE = ("--method", "model_1", "--methods.model_1.epochs", "0")  # an unlearning that changes nothing


def table(text: str) -> dict[str, dict[str, float]]:
    """The result table on stdout: row -> split -> percent."""
    head, *lines = text.splitlines()
    columns = head.split()
    rows = {}
    for line in lines:
        name, *cells = [word for word in line.split() if not word.startswith("(")]
        if len(cells) == len(columns) - 1 and line[0] != " ":
            rows[name] = dict(zip(columns[1:], map(float, cells), strict=True))
    return rows


# --- what is only said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [*STAGES, "send"])
def test_help_names_keys_and_writes_nothing(stage: str, bare: Project) -> None:
    before = bare.files()
    done = bare.ran(stage, "--help")
    assert done.stderr == ""
    assert "usage: " in done.stdout
    assert f"src/{stage}.py" in done.stdout or stage == "send"
    if stage != "send":
        assert "  --run.workspace " in done.stdout
        everything = bare.ran(stage, "--help-all").stdout
        for key in ("data.forget.ids", "pretrain.checkpoint", "run.workspace", "method", "methods.<method>.unfreeze_at"):
            assert f"  --{key} " in everything
    assert bare.files() == before


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("unl", "unlearn"),
        ("unlearn --run.see", "--run.seed --run.seeds"),
        ("report --ru", "--run.workspace --run.experiment"),
        ("evaluate --method hybrid", "hybrid_1 hybrid_2 hybrid_3 hybrid_4"),
        ("unlearn --run.precision b", "bfloat16"),
    ],
)
def test_the_shell_completes_verbs_keys_and_values(words: str, offered: str) -> None:
    typed = ["lethe", *words.split()]
    press_tab = f"COMP_WORDS=({shlex.join(typed)}); COMP_CWORD={len(typed) - 1}; _shtab_lethe; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{completion.script('bash')}\n{press_tab}"], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (offered, "")


@pytest.mark.parametrize("method", [*METHODS, "as_run"])
def test_explain_reads_and_writes_nothing(method: str, bare: Project) -> None:
    before = bare.files()
    done = bare.ran("unlearn", "--method", method, "--explain")
    assert "retain 60, forget 60 images" in done.stdout
    assert f"{method}: " in done.stdout or method == "as_run"
    assert done.stdout.count(" optimizer steps, batch 8") == done.stdout.count("BatchNorm  ") > 0
    assert bare.files() == before
    assert bare.rows() == []


def test_explain_in_numbers(bare: Project) -> None:
    """Of params.yaml as it stands: CIFAR-10, 352 batches to retain and 40 to forget."""
    (bare.root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    before = bare.files()
    done = bare.ran("unlearn", "--explain", "--method", "hybrid_4")
    said = " ".join(done.stdout.split())
    for words in (
        "resnet18, 11,181,642 weights; retain 45,000, forget 5,000 images",
        f"hybrid: 50 epochs, {50 * (352 + 40) + 5 * 352:,} optimizer steps, batch 128",
        "batch order 20x(R F F) 332xR every 10th 20x(R F F) 684xR",
        "learning rate 0.001 throughout",
        "scale 0 at t=0, -0.25 at t=0.5, -0.9604 at t=0.98",
        "trains layer4, fc: 8,398,858 weights",
        "trains layer1, layer2, layer4, fc: 9,072,394 weights, from epoch 15 on",
        "final: 10 epochs, 3,520 optimizer steps",
    ):
        assert words in said
    assert bare.files() == before


def test_explain_with_time(bare: Project) -> None:
    before = bare.files()
    done = bare.ran("unlearn", "--method", "model_6", "--explain", "--time")
    assert " s of steps on this machine" in done.stdout
    assert bare.files() == before
    assert bare.rows() == []


def test_explain_says_what_is_trained_first(project: Project, bare: Project) -> None:
    """As the run decides it: what is there is used, what is missing is made, what is of other settings is refused."""

    def explained(where: Project, *words: str) -> list[str]:
        said = where.ran("unlearn", "--method", "model_1", "--explain", *words).stdout
        return [line for line in said.splitlines() if line.startswith(("original: ", "retrained: "))]

    with (project.root / "epochs" / "retrained.csv").open(newline="") as file:
        epochs = [int(row["step"]) for row in csv.DictReader(file)][-1]
    models = bare.root / "models"
    missing = explained(bare)
    assert [re.sub("[0-9,]+ optimizer steps", "#", line) for line in missing] == [
        f"original: trained first on all train images, {epochs} epochs, #, into {models}/original.safetensors",
        f"retrained: trained first on retain alone, {epochs} epochs, #, into {models}/retrained.safetensors",
    ]
    assert explained(bare, "--run.evaluate", "false", "--pretrain.checkpoint", "model.pth") == [
        f"original: taken from model.pth first, into {models}/original.safetensors"
    ]

    before, models = project.files(), project.root / "models"
    assert explained(project) == [f"{kind}: {models}/{kind}.safetensors, which is there" for kind in ("original", "retrained")]
    refused, _ = explained(project, "--pretrain.epochs", "7")
    real = project.run("unlearn", "--method", "model_1", "--pretrain.epochs", "7")
    assert (real.returncode, real.stderr.splitlines()[-1]) == (2, refused.replace("original: the run would be refused", "error"))
    assert project.files() == before
    retain = project.root / "data" / "splits" / "retain.csv"
    retain.write_text("id\n" + "\n".join(retain.read_text().split()[2:]) + "\n")  # another request
    assert "retrained.safetensors does not belong to these settings (other retain)" in explained(project)[1]
    (models / "original.safetensors").unlink()
    assert explained(project)[0] == missing[0].replace(str(bare.root), str(project.root))


# --- from nothing to a table ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo(bare: Project, tmp_path: Path) -> None:
    """With params.yaml as it stands, but for where it works."""
    home = {"CURVES": "drawn", "DVC_ROOT": "", "MLFLOW_TRACKING_URI": f"sqlite:///{bare.root}/mlflow.db"}
    done = bare.ran("demo", "--run.workspace", str(tmp_path / "demo"), **home)
    percent = table(done.stdout)
    assert list(percent) == ["original", "retrained", "model_1", "hybrid_4", "lethe_too_strong", "lethe"]
    assert percent["original"]["test"] > 85
    apart = {name: row["forget"] - percent["retrained"]["forget"] for name, row in percent.items()}
    assert apart["original"] >= 15
    assert apart["model_1"] >= 15
    assert apart["lethe_too_strong"] <= -10
    assert abs(apart["lethe"]) < min(abs(apart["model_1"]), abs(apart["lethe_too_strong"]))
    verdicts = {name: json.loads((tmp_path / "demo" / "scores" / f"{name}.json").read_text())["verdict"] for name in [*percent][2:]}
    assert verdicts["model_1"] == "remembers"
    assert verdicts["lethe_too_strong"] == "over_forgets"
    assert verdicts["lethe"] in ("as_retrained", "cannot_tell")
    assert all(f"\n{name}: {WORDS[word][0].lower()}" in done.stdout for name, word in verdicts.items())
    assert done.stderr.splitlines()[-1].startswith(
        f"compare the runs: `mlflow ui --backend-store-uri {home['MLFLOW_TRACKING_URI']}`, then http://127.0.0.1:5000/"
    )
    assert percent == {name: round_(json.loads((tmp_path / "demo" / "scores" / f"{name}.json").read_text())) for name in percent}
    rows = {row["name"]: row for row in bare.rows("demo")}
    assert rows.keys() == percent.keys()
    assert len(bare.rows("demo")) == 6 and not bare.rows()
    assert {row["tags"]["workspace"] for row in rows.values()} == {"demo"}
    for key in ("data", "split"):
        assert len({row["tags"][key] for row in rows.values()}) == 1
    for name, row in rows.items():
        assert (row["status"], row["tags"]["method"]) == ("FINISHED", name)
        steps = [step for step, _ in row["metrics"]["retain.accuracy"]]
        assert steps == list(range(len(steps)))
        ((step, value),) = row["metrics"]["test.accuracy"]
        assert (step, round(value, 2)) == (steps[-1], percent[name]["test"])
        assert row["metrics"]["forget.accuracy"][-1][1] == pytest.approx(percent[name]["forget"], abs=0.01)
    (curves,) = (bare.root / "mlruns").rglob(f"{rows['hybrid_4']['run_id']}/artifacts/curves.png")
    assert curves.read_bytes().startswith(b"\x89PNG")
    refused = bare.run("demo", "--run.workspace", str(tmp_path / "demo"), "--data.limit", "19", **home)
    assert refused.returncode == 2, refused.stderr
    _, script, *words = shlex.split(refused.stderr.split("`")[1])
    assert "10 classes; retain 48, forget 142," in bare.ran(Path(script).stem, *words, **home).stdout


def round_(scores: dict[str, object]) -> dict[str, float]:
    accuracy = scores["accuracy"]
    assert isinstance(accuracy, dict)
    return {name: round(value, 2) for name, value in (accuracy | {"gap": scores["gap"]}).items()}


@pytest.mark.slow
def test_equal_seeds_are_equal_bytes_in_another_interpreter(project: Project, bare: Project) -> None:
    """What a forked stage makes in a workspace that is half there, a new interpreter that hashes otherwise makes from nothing."""
    project.ran("unlearn", "--method", "hybrid_4")
    done = bare.lethe("unlearn", "--method", "hybrid_4", PYTHONHASHSEED="2")
    assert done.returncode == 0, done.stderr

    def made(one: Project) -> dict[str, bytes]:
        return {name: content for name, content in one.files().items() if name.split("/")[0] not in (".lethe", "mlruns", "ledger.jsonl")}

    assert made(bare).keys() == made(project).keys()
    assert [name for name, content in made(bare).items() if made(project)[name] != content] == []
    assert sum(name.startswith(("data/", "models/", "epochs/", "logits/", "scores/")) for name in made(bare)) == 9 + 4 * 3
    assert len(bare.rows(method="hybrid_4")) == 1


def test_several_methods_are_runs_of_their_own_in_one_table(project: Project) -> None:
    """One that fails does not stop the others; a name that is none is refused before any of them."""
    before = project.files()
    refused = project.run("unlearn", "--method", "model_1,model_9")
    assert refused.returncode == 2 and refused.stderr.startswith("error: method model_9 is unknown (command line); nearest: model_")
    layer = project.run("unlearn", "--method", "model_1,model_2", "--methods.model_2.trains", "layer9")
    assert layer.returncode == 2 and "methods.model_2.trains" in layer.stderr and project.files() == before
    words = ["--methods.model_1.epochs", "1", "--methods.model_2.epochs", "1", "--methods.model_1.lr", "1e30"]
    done = project.run("unlearn", "--method", "model_1,model_2,ft", *words, "--methods.ft.retain_epochs", "1")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("failed: model_1 diverged"), done.stderr
    assert list(table(done.stdout)) == ["original", "retrained", "model_2", "ft"]
    runs = [(row["name"], row["status"]) for row in project.rows() if row["name"] not in ("original", "retrained")]
    assert runs == [("model_1", "FAILED"), ("model_2", "FINISHED"), ("ft", "FINISHED")]
    cards = project.ran("report", "card", "--method", "ft,model_2").stdout.split()
    assert [Path(card).name.partition("-")[0] for card in cards] == ["ft", "model_2"]


def test_the_chain(project: Project) -> None:
    """The notebook's ten, each from the result before it; killed in the third, it goes on there."""
    names = [f"as_run/{name}" for name in PAPER_METHODS]
    assert (done := project.run("unlearn", "--method", "as_run", **at_step(8 + 8 + 12))).returncode == -9, done.stderr
    done = project.ran("unlearn", "--method", "as_run")
    assert [line for line in done.stderr.splitlines() if line.endswith(": already finished")] == [
        f"{name}: already finished" for name in names[:2]
    ]
    assert "as_run/model_3: resuming after epoch 1" in done.stderr
    assert not list((project.root / ".lethe" / "resume").iterdir())
    assert list(table(done.stdout)) == ["original", "retrained", *names]
    for folder, ending in (("models", "safetensors"), ("epochs", "csv"), ("logits", "safetensors"), ("scores", "json")):
        assert {file.name for file in (project.root / folder / "as_run").iterdir()} == {f"{name}.{ending}" for name in PAPER_METHODS}
    (parent,) = project.rows(method="as_run")
    assert parent["status"] == "FINISHED"
    children = project.rows(**{"mlflow.parentRunId": parent["run_id"]})
    assert [child["name"] for child in children] == names
    assert {child["status"] for child in children} == {"FINISHED"}
    (original,) = project.rows(method="original")
    before = original["tags"]["result"]
    for child in children:
        assert child["tags"]["start"] == before
        before = child["tags"]["result"]
    assert len(project.rows()) == 13


# --- rows -----------------------------------------------------------------------------------------------------------


def test_references_stand_once_in_every_experiment(project: Project) -> None:
    project.ran("unlearn", *NONE)
    assert sorted(row["name"] for row in project.rows()) == ["model_1", "original", "retrained"]
    project.ran("unlearn", "--method", "model_2", "--methods.model_2.epochs", "0")
    assert sorted(row["name"] for row in project.rows()) == ["model_1", "model_2", "original", "retrained"]
    project.ran("unlearn", *NONE, MLFLOW_EXPERIMENT_NAME="another")
    assert sorted(row["name"] for row in project.rows("another")) == ["model_1", "original", "retrained"]
    assert len(project.rows()) == 4
    for one, other in zip(project.rows(method="original"), project.rows("another", method="original"), strict=True):
        assert one["metrics"] == other["metrics"]
        assert [step for step, _ in one["metrics"]["validation.loss"]] == [0, 1, 2, 3]
    for row in project.rows():
        assert row["status"] == "FINISHED"
        assert len(row["metrics"]["test.accuracy"]) == 1
        assert "Compare every number with the run *retrained*" in row["tags"]["mlflow.note.content"]


def test_evaluate_joins_the_row_of_the_run(project: Project) -> None:
    project.ran("unlearn", "--method", "model_3", "--run.evaluate", "false")
    assert not (project.root / "scores" / "model_3.json").exists()
    (row,) = project.rows(method="model_3")
    assert "test.accuracy" not in row["metrics"]
    done = project.ran("evaluate", "--method", "model_3")
    assert list(table(done.stdout)) == ["original", "retrained", "model_3"]
    scores = json.loads((project.root / "scores" / "model_3.json").read_text())
    (after,) = project.rows(method="model_3")
    assert (after["run_id"], after["status"]) == (row["run_id"], "FINISHED")
    assert after["metrics"]["test.accuracy"] == [(4, scores["accuracy"]["test"])]
    assert after["metrics"]["forget.accuracy"] == row["metrics"]["forget.accuracy"]
    assert len(project.rows()) == 3


def test_scores_are_made_again_from_tables_without_a_model(project: Project) -> None:
    project.ran("unlearn", "--method", "model_3")
    files, rows = project.files(), project.rows()
    names = ["original", "retrained", "model_3"]
    shutil.rmtree(project.root / "models")
    for name in names:
        (project.root / "scores" / f"{name}.json").unlink()
    done = project.ran("evaluate", "--method", "all")
    assert sorted(table(done.stdout)) == sorted(names)
    assert "into a logits table" not in done.stderr
    after = project.files()
    for name in names:
        assert after[f"scores/{name}.json"] == files[f"scores/{name}.json"]
        assert after[f"logits/{name}.safetensors"] == files[f"logits/{name}.safetensors"]
    assert not (project.root / "models").exists()
    for row, before in zip(project.rows(), rows, strict=True):  # told nothing twice
        assert row["metrics"] == before["metrics"]
    path = project.root / "logits" / "model_3.safetensors"
    tensors, about = checkpoint.load(path)
    tensors["logits"][5, 0] = float("nan")
    checkpoint.save(tensors, path, about)
    for cut, said in ((None, "model_3: NaN or infinite for 1 of 620 images"), (-1, "logits/model_3.safetensors can't be read")):
        path.write_bytes(path.read_bytes()[:cut])
        done = project.run("evaluate", "--method", "model_3,original")
        assert (done.returncode, done.stderr.count(said)) == (2, 1), done.stderr
    path.unlink()
    done = project.run("evaluate", "--method", "model_3")
    assert done.returncode == 2 and "`python src/unlearn.py --method model_3` makes it" in done.stderr
    done = project.run("evaluate", "--method", "model_3,model_0")
    assert done.returncode == 2 and "method model_0 is unknown (command line); nearest: model_" in done.stderr


def test_what_a_run_took_stands_on_its_row_and_in_no_file_that_is_hashed(project: Project) -> None:
    """Its share of the retraining is one of work, so it is the same however busy the machine is."""
    project.ran("unlearn", "--method", "model_3")  # the work of the retrained model that is there was not counted here
    (project.root / "models" / "retrained.safetensors").unlink()
    project.ran("retrain")
    told = project.ran("unlearn", "--method", "model_3").stderr
    alone, beside = project.rows(method="model_3")
    retraining = max(row["metrics"]["flops"][0][1] for row in project.rows(method="retrained") if "flops" in row["metrics"])
    for row in (alone, beside):
        for total, each in (("seconds", "epoch_seconds"), ("flops", "epoch_flops")):
            took = row["metrics"][total][0][1]
            assert 0 < took == pytest.approx(sum(value for _, value in row["metrics"][each]), rel=1e-5)  # metrics have six digits
        assert "peak_memory" not in row["metrics"]
    share = beside["metrics"]["share_of_retrain"][0][1]
    assert alone["metrics"]["share_of_retrain"][0][1] == pytest.approx(share, rel=1e-5)  # by the recipe, which it was trained by
    assert alone["metrics"]["flops"][0][1] == beside["metrics"]["flops"][0][1] and share == pytest.approx(took / retraining, rel=1e-5)
    assert ("slow" in beside["tags"]) == (share > 0.2)
    assert f"{took:.3g} floating-point operations, {share:.2f} of the work of retraining" in told
    scores = (project.root / "scores" / "model_3.json").read_text()
    assert not [word for word in ("seconds", "flops", "share_of_retrain") if word in scores]


def test_measures_stand_on_the_rows(project: Project) -> None:
    """Also on that of an original whose retrained model came later."""
    for folder in ("models", "logits", "scores"):
        shutil.rmtree(project.root / folder)
    project.ran("pretrain")
    first = json.loads((project.root / "scores" / "original.json").read_text())
    assert first["tier"] == 0 and first["measures"]["tow"] == {"missing": "needs at least 1 retrained model; 0 available"}
    project.ran("unlearn", "--method", "model_1")
    for name in ("original", "retrained", "model_1"):
        (row,) = project.rows(method=name)
        scores = json.loads((project.root / "scores" / f"{name}.json").read_text())
        values = {id_: got["value"] for id_, got in scores["measures"].items() if "value" in got}
        for id_, metric in (("mia.svc", "mia.svc"), ("mia.over", "mia.over"), ("tow", "tow"), ("distance.forget", "forget.distance")):
            if id_ in values:
                assert [value for _, value in row["metrics"][metric]] == pytest.approx([values[id_]], rel=1e-5), (name, id_)
        assert ("tow" in values) == (name != "retrained")
        assert len(row["metrics"]["test.accuracy"]) == 1
        assert (row["tags"]["tier"], row["tags"]["references"]) == (("T0", "0") if name == "retrained" else ("T1", "1"))
        assert ("over_forgetting" in row["tags"]) == (name != "retrained")
    (artifact,) = (project.root / "mlruns").rglob(f"{row['run_id']}/artifacts/scores.json")
    assert json.loads(artifact.read_text()) == scores


# --- what is written ------------------------------------------------------------------------------------------------


def test_git_sees_nothing_of_a_workspace_in_the_checkout(bare: Project) -> None:
    bare.ran("prepare", "--run.workspace", "photos")
    assert (bare.root / "photos" / ".gitignore").read_text() == "*\n"
    bare.ran("prepare")
    assert not (bare.root / ".gitignore").exists()


def test_the_logits_table(project: Project) -> None:
    project.ran("unlearn", "--method", "model_5")
    listed = {name: (project.root / "data" / "splits" / f"{name}.csv").read_text().split() for name in SPLITS}
    assert {name: lines[0] for name, lines in listed.items()} == dict.fromkeys(SPLITS, "id")
    assert [len(lines) - 1 for lines in listed.values()] == [60, 60, 250, 250]
    home = {id_: number for number, lines in enumerate(listed.values()) for id_ in lines[1:]}
    for name in ("original", "retrained", "model_5"):
        path = project.root / "logits" / f"{name}.safetensors"
        tables = load_file(path)
        with safe_open(path, "np") as file:
            ids = json.loads(file.metadata()["ids"])
        assert {key: (value.dtype.name, value.shape) for key, value in tables.items()} == {
            "logits": ("float32", (620, 10)),
            "labels": ("int64", (620,)),
            "split": ("uint8", (620,)),
            "probe": ("uint8", (620,)),
            "residual": ("uint8", (620, 3)),
        }
        assert tables["split"].tolist() == [home[id_] for id_ in ids]
        scores = json.loads((project.root / "scores" / f"{name}.json").read_text())
        right = tables["logits"].argmax(axis=1) == tables["labels"]
        accuracy = {split: round(100 * float(np.mean(right[tables["split"] == number])), 6) for number, split in enumerate(SPLITS)}
        assert scores["accuracy"] == accuracy
        assert scores["gap"] == round(accuracy["retain"] - accuracy["forget"], 6)
        forget = tables["split"] == 1
        assert not tables["residual"][~forget].any() and 0 < tables["residual"][forget].mean() <= 16
        test = tables["split"] == 3
        of_forget, of_test = (np.bincount(tables["labels"][part], minlength=10) for part in (forget, test))
        weights = (of_forget / of_test)[tables["labels"][test]]  # the classes as often as in forget
        excess = 100 * (tables["probe"][forget].mean() - np.average(tables["probe"][test], weights=weights))
        assert scores["measures"]["probe.excess"]["value"] == pytest.approx(excess, abs=1e-6)
    table = project.root / "epochs" / "model_5.csv"
    shared = table.read_bytes()  # the first row from the original's logits table, the last one from the result's
    project.ran("unlearn", "--method", "model_5", "--run.evaluate", "false")
    assert table.read_bytes() == shared
    epochs = [line.split(",") for line in table.read_text().splitlines()]
    last = dict(zip(epochs[0], epochs[-1], strict=True))
    assert epochs[0][0] == "step"
    assert [row[0] for row in epochs[1:]] == ["0", "1", "2", "3"]
    for split in SPLITS[:3]:
        assert float(last[f"{split}.accuracy"]) == pytest.approx(accuracy[split], abs=1e-5)
    assert not any(name.startswith("test.") for name in epochs[0])


# --- what belongs together ------------------------------------------------------------------------------------------


def mended(project: Project, *argv: str) -> list[str]:
    """Types `unlearn` and, as long as it is refused, the command that the refusal names. The stages that it took."""
    stages = []
    while (done := project.run("unlearn", *NONE, *argv)).returncode == 2:
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        python, script, *words = shlex.split(line.split("`")[1])
        assert python == "python"
        stages.append(Path(script).stem)
        assert len(stages) < 5, line
        project.ran(stages[-1], *words)
    assert done.returncode == 0, done.stderr
    return stages


def of_a_file(project: Project) -> list[str]:
    ids = (project.root / "data" / "splits" / "retain.csv").read_text().split()[1:8]
    (project.root / "a request.csv").write_text("id\n" + "\n".join(ids) + "\n")
    return ["--data.forget.ids", "a request.csv"]


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (of_a_file, ["prepare", "retrain"]),
        (lambda project: ["--data.forget.classes", "3,5"], ["prepare", "retrain"]),
        (lambda project: ["--data.limit", "13"], ["prepare", "pretrain", "retrain"]),
        (lambda project: ["--pretrain.lr", "0.2"], ["pretrain", "retrain"]),
        (lambda project: ["--retrain.epochs", "1"], ["retrain"]),
    ],
    ids=["a deletion request", "classes", "other images", "another recipe", "another reference"],
)
def test_what_does_not_belong_is_refused_and_mended(change: Callable[[Project], list[str]], stages: list[str], project: Project) -> None:
    original, retrained = (project.root / "models" / f"{name}.safetensors" for name in ("original", "retrained"))
    before = original.read_bytes(), retrained.read_bytes()
    argv = change(project)
    assert mended(project, *argv) == stages
    assert (original.read_bytes() == before[0]) == ("pretrain" not in stages)
    assert retrained.read_bytes() != before[1]
    if change is of_a_file:
        assert mended(project) == stages, "and back"
        assert (original.read_bytes(), retrained.read_bytes()) == before
        tags = [(row["tags"]["data"], row["tags"]["split"]) for row in project.rows(method="model_1")]
        assert len({data for data, _ in tags}) == 1
        assert len({split for _, split in tags}) == 2


def test_a_result_of_other_splits_is_not_scored(project: Project) -> None:
    project.ran("unlearn", *NONE)
    project.ran("prepare", "--data.forget.count", "30")
    done = project.run("evaluate", "--method", "model_1", "--data.forget.count", "30")
    assert done.returncode == 2, done.stderr
    assert "models/model_1.safetensors was made for other splits" in done.stderr
    assert len(project.rows(method="model_1")) == 1


# --- what is refused ------------------------------------------------------------------------------------------------

BAD = {
    "methods.model_2.trains": (
        "layer5",
        "methods.model_2.trains: no layer is called 'layer5'; this architecture has layer1, layer2, layer3, layer4, fc",
    ),
    "methods.hybrid_4.unfreeze": (
        "layer1,stem",
        "methods.hybrid_4.unfreeze: no layer is called 'stem'; this architecture has layer1, layer2",
    ),
    "methods.model_1.batch_size": ("61", "methods.model_1.batch_size is 61; it takes at most the 60 retain images"),
    "methods.model_1.scael": ("1", "methods.model_1.scael is unknown"),
    "methods.model_1.lr": ("nan", "methods.model_1.lr is nan (command line); it takes a number > 0"),
    "methods.model_4.scale": ("0.1", "methods.model_4.scale is 0.1 (command line); it takes a number <= 0"),
    "methods.model_1.epochs": ("-1", "methods.model_1.epochs is -1"),
    "data.forget.fraction": ("1", "data.forget.fraction is 1"),
    "data.forget.count": ("120", "data.forget.count is 120; it takes 1 to 119"),
    "data.forget.ids": ("nowhere.csv", "nowhere.csv"),
    "pretrain.checkpoint": ("nowhere.pth", "nowhere.pth"),
    "model.architecture": ("resnet19", "model.architecture is 'resnet19'; it takes resnet18"),
    "run.device": ("cuda:77", "run.device is cuda:77"),
    "run.threads": ("0", "run.threads is 0"),
    "method": ("hybrid_5", "method hybrid_5 is unknown"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(key: str, bare: Project) -> None:
    value, says = BAD[key]
    project = bare
    method = key.split(".")[1] if key.startswith("methods.") else "model_1"
    before = project.files()
    done = project.run("unlearn", f"--{key}={value}", *([] if key == "method" else ["--method", method]))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("device ", "reading "))]
    assert line.startswith("error: ")
    assert says in line
    assert project.files() == before
    assert project.rows() == []


def test_a_file_that_is_no_safetensors_is_named(project: Project) -> None:
    original = project.root / "models" / "original.safetensors"
    original.write_bytes(original.read_bytes()[:-1])
    done = project.run("unlearn", *NONE)
    assert done.returncode == 2, done.stderr
    assert "models/original.safetensors can't be read as safetensors" in done.stderr
    assert project.rows() == []


def test_a_full_disk(project: Project) -> None:
    project.ran("unlearn", *NONE)
    models = project.root / "models"
    before = (models / "model_1.safetensors").read_bytes()
    done = project.run("unlearn", "--method", "model_1", **no_larger(50_000))
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "state.safetensors could not be written: " in line
    assert (models / "model_1.safetensors").read_bytes() == before
    images = (project.root / "data" / "images.safetensors").read_bytes()
    done = project.run("prepare", "--data.limit", "13", **no_larger(1_000_000))
    assert done.returncode == 1, done.stderr
    assert "data/images.safetensors could not be written: " in done.stderr
    assert (project.root / "data" / "images.safetensors").read_bytes() == images
    assert not list(project.root.glob("data/.*"))
    project.ran("unlearn", "--method", "model_1")
    # refused while the run is being opened: nothing goes on sending, so the reason is the last line
    done = project.run("unlearn", "--method", "model_4", "--run.seeds", "2", **no_larger(3_000))
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"failed: {project.root}/.lethe/outbox/") and " could not be written: " in last


THEIRS = """
import lethe

@lethe.register_measure(id="theirs", about="reads a file")
def theirs(context):
    error = OSError(28, "No space left on device")
    error.filename = "/their/cache"
    raise error
"""


def test_what_the_system_refuses_to_users_code_keeps_its_place(project: Project) -> None:
    """It is not said as if a file of ours could not be written."""
    (project.root / "theirs.py").write_text(THEIRS)
    done = project.run("evaluate", "--method", "original", "--run.measures", "theirs:theirs")
    assert done.returncode == 1 and "failed: " not in done.stderr
    assert f'File "{project.root}/theirs.py", line 8, in theirs' in done.stderr
    assert done.stderr.endswith("OSError: [Errno 28] No space left on device: '/their/cache'\n")


def test_a_folder_that_is_a_file(bare: Project) -> None:
    (bare.root / "data").write_text("")
    done = bare.run("prepare")
    assert done.returncode == 1, done.stderr
    assert f"failed: {bare.root}/data/images.safetensors could not be written: " in done.stderr
