"""`mlflow run .` in every way a person may type it, with and without conda, on a throw-away project."""

import importlib.metadata
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lethe.cli import mlflow_launch as launch
from support.dvc_checkout import Checkout
from support.project import NET, Project, Warm

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
    return environ | {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write(folder / "MLproject", "name: lethe\nconda_env: conda.yaml\nentry_points: {toy: {command: python src/toy.py}}\n")
    write(folder / "conda.yaml", "name: lethe\ndependencies: [python=3.12]\n")
    write(folder / "src" / "toy.py", SCRIPT)
    write(folder / "src" / "lethe" / "__init__.py", "")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory, built):
    """With its tables, which take MLflow seconds."""
    return shutil.copy(built / "mlflow.db", tmp_path_factory.mktemp("store"))


@pytest.fixture
def mlflow_run(tmp_path, clean, project, store, warm: Warm):
    """Types `mlflow run URI -e toy ...`; gives what the program saw, how its row ended and what was printed. MLflow is forked, unless its
    program is given."""

    def type_it(*arguments, mlflow=None, uri=".", cwd=project, **environ):
        ours = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "SEEN": str(tmp_path / "seen.json"),
            "TMPDIR": str(tmp_path / "temporary"),
        }
        (tmp_path / "temporary").mkdir()
        words = ["run", str(uri), "-e", "toy", "-P", "methods.a.lr=0.1", *arguments]
        environment = clean | ours | environ
        if mlflow:
            done = subprocess.run([mlflow, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=NET)
        else:
            done = warm.mlflow(words, cwd, environment).wait()
        assert done.returncode == 0, done.stderr
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert seen["arguments"] == ["--methods.a.lr", "0.1"]
        with sqlite3.connect(store) as db:
            run_id = seen["environ"]["MLFLOW_RUN_ID"]
            assert db.execute("select status from runs where run_uuid = ?", [run_id]).fetchall() == [("FINISHED",)]
        return SimpleNamespace(**seen, printed=done.stderr)

    return type_it


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


def uses_this_environment(seen):
    return Path(seen.python).parent == BIN and f"No conda found: the run uses {BIN}/python" in seen.printed


def test_in_an_activated_environment(mlflow_run, clean):
    seen = mlflow_run(mlflow="mlflow", PATH=f"{BIN}:{clean['PATH']}", VIRTUAL_ENV=str(BIN.parent))
    assert uses_this_environment(seen)
    assert seen.environ["PATH"].split(":").count(str(BIN)) == 1


@pytest.mark.slow
def test_not_activated_and_from_another_folder(mlflow_run, project, tmp_path):
    assert uses_this_environment(mlflow_run(uri="project", cwd=tmp_path))


@pytest.mark.slow
def test_not_activated_beside_a_shim_that_only_errors(mlflow_run, tmp_path, clean):
    text = "#!/bin/sh\necho 'pyenv: conda: command not found' >&2\nexit 127\n"
    shim = write(tmp_path / "shims" / "conda", text, 0o755)
    assert uses_this_environment(mlflow_run(PATH=f"{shim.parent}:{clean['PATH']}"))


@pytest.mark.slow
def test_from_a_git_url_runs_the_clones_code(mlflow_run, project, tmp_path):
    """Git finds project.git under file://.../repository, MLflow does not: it clones, as from any other address."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Toy"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    project.rename(tmp_path / "repository.git")
    seen = mlflow_run(uri=(tmp_path / "repository").as_uri(), cwd=tmp_path)
    assert uses_this_environment(seen)
    clone = Path(seen.environ["PWD"])
    assert clone.parent == tmp_path / "temporary"
    assert Path(seen.package) == clone / "src" / "lethe" / "__init__.py"


@pytest.mark.slow
def test_with_the_local_manager(mlflow_run):
    seen = mlflow_run("--env-manager", "local")
    assert Path(seen.python).parent == BIN and "conda" not in seen.printed


def by_variable(conda, clean, tmp_path):
    return {"CONDA_EXE": str(conda / "bin" / "conda")}


def by_mlflows_variable(conda, clean, tmp_path):
    return {"MLFLOW_CONDA_HOME": str(conda)}


def by_link_on_path(conda, clean, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "conda").symlink_to(conda / "bin" / "conda")
    return {"PATH": f"{clean['PATH']}:{folder}"}


@pytest.mark.slow
@pytest.mark.parametrize("found", [by_variable, by_mlflows_variable, by_link_on_path])
def test_steps_aside_for_a_real_conda(mlflow_run, clean, conda, tmp_path, found):
    seen = mlflow_run(**found(conda, clean, tmp_path))
    assert seen.environ["CONDA_DEFAULT_ENV"] == "the-real-one"
    assert "env create -n mlflow-" in (conda / "asked").read_text()
    assert "No conda found" not in seen.printed


# --- what changes nothing -------------------------------------------------------------------------------------------


def changed_by_importing_mlflow(tmp_path, clean, warm, *words, name="mlflow"):
    """The environment variables that `import mlflow` changes in a process with the given command line that has not imported it."""
    script = write(
        tmp_path / name,
        "import json, os; before = dict(os.environ); import mlflow; after = dict(os.environ)\n"
        "print(json.dumps({key: after.get(key) for key in {*before, *after} if before.get(key) != after.get(key)}))\n",
    )
    done = warm.fresh([str(script), *words], tmp_path, clean).wait()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_mlflow_elsewhere_changes_no_environment_variable(clean, project, tmp_path, warm: Warm):
    other = write(tmp_path / "other" / "MLproject", "name: other\nconda_env: conda.yaml\n").parent
    for words, name in (([], "train.py"), (["run", str(project)], "train.py"), (["ui"], "mlflow"), (["run", str(other)], "mlflow")):
        assert changed_by_importing_mlflow(tmp_path, clean, warm, *words, name=name) == {}, words
    changed = changed_by_importing_mlflow(tmp_path, clean, warm, "run", str(project))
    assert changed == {"MLFLOW_CONDA_HOME": str(launch.STAND_IN), "PATH": f"{BIN}:{clean['PATH']}"}


@pytest.mark.slow
def test_mlflow_as_a_module(project, tmp_path, clean, built):
    shutil.copy(built / "mlflow.db", tmp_path)
    seen = tmp_path / "seen.json"
    environ = clean | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true", "SEEN": str(seen)}
    command = [sys.executable, "-m", "mlflow", "run", ".", "-e", "toy"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=NET)
    assert done.returncode == 0, done.stderr
    assert uses_this_environment(SimpleNamespace(**json.loads(seen.read_text()), printed=done.stderr))


def test_an_address_behind_which_there_is_no_repository_is_not_lethe(tmp_path):
    for address in (str(tmp_path / "nowhere"), (tmp_path / "nowhere").as_uri()):
        assert not launch.is_lethe(address)


def test_a_program_that_a_launcher_started_is_left_alone(clean, project, tmp_path, warm: Warm):
    assert changed_by_importing_mlflow(tmp_path, clean | {"MLFLOW_RUN_ID": "1"}, warm, "run", str(project)) == {}


def test_a_blank_in_the_path_and_a_lost_mode_are_survived(monkeypatch, tmp_path):
    shutil.copytree(launch.STAND_IN, tmp_path / "my files" / "conda_home")
    shutil.copytree(launch.STAND_IN, tmp_path / "conda_home")
    (tmp_path / "conda_home" / "bin" / "conda").chmod(0o644)
    for folder in (tmp_path / "my files", tmp_path):
        monkeypatch.setattr(launch, "STAND_IN", folder / "conda_home")
        home = launch.stand_in()
        assert home != launch.STAND_IN
        assert subprocess.check_output([home / "bin" / "conda", "env", "list", "--json"]) == b'{"envs": []}\n'
        subprocess.check_call(["bash", "-c", f"source {home}/bin/../etc/profile.d/conda.sh && conda activate a"])
        shutil.rmtree(home)


def ask(*arguments):
    return subprocess.run([launch.STAND_IN / "bin" / "conda", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_stand_in_says_what_it_is(arguments):
    said = ask(*arguments)
    assert said.returncode == 0 and "This is not conda" in said.stdout


@pytest.mark.parametrize("arguments", [["install", "numpy"], ["info", "--base"], ["env", "list"], ["activate", "a"]])
def test_the_stand_in_refuses_what_only_conda_can_do(arguments):
    said = ask(*arguments)
    assert said.returncode == 2 and not said.stdout and " ".join(arguments) in said.stderr


@pytest.mark.parametrize(("name", "code"), [("lethe", 0), ("lethe-else", 2), ("other", 2)])
def test_the_stand_in_serves_no_other_project(tmp_path, name, code):
    said = ask("env", "create", "-n", "mlflow-1", "--file", write(tmp_path / "conda.yaml", f"name: {name}\n"))
    assert said.returncode == code and "No conda found" in said.stderr


def test_the_plugin_is_registered_and_imports_no_mlflow():
    (entry,) = importlib.metadata.entry_points(group="mlflow.run_context_provider", name="lethe")
    assert entry.load() is launch.Plugin
    plugin = launch.Plugin.__new__(launch.Plugin)
    assert plugin.in_context() is False and plugin.tags() == {}
    code = "import sys, lethe.cli.mlflow_launch; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_python_without_the_packages_names_the_one_that_has_them(clean):
    done = subprocess.run([sys.executable, "-S", str(ROOT / "src" / "unlearn.py")], capture_output=True, text=True, env=clean)
    assert done.returncode == 2
    assert done.stderr == f"error: {sys.executable} has no filelock; `make env` builds .venv, which has: .venv/bin/python\n"


def prepared(environ):
    launch.prepare(environ)
    return environ


def test_a_conda_that_is_gone_or_has_no_profile_is_not_used(clean, conda, tmp_path):
    (conda / "etc" / "profile.d" / "conda.sh").unlink()
    environ = clean | {"CONDA_EXE": str(tmp_path / "gone"), "PATH": f"{conda / 'bin'}:{clean['PATH']}"}
    assert prepared(environ)["MLFLOW_CONDA_HOME"] == str(launch.STAND_IN)


@pytest.mark.parametrize("shim", ["exit 127", 'exec "{conda}" "$@"'])
def test_a_real_conda_is_found_behind_a_shim(clean, conda, tmp_path, shim):
    text = f"#!/bin/sh\n{shim}\n".format(conda=conda / "bin" / "conda")
    folders = [write(tmp_path / "shims" / "conda", text, 0o755).parent]
    folders += [conda / "bin"] if "127" in shim else []
    environ = clean | {"PATH": ":".join(map(str, [*folders, clean["PATH"]]))}
    assert prepared(environ)["MLFLOW_CONDA_HOME"] == str(conda)


def test_a_password_is_not_handed_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would write it on the run before the program starts."""
    argv = ["/x/bin/mlflow", "run", str(ROOT), "-e", "search", "-P"]
    for key in ("MLFLOW_CONDA_HOME", "PATH", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(key, os.environ.get(key, ""))  # put back in the end
    secret = "search.storage=postgresql://me:secret@host:5432/db"
    monkeypatch.setattr(sys, "argv", [*argv, secret])
    with pytest.raises(SystemExit, match="PGPASSWORD"):
        launch.Plugin()
    for allowed in (
        [*argv, "search.storage=postgresql://me@host:5432/db"],
        [*argv, "search.storage=sqlite:///x:y.db"],
        ["src/search.py", f"--{secret}"],
        ["mlflow", "run", "another/project", "-P", secret],
    ):
        monkeypatch.setattr(sys, "argv", allowed)
        launch.Plugin()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("-P method=hybrd_4", "method hybrd_4 is unknown (command line); nearest: hybrid_4; "),
        ("-P method=hybrid_4 -P run.sede=1", "run.sede is unknown (command line); nearest: run.seed"),
    ],
)
def test_what_is_mistyped_leaves_a_run_that_says_so(words: str, reason: str, small: Checkout, warm: Warm) -> None:
    environment = small.environment(DVC_ROOT=str(small.root), MLFLOW_DISABLE_TELEMETRY="true")
    del environment["MLFLOW_RUN_ID"]
    command = ["mlflow", "run", ".", "-e", "unlearn", *words.split()]
    done = subprocess.run(command, cwd=small.root, env=environment, capture_output=True, text=True, timeout=NET)
    assert done.returncode != 0 and f"error: {reason}" in done.stderr
    (run,) = Project(small.root, warm).rows()
    assert run["status"] == "FAILED"
    assert run["tags"]["error"].startswith(reason) and run["tags"]["mlflow.note.content"] == run["tags"]["error"]
