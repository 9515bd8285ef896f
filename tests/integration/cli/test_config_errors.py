"""What is wrong on the command line, as a stage prints it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.project import NET, ROOT

PARAMS = ROOT / "params.yaml"


def line(path: Path, mark: str) -> int:
    """The number of the only line that holds `mark`."""
    (number,) = [number for number, said in enumerate(path.read_text().splitlines(), 1) if mark in said]
    return number


# --- as a command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--method", "x"], "error: method x is unknown (command line); nearest: "),
        (
            ["--run.workspace", "w", "--methods.hybrid_4.lr", "0"],
            "error: methods.hybrid_4.lr is 0 (command line); it takes a number > 0",
        ),
        (["--explain", "--run.sede", "1"], "error: run.sede is unknown (command line); nearest: run.seed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv: list[str], says: str, tmp_path: Path) -> None:
    """Before anything else: nothing is written, and torch is not asked for."""
    project, without = tmp_path / "project", tmp_path / "without"
    project.mkdir()
    without.mkdir()
    (project / "params.yaml").write_bytes(PARAMS.read_bytes())
    for slow in ("torch", "mlflow", "torchvision"):
        (without / f"{slow}.py").write_text(f"raise SystemExit('{slow} was imported')")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment = clean | {"DVC_ROOT": str(project), "PYTHONPATH": str(without), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / "src" / "unlearn.py"), *argv]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=NET)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(says)
    assert [path.name for path in project.rglob("*")] == ["params.yaml"]
