"""Every command of the README is typed, in its order, in a copy of the project with a few digits and short runs.

What would take the network, hours or another machine is typed with other words, which stand in STEPS beside the command."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.dvc_checkout import Checkout
from support.project import ROOT

PAGE = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Step:
    """A command as it stands in the README; what its output matches; how it is typed instead; what is done first."""

    command: str
    says: str
    instead: dict[str, str] = field(default_factory=dict)
    first: "Callable[[Checkout, Path], None]" = lambda copy, home: None


def photos(copy: Checkout, home: Path) -> None:
    """What the README says is there: ~/photos with images, a model of them, a deletion request."""
    draw, root = np.random.default_rng(0), home / "photos"
    for part, n in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(n):
                Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8)).save(root / part / name / f"{number:04}.png")
    (root / "delete.csv").write_text("id\ntrain/cat/0003.png\ntrain/dog/0007.png\n")
    model = "import sys, torch, torchvision; torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), sys.argv[1])"
    subprocess.run([sys.executable, "-c", model, str(root / "model.pth")], check=True)


def ran(copy: Checkout, home: Path) -> None:
    typed(copy, home, "python src/unlearn.py --method model_1")


def demo(copy: Checkout, home: Path) -> None:
    """What `make demo` leaves, a little of it."""
    typed(copy, home, "python src/unlearn.py --method hybrid_4 --run.workspace demo")


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


STEPS: dict[str, list[Step]] = {
    "The real thing": [
        # params.yaml says digits here, where the README's downloads CIFAR-10 and trains for hours
        Step("mlflow run . -e hybrid", r"\nretrained .*\nhybrid_4 "),
        Step("python src/unlearn.py --method hybrid_4 --methods.hybrid_4.epochs 10", r"\nhybrid_4 "),
        Step("python src/unlearn.py --method hybrid_4 --explain --time", r"word +\d+x.* s of steps on this machine"),
    ],
    "Your data, your model, your list": [
        Step(
            "python src/unlearn.py --method hybrid_4 "
            "--data.source image_folder --data.root ~/photos --data.image_size 32 "
            "--model.architecture resnet18 --pretrain.checkpoint ~/photos/model.pth "
            "--data.forget.ids ~/photos/delete.csv --run.workspace photos",
            r"original: .*photos/model.pth, SHA-256 \w+, provenance unknown.*\nhybrid_4 ",
            first=photos,
        ),
    ],
    "How to read the result": [Step("mlflow run . -e evaluate -P method=all", r"\nretrained .*\nmodel_1 ", first=ran)],
    "Beside many retrained models": [
        Step("python src/bank.py --retrain.seeds 8 --pretrain.seeds 8", r"bank/\w+: 2 original, 2 retrained", {"seeds 8": "seeds 2"}),
        Step("python src/unlearn.py --method hybrid_4 --run.seeds 8", r"\nhybrid_4 .*mean over 2 seeds", {"seeds 8": "seeds 2"}),
    ],
    "The search, the report, the card, the notebook": [
        Step("mlflow run . -e search -P search.method=hybrid_4 -P search.trials=40", r"2 of 2 done", {"trials=40": "trials=2"}),
        Step("python src/search.py adopt 17 gentle", r"methods.gentle is trial 1 of", {"17": "1"}),
        Step("mlflow run . -e unlearn -P method=gentle", r"\nretrained .*\ngentle "),
        Step("python src/report.py --run.workspace demo", r"demo/report/report.md\n.*\nHybrid-4 ", first=demo),
        Step("python src/report.py card --method hybrid_4 --run.workspace demo", r"demo/cards/hybrid_4-\w+.html\n"),
        Step("python src/report.py card --list train/11 --run.workspace demo", r"hybrid_4"),
    ],
    "The pipeline": [
        Step("dvc repro", r"unlearn@hybrid_3'.*unlearn@hybrid_4'.*'report'"),
        Step("dvc metrics diff", r"scores/hybrid_4.json +accuracy.forget", first=committed_and_edited),
        Step("dvc params diff", r"params.yaml +methods.hybrid_4.peak +-1.2 +-0.9"),
        Step("dvc plots show", r"dvc_plots/index.html"),
        Step("git checkout HEAD~1 && dvc checkout", r"M\s+models/hybrid_4.safetensors", first=committed_again),
        Step("git checkout - && dvc checkout", r"M\s+models/hybrid_4.safetensors"),
        Step("dvc exp run -S methods.hybrid_4.peak=-0.7", r"unlearn@hybrid_4'.*Ran experiment"),
        Step("dvc exp run --queue -S methods.hybrid_4.peak=-0.5,-0.3", r"Queued experiment", {",-0.3": ""}),
        Step("dvc exp run --run-all", r""),
        Step("dvc remote add --default folder ~/lethe-store", r"Setting 'folder' as a default remote"),
        Step("dvc remote add --default bucket s3://my-bucket/lethe", r"Setting 'bucket' as a default remote"),
        Step("dvc push", r"files? pushed", {"push": "push --remote folder"}),  # the bucket is on the network
    ],
}
TARGETS = {
    "make demo": "tests/integration/cli/test_cli.py, test_the_demo",
    "make test": "this",
    "make ui": "tests/integration/browser/test_browser.py",
    "make bench": "tests/unit/test_bench.py",
}


def commands() -> dict[str, list[str]]:
    """Heading -> what is typed below it, a line each."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        lines = "".join(blocks).replace("\\\n", "").splitlines()
        assert all(line.startswith("$ ") for line in lines)
        if typed := [" ".join(line[2:].split()) for line in lines]:
            found[section.partition("\n")[0]] = typed
    return found


def typed(copy: Checkout, home: Path, command: str) -> str:
    environment = copy.environment(HOME=str(home), DVC_ROOT=str(copy.root), CURVES="none", MLFLOW_DISABLE_TELEMETRY="true")
    del environment["MLFLOW_RUN_ID"]
    done = subprocess.run(["bash", "-c", command], cwd=copy.root, env=environment, stdout=-1, stderr=-2, text=True, timeout=400)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout


def test_every_command_is_played() -> None:
    shown = commands()
    targets = [command for typed in shown.values() for command in typed if command.startswith("make ")]
    assert sorted(targets) == sorted(TARGETS)
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE) for command in TARGETS)
    left = {name: [command for command in typed if command not in targets] for name, typed in shown.items()}
    assert {name: typed for name, typed in left.items() if typed} == {name: [s.command for s in steps] for name, steps in STEPS.items()}
    for step in (step for steps in STEPS.values() for step in steps):
        assert all(word in step.command for word in step.instead)


@pytest.mark.slow
@pytest.mark.parametrize("section", STEPS)
def test_a_section_can_be_typed(section: str, request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> None:
    copy: Checkout = request.getfixturevalue("small")
    home = tmp_path / "home"
    home.mkdir()
    if section not in ("The pipeline", "Your data, your model, your list"):
        prepared(copy, built)
        copy.put(search__spaces__hybrid_4={"peak": {"low": -1.0, "high": -0.01}})
    for step in STEPS[section]:
        step.first(copy, home)
        command = step.command
        for word, other in step.instead.items():
            command = command.replace(word, other)
        said = typed(copy, home, command)
        assert re.search(step.says, said, re.DOTALL), f"$ {command}\n{said}"
