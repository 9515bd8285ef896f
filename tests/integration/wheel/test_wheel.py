"""The program as a guest: a wheel in the environment of another project, whose folder is no checkout of ours."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from lethe.cli.stages import STAGES
from support.project import NET, ROOT, Warm, clean

SMALL = "--data.limit 12 --pretrain.epochs 1 --pretrain.final_epochs 0 --methods.hybrid_4.epochs 1 --methods.hybrid_4.final_epochs 0 "
SMALL += "--retrain.epochs 1 --methods.model_1.epochs 1 --methods.lethe.retain_epochs 1"


@dataclass(frozen=True)
class Guest:
    """An environment with the wheel and, through a .pth file, the libraries of this one; and the folder of another project."""

    wheel: Path
    bin: Path
    folder: Path

    def run(self, *command: str | Path, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in clean().items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | more
        first, *rest = map(str, command)
        cwd = folder or self.folder
        return subprocess.run([self.bin / first, *rest], cwd=cwd, env=environment, capture_output=True, text=True, timeout=NET)

    def ran(self, *command: str | Path, folder: Path | None = None, **more: str) -> str:
        done = self.run(*command, folder=folder, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout


def build(source: Path, target: Path) -> Path:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        target,
        source,
    ]
    subprocess.run(command, check=True, timeout=NET)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is built from, apart from the checkout: a build leaves a folder there."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "src", folder / "src", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def guest(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    home = tmp_path_factory.mktemp("guest")
    wheel = build(source, home / "wheels")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True, timeout=NET)
    python = home / "venv" / "bin" / "python"
    install: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=NET)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # files *.pth in there, ours is one, are not read
    (home / "project").mkdir()
    return Guest(wheel, python.parent, home / "project")


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_its_defaults(guest: Guest, source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(guest.wheel) as wheel:
        files = {info.filename: info.file_size for info in wheel.infolist()}
        assert wheel.read("lethe/params.yaml") == (ROOT / "params.yaml").read_bytes()
    assert {name.split("/")[0] for name in files} == {"lethe", f"lethe_unlearning-{checkout_version()}.dist-info"}
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "lethe").rglob("*.py")}
    data = {name for name in files if name.startswith("lethe/")} - modules
    assert modules < files.keys()
    assert data == {
        "lethe/params.yaml",
        "lethe/py.typed",
        "lethe/cli/conda_home/bin/conda",
        "lethe/cli/conda_home/etc/profile.d/conda.sh",
        "lethe/reporting/card.html.jinja",
        "lethe/reporting/card.md.jinja",
        "lethe/reporting/parts.html.jinja",
        "lethe/reporting/person.html.jinja",
        "lethe/reporting/report.html.jinja",
    }
    assert sum(files.values()) < 2.2e6  # the modules alone are 2.0e6
    code = f"from setuptools.build_meta import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True, timeout=NET)
    with zipfile.ZipFile(build(tmp_path / done.stdout.split()[-1], tmp_path / "wheels")) as again:
        assert {info.filename: info.file_size for info in again.infolist() if info.filename.startswith("lethe/")} == {
            name: size for name, size in files.items() if name.startswith("lethe/")
        }
        assert again.read("lethe/params.yaml") == (ROOT / "params.yaml").read_bytes()


def checkout_version() -> str:
    import lethe

    return lethe.__version__


@pytest.mark.slow
def test_the_library_and_the_command(guest: Guest, warm: Warm) -> None:
    code = "import lethe, sys; print(lethe.__version__, lethe.__file__, 'torch' in sys.modules)"
    version, file, torch = guest.ran("python", "-c", code).split()
    assert (version, torch) == (checkout_version(), "False")
    assert Path(file).is_relative_to(guest.bin.parent)
    assert guest.ran("lethe", "--version") == f"lethe {version}\n"
    listed = guest.ran("lethe", "--help")
    assert all(f"\n  {verb} " in listed for verb in STAGES)
    registries = guest.ran("lethe", "--list")
    for name in ("hybrid_4", "mia.svc", "image_folder", "resnet18_cifar"):
        assert f"\n  {name} " in registries or f"\n  {name}\n" in registries
    assert guest.ran("lethe", "unlearn", "--help").startswith("usage: lethe unlearn [--key value ...]\n")
    wrong = guest.run("lethe", "unlern", "--method", "model_1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: unlern is not a verb; nearest: unlearn; `lethe --help` lists them\n"
    for words in (["--method", "model_3", "--explain"], ["--run.sede", "1"], ["--method", "model_0"]):
        script = warm.start([str(ROOT / "src" / "unlearn.py"), *words], Path.cwd(), clean() | {"OMP_NUM_THREADS": "1"}).wait()
        done = guest.run("lethe", "unlearn", *words)
        said = script.stderr.replace("python src/unlearn.py", "lethe unlearn")  # a message names the command as it was typed
        printed = script.stdout.replace(f"{Path.cwd()}/models/", f"{guest.folder}/models/")  # --explain says where a model would be
        assert (done.returncode, done.stdout, done.stderr) == (script.returncode, printed, said)
    assert not list(guest.folder.iterdir())


@pytest.mark.slow
def test_the_folder_of_the_project_is_where_everything_is_kept(guest: Guest, tmp_path: Path) -> None:
    before = {path for path in guest.bin.parent.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    table = guest.ran("lethe", "demo", *SMALL.split(), folder=tmp_path)
    lines = [line.split()[0] for line in table.splitlines() if line[:1].isalpha()]
    assert [name for name in lines if name in ("original", "retrained", "hybrid_4")] == ["original", "retrained", "hybrid_4"]
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "mlflow.db", "mlruns"}
    assert (tmp_path / "demo" / "models" / "hybrid_4.safetensors").exists()
    assert {path for path in guest.bin.parent.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"} == before
    missing = guest.run("lethe", "evaluate", "--method", "model_2", "--run.workspace", "demo", "--data.source", "digits", folder=tmp_path)
    assert missing.returncode == 2, missing.stderr
    assert "`lethe " in missing.stderr and "src/" not in missing.stderr


EXPLAIN = """
import os, sys
from lethe.cli.main import lethe
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.argv[1:] = ["unlearn", "--explain"]
    print("exit code", lethe())
"""


@pytest.mark.slow
def test_a_params_file_in_the_current_folder_is_used(guest: Guest, tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "\nmethod: hybrid_4" in text
    (tmp_path / "params.yaml").write_text(text.replace("\nmethod: hybrid_4", "\nmethod: model_2"))
    said = guest.ran("python", "-c", EXPLAIN, tmp_path, guest.folder)
    with_file, without = said.split("exit code 0\n")[:2]
    assert "\nmodel_2: " in with_file and "\nhybrid_4: " not in with_file
    assert "\nhybrid_4: " in without and "\nmodel_2: " not in without


API = """
import lethe, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
split = lambda n: (torch.randn(n, 20), torch.randint(3, (n,)))
changed = lethe.unlearn(model, retain=split(40), forget=split(8), method="model_1", epochs=1, batch_size=8)
print(type(changed).__name__, any(not torch.equal(a, b) for a, b in zip(model.parameters(), changed.parameters())))
"""


@pytest.mark.slow
def test_the_library_takes_its_defaults_and_not_another_projects(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {lr: 1}\n")
    assert guest.ran("python", "-c", API, folder=tmp_path) == "Sequential True\n"
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml"}
    refused = guest.run("lethe", "unlearn", "--explain", folder=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: train is unknown (params.yaml, line 1); nearest: ")


@pytest.mark.slow
def test_importing_mlflow_in_the_project_changes_no_environment_variable(guest: Guest) -> None:
    code = "import json, os; before = dict(os.environ); import mlflow; print(json.dumps([before, dict(os.environ)]))"
    before, after = json.loads(guest.ran("python", "-c", code))
    assert after == before
