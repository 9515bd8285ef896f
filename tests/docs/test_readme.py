"""Every command of the README and the guides is typed, in its order, in a copy of the project with a few digits and short runs.

What would need the network, hours or another machine is typed in another form, given in PAGES next to the command."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.dvc_checkout import RUN, Checkout, stages
from support.project import NET, ROOT, Project, Warm


@dataclass(frozen=True)
class Step:
    """A command as a page shows it.

    Attributes:
        command: the command, on one line.
        output: a pattern that its output matches.
        instead: what is replaced when it is typed.
        first: what is done before.
        then: what is looked at after; of its output.
        elsewhere: the test that types it, if it is not this one.
    """

    command: str
    output: str = ""
    instead: dict[str, str] = field(default_factory=dict)
    first: "Callable[[Checkout, Path], None]" = lambda copy, home: None
    then: "Callable[[Checkout, Project, str], None]" = lambda copy, project, said: None
    elsewhere: str = ""


def photos(copy: Checkout, home: Path) -> None:
    """Create what the pages assume: ~/photos with images, a model of them, two deletion requests."""
    import torchvision  # takes seconds

    draw, root = np.random.default_rng(0), home / "photos"
    for part, n in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(n):
                Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8)).save(root / part / name / f"{number:04}.png")
    (root / "delete.csv").write_text("id\ntrain/cat/0003.png\ntrain/dog/0007.png\n")
    (root / "next.csv").write_text("id\ntrain/dog/0001.png\n")
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), root / "model.pth")


def demo(copy: Checkout, home: Path) -> None:
    """What `make demo` leaves, a little of it."""
    typed(copy, home, "python src/unlearn.py --method hybrid_4 --run.workspace demo")


def card_of_the_demo(copy: Checkout, home: Path) -> None:
    demo(copy, home)
    assert "hybrid_4" in typed(copy, home, "python src/report.py card --method hybrid_4 --run.workspace demo")


def prepared(copy: Checkout, built: Path) -> None:
    """Data, original and retrained, so that nothing is trained that another test trains."""
    for name in ("data", "models", "epochs", "logits", "scores"):
        shutil.copytree(built / name, copy.root / name)


def committed_and_edited(copy: Checkout, home: Path) -> None:
    assert "Running stage 'unlearn" not in typed(copy, home, "dvc repro"), "a second one ran something"
    copy.commit()
    copy.put(methods__hybrid_4__peak=-0.9)
    said = typed(copy, home, "dvc repro")
    assert re.findall("Running stage '(unlearn.*)'", said) == ["unlearn@hybrid_4"]


def committed_again(copy: Checkout, home: Path) -> None:
    copy.commit()


def only_the_peak(copy: Checkout, project: Project, said: str) -> None:
    """What was changed, in DVC's words."""
    lines = said.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["methods.hybrid_4.peak"], said


def only_hybrid_4(copy: Checkout, project: Project, said: str) -> None:
    lines = said.splitlines()[1:]
    assert {line.split()[0] for line in lines} == {"metrics/hybrid_4.json"}, said


def drawn(copy: Checkout, project: Project, said: str) -> None:
    plots = json.loads(copy.dvc("plots", "diff", "HEAD", "--json"))
    assert not plots.get("errors")
    assert set(plots["data"]) == {"retain_against_forget", *(f"epochs/{name}.csv" for name in ("original", "retrained", *RUN))}


def named(copy: Checkout, project: Project, said: str) -> None:
    """An experiment is its own row, named."""
    assert stages(said) == {"fingerprint", "unlearn@hybrid_4", "evaluate@hybrid_4", "report"}
    experiments = copy.dvc("exp", "list", "--name-only").split()
    tagged = project.rows(**{"dvc.revision": copy.git("rev-parse", "HEAD").strip()})
    assert [(row["name"], row["tags"]["dvc.experiment"]) for row in tagged] == [("hybrid_4", *experiments)]
    assert tagged[0]["params"]["methods.hybrid_4.peak"] == "-0.7"


def queued(copy: Checkout, project: Project, said: str) -> None:
    """It ran in a copy of the checkout, and says so in the checkout's store."""
    (run,) = (row for row in project.rows(method="hybrid_4") if "dvc.experiment" in row["tags"])
    (name,) = set(copy.dvc("exp", "list", "--name-only").split()) - {run["tags"]["dvc.experiment"]}
    (row,) = project.rows(**{"dvc.experiment": name})
    assert (row["name"], row["params"]["data.forget.count"]) == ("retrained", "50")


OWN_DATA = (
    "--data.source image_folder --data.root ~/photos --data.image_size 32 "
    "--data.mean 0.485,0.456,0.406 --data.std 0.229,0.224,0.225 "
    "--model.architecture resnet18 --pretrain.checkpoint ~/photos/model.pth "
    "--data.forget.ids ~/photos/delete.csv --run.workspace photos"
)
README: dict[str, list[Step]] = {
    "": [Step("make demo", elsewhere="tests/integration/cli/test_cli.py, test_the_demo")],
    "Somebody asked for deletion": [
        Step(f"python src/unlearn.py --method lethe {OWN_DATA}", elsewhere="the deletion request's guide"),
        Step("python src/report.py card --method lethe --run.workspace photos", elsewhere="the deletion request's guide"),
    ],
    "You study unlearning": [
        # params.yaml says digits here, where the README's downloads CIFAR-10 and trains for hours
        Step("mlflow run . -e hybrid", r"\nretrained .*\nhybrid_4 "),
        Step("python src/unlearn.py --method hybrid_4 --methods.hybrid_4.epochs 10", r"\nhybrid_4 "),
        Step("python src/unlearn.py --method hybrid_4 --explain --time", r"batch order +\d+x.* s of steps on this machine"),
        Step("python src/report.py --run.workspace demo", r"demo/report/report.md\n.*\nHybrid-4 ", first=demo),
        Step("mlflow run . -e evaluate -P method=all", r"\nretrained .*\nhybrid_4 "),
        Step("mlflow run . -e search -P search.method=hybrid_4 -P search.trials=40", r"2 of 2 done", {"trials=40": "trials=2"}),
        Step("python src/search.py adopt 17 gentle", r"methods.gentle is trial 1 of", {"17": "1"}),
        Step("mlflow run . -e unlearn -P method=gentle", r"\nretrained .*\ngentle "),
    ],
    "You run models in production": [
        Step(
            "mlflow run . -e unlearn -P method=lethe -P run.register_as=photos -P run.register_alias=candidate",
            r"\nretrained .*\nhybrid_4 ",
            {"method=lethe": "method=hybrid_4 -P run.log_model=safetensors"},
        ),
        Step("dvc repro", elsewhere="the MLOps page"),
        Step("python src/report.py card --list train/11 --run.workspace demo", r"hybrid_4", first=card_of_the_demo),
    ],
    "Speed": [Step("make bench", elsewhere="tests/unit/test_bench.py")],
}
DELETION_REQUEST: dict[str, list[Step]] = {
    "2. Look before you run": [
        Step(f"python src/unlearn.py --explain --method lethe {OWN_DATA}", r"lethe: 3 phases", first=photos),
    ],
    "3. Run": [
        Step(
            f"python src/unlearn.py --method lethe {OWN_DATA}",
            r"original: .*photos/model.pth, SHA-256 \w+, provenance unknown.*\nlethe ",
        ),
    ],
    "4. Read the result": [
        Step("python src/unlearn.py --method lethe --run.seeds 3 --run.workspace photos", elsewhere="tests/integration/cli/test_seeds.py"),
    ],
    "5. The unlearning card": [
        Step("python src/report.py card --method lethe --run.workspace photos", r"photos/cards/lethe-\w+.html\n"),
        Step("python src/report.py card --list train/cat/0003.png --run.workspace photos", r"lethe"),
        Step("python src/report.py card --verify photos/cards/lethe-*.json", r"as written, not signed"),
        Step(
            "python src/report.py card --verify photos/cards/lethe-*.json --run.workspace photos",
            r"every number is what its logits tables show, and its result is the one that the ledger has",
        ),
    ],
    "6. Erase": [
        Step(
            "python src/erase.py --method lethe --source --run.workspace photos",
            r"nothing was changed.*source +left to you .*delete.csv: 2 ids.*model.pth: 1 model.*cat/0003.png: 1 image",
        ),
        Step("rm ~/photos/delete.csv ~/photos/model.pth"),
        Step("python src/erase.py --method lethe --source --yes --run.workspace photos", r"nothing is left in what was searched"),
        Step("python src/erase.py --check --run.workspace photos", r"nothing is left in what was searched"),
        Step("python src/ledger.py verify --run.workspace photos", r"received.*unlearned.*evaluated.*approved.*erased.*verified"),
    ],
    "7. The next request": [
        Step(
            "python src/unlearn.py --method lethe --data.forget.ids ~/photos/next.csv --run.workspace photos",
            r"was for a request that was erased.*\nretrained .*\nlethe ",
        ),
    ],
}
BOARD = "python src/leaderboard.py --method ft,l1_sparse,lethe --share 0.1,0.3"
RESEARCHER: dict[str, list[Step]] = {
    "Methods at equal cost": [
        Step(f"{BOARD} --run.workspace demo", elsewhere="tests/integration/cli/test_leaderboard.py"),
        Step(f"{BOARD} --run.seeds 3 --run.workspace demo", elsewhere="tests/integration/cli/test_leaderboard.py"),
        Step(
            "python src/leaderboard.py --method my.methods:joint,my.methods:looped --share 0.1,0.3 --run.seeds 3 --run.workspace demo",
            elsewhere="tests/unit/pipeline/test_leaderboard.py",
        ),
    ],
    "Strong evidence: a reference bank": [
        Step("python src/bank.py --retrain.seeds 8 --pretrain.seeds 8", r"bank/\w+: 2 original, 2 retrained", {"seeds 8": "seeds 2"}),
        Step("python src/unlearn.py --method hybrid_4 --run.seeds 8", r"\nhybrid_4 .*mean over 2 seeds", {"seeds 8": "seeds 2"}),
        Step(
            "python src/evaluate.py --method hybrid_4 --evaluate.swap true --evaluate.shadows 64",
            elsewhere="tests/integration/cli/test_shadow_models.py",
        ),
    ],
}
MLOPS: dict[str, list[Step]] = {
    "MLflow": [Step("python src/send.py", r"Everything is sent|Nothing")],
    "DVC": [
        Step("dvc repro", r"unlearn@hybrid_3'.*unlearn@hybrid_4'.*'report'"),
        Step("dvc metrics diff", r"metrics/hybrid_4.json +accuracy.forget", first=committed_and_edited, then=only_hybrid_4),
        Step("dvc params diff", r"params.yaml +methods.hybrid_4.peak +-0.8 +-0.9", then=only_the_peak),
        Step("dvc plots show", r"dvc_plots/index.html", then=drawn),
        Step("git checkout HEAD~1 && dvc checkout", r"M\s+models/hybrid_4.safetensors", first=committed_again),
        Step("git checkout - && dvc checkout", r"M\s+models/hybrid_4.safetensors"),
        Step("dvc exp run -S methods.hybrid_4.peak=-0.7", r"unlearn@hybrid_4'.*Ran experiment", then=named),
        Step(
            "dvc exp run --queue -S methods.hybrid_4.peak=-0.5,-0.3",
            r"Queued experiment",
            {",-0.3": " -S data.forget.count=50 -S data.forget.fraction=null retrain"},
        ),
        Step("dvc exp run --run-all", r"", then=queued),
        Step("dvc remote add --default folder ~/lethe-store", r"Setting 'folder' as a default remote"),
        Step("dvc remote add --default bucket s3://my-bucket/lethe", r"Setting 'bucket' as a default remote"),
        Step("dvc push", r"files? pushed", {"push": "push --remote folder"}),  # the bucket is on the network
    ],
    "Files that changed on their own": [Step("python src/verify.py", r"\b0 damaged")],
}
PAGES = {
    "README.md": README,
    "docs/guides/deletion-request.md": DELETION_REQUEST,
    "docs/guides/researcher.md": RESEARCHER,
    "docs/guides/mlops.md": MLOPS,
}
# What is typed in one copy of the project, in order: one section, or the whole of a page whose steps build on each other
TOGETHER = [
    *(("README.md", [section]) for section in ("You study unlearning", "You run models in production")),
    ("docs/guides/deletion-request.md", list(DELETION_REQUEST)),
    ("docs/guides/researcher.md", list(RESEARCHER)),
    ("docs/guides/mlops.md", list(MLOPS)),
]


def commands(page: str) -> dict[str, list[str]]:
    """Heading, "" of what is before the first, -> the commands in its console blocks, one line each."""
    shown: dict[str, list[str]] = {}
    head, *sections = re.split(r"^## ", (ROOT / page).read_text(), flags=re.MULTILINE)
    for section in (f"\n{head}", *sections):
        blocks = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        lines = "".join(blocks).replace("\\\n", "").splitlines()
        assert all(line.startswith("$ ") for line in lines)
        if typed := [" ".join(line[2:].split()) for line in lines]:
            shown[section.partition("\n")[0]] = typed
    return shown


def typed(copy: Checkout, home: Path, command: str) -> str:
    environment = copy.environment(HOME=str(home), DVC_ROOT=str(copy.root), CURVES="none", MLFLOW_DISABLE_TELEMETRY="true")
    del environment["MLFLOW_RUN_ID"]
    done = subprocess.run(["bash", "-c", command], cwd=copy.root, env=environment, stdout=-1, stderr=-2, text=True, timeout=NET)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_typed(page: str) -> None:
    steps = PAGES[page]
    assert commands(page) == {section: [step.command for step in typed] for section, typed in steps.items()}
    makefile = (ROOT / "Makefile").read_text()
    for step in (step for typed in steps.values() for step in typed):
        assert all(word in step.command for word in step.instead)
        assert not step.command.startswith("make ") or re.search(rf"^{step.command.split()[1]}:", makefile, re.MULTILINE)
    typed_here = {section for own, sections in TOGETHER if own == page for section in sections}
    assert typed_here >= {section for section, typed in steps.items() if any(not step.elsewhere for step in typed)}
    for test in re.findall(r"tests/[\w/]+\.py", " ".join(step.elsewhere for typed in steps.values() for step in typed)):
        assert (ROOT / test).exists(), test


@pytest.mark.slow
@pytest.mark.parametrize(("page", "sections"), TOGETHER, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_section_can_be_typed(
    page: str, sections: list[str], request: pytest.FixtureRequest, built: Path, warm: Warm, tmp_path: Path
) -> None:
    copy: Checkout = request.getfixturevalue("small")
    home = tmp_path / "home"
    home.mkdir()
    if page not in ("docs/guides/mlops.md", "docs/guides/deletion-request.md"):
        prepared(copy, built)
        copy.put(search__spaces__hybrid_4={"peak": {"low": -1.0, "high": -0.01}})
    for step in (step for section in sections for step in PAGES[page][section] if not step.elsewhere):
        step.first(copy, home)
        command = step.command
        for word, other in step.instead.items():
            command = command.replace(word, other)
        output = typed(copy, home, command)
        assert re.search(step.output, output, re.DOTALL), f"$ {command}\n{output}"
        step.then(copy, Project(copy.root, warm), output)
