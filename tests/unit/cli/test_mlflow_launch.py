"""What lets `mlflow run .` work as typed, without starting it."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from lethe.cli import mlflow_launch as launch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="MLflow can't start a shell script in conda's place there")

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SCRIPT = """
import json, os, pathlib, sys
import lethe
seen = dict(python=sys.executable, arguments=sys.argv[1:], package=lethe.__file__, environ=dict(os.environ))
pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(seen))
"""


def write(file, text, mode=0o644):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture
def clean():
    """An environment in which nothing is activated and no conda is installed."""
    own = re.compile("(MLFLOW|CONDA|_CE|GIT|PYTEST)_|VIRTUAL_ENV|PYTHONPATH|BASH_ENV")
    environ = {key: value for key, value in os.environ.items() if not own.match(key)}
    folders = [f for f in environ["PATH"].split(os.pathsep) if f != str(BIN) and not Path(f, "conda").exists()]
    return environ | {"PATH": os.pathsep.join(folders)}


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write(folder / "MLproject", "name: lethe\nconda_env: conda.yaml\nentry_points: {toy: {command: python src/toy.py}}\n")
    write(folder / "conda.yaml", "name: lethe\ndependencies: [python=3.12]\n")
    write(folder / "src" / "toy.py", SCRIPT)
    write(folder / "src" / "lethe" / "__init__.py", "")
    return folder


@pytest.fixture
def conda(tmp_path):
    """A real conda as far as MLflow can tell: it notes what it is asked and activates an environment of its own."""
    home = tmp_path / "miniconda"
    own = f'#!/bin/sh\nCONDA_DEFAULT_ENV=the-real-one exec "{sys.executable}" "$@"\n'
    write(home / "envs" / "bin" / "python", own, 0o755)
    write(home / "etc" / "profile.d" / "conda.sh", f'conda() {{ PATH="{home}/envs/bin:$PATH"; }}\n')
    answers = f"""#!/bin/sh
echo "$*" >>"{home}/asked"
case "$*" in 'env list --json') echo '{{"envs": []}}' ;; 'info --base') echo "{home}" ;; esac
"""
    write(home / "bin" / "conda", answers, 0o755)
    return home


def prepared(environ):
    launch.prepare(environ)
    return environ


@pytest.mark.parametrize(
    ("words", "project"),
    [
        ("/x/bin/mlflow run . -e hybrid -P a=b", "."),
        ("mlflow run -e hybrid -P a=b --experiment-name x ../lethe", "../lethe"),
        ("mlflow --env-file .env run --build-image https://h/lethe.git#sub", "https://h/lethe.git#sub"),
        ("/x/mlflow/__main__.py run .", "."),
        ("mlflow run", None),
        ("mlflow ui", None),
        ("mlflow models serve run .", None),
        ("/x/mlflow/train.py run .", None),
        ("train.py run .", None),
        ("-m run .", None),
        ("", None),
    ],
)
def test_only_the_command_line_of_mlflow_run_names_a_project(words, project):
    assert launch.launched_project(words.split()) == project


def test_whether_a_project_is_lethe_is_read_in_its_mlproject(project, tmp_path):
    assert launch.is_lethe(str(ROOT)) and launch.is_lethe(ROOT.as_uri()) and launch.is_lethe(str(project))
    assert launch.is_lethe(f"{tmp_path}#project")
    assert not launch.is_lethe(str(tmp_path))
    for text in ("name: lethe-else\n", "name: other\n", "conda_env: conda.yaml\n", "entry:\n  name: lethe\n", "\xff"):
        (project / "MLproject").write_text(text, encoding="latin-1")
        assert not launch.is_lethe(str(project)), text


def test_being_prepared_twice_changes_nothing_more(clean):
    path = clean["PATH"]
    once = prepared(clean)
    assert once["MLFLOW_CONDA_HOME"] == str(launch.STAND_IN)
    assert once["PATH"] == f"{BIN}:{path}"
    assert prepared(dict(once)) == once


def test_what_the_user_set_is_kept(clean):
    assert prepared(clean | {"MLFLOW_CONDA_HOME": "/else"})["MLFLOW_CONDA_HOME"] == "/else"


def test_the_entries_are_those_promised():
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    names = [
        "main",
        "hybrid",
        "unlearn",
        "prepare",
        "pretrain",
        "retrain",
        "bank",
        "evaluate",
        "demo",
        "search",
        "report",
        "card",
        "erase",
        "ledger",
        "verify",
    ]
    methods = [f"model_{i}" for i in range(1, 7)] + [f"hybrid_{i}" for i in range(1, 5)]
    assert sorted(project["entry_points"]) == sorted(names + methods)
    commands = {name: entry["command"] for name, entry in project["entry_points"].items()}
    assert all(commands[name] == f"python src/unlearn.py --method {name}" for name in methods)
    assert commands["main"] == commands["hybrid"] == commands["hybrid_4"]
    stages = {"unlearn", "prepare", "pretrain", "retrain", "bank", "evaluate", "demo", "search", "report"}
    assert all(commands[name] == f"python src/{name}.py" for name in stages)
    assert commands["card"] == "python src/report.py card"


def test_conda_yaml_takes_nothing_beside_the_lock():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert conda["name"] == "lethe" and conda["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python{wanted}" in conda["dependencies"]
