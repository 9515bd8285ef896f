"""Make `mlflow run . -e hybrid` work exactly as typed: no flag, no conda, no activated environment.

With `conda_env: conda.yaml` MLflow calls conda, and no variable chooses another way. But whenever MLflow is imported it imports this
plugin, before it looks for conda, and then it obeys two variables of its own process: MLFLOW_CONDA_HOME, which is set to
a real conda if one exists, else to a substitute (conda_home/), and PATH, whose first `python` runs the program.

MLflow imports the plugin in every process of every project in the environment. So it changes nothing unless the command line is
`mlflow run` and the project is Lethe. It must not import mlflow, which is only half imported at that moment, nor anything slow.
"""

import atexit
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from lethe._util.checkout import addresses

STAND_IN = Path(__file__).with_name("conda_home")
NAME = re.compile(r"""^name:[ ]*["']?lethe["']?[ ]*(#.*)?$""", re.MULTILINE)  # in MLproject
# Options of `mlflow run` whose value is the next word
VALUED = {
    *("-e", "-v", "-P", "-A", "-b", "-c", "--entry-point", "--version", "--param-list", "--docker-args", "--experiment-name"),
    *("--experiment-id", "--backend", "--backend-config", "--env-manager", "--storage-dir", "--run-id", "--run-name", "--env-file"),
}


class Plugin:
    """A run context provider in name only: it is never in context and adds no tag. MLflow makes one when it is imported."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # a convenience must never be what breaks `import mlflow`
            project = launched_project(sys.argv)
            if project is None or os.environ.get("MLFLOW_RUN_ID") or not is_lethe(project):
                return
            refuse_passwords(sys.argv)
            prepare(os.environ)

    def in_context(self) -> bool:
        """Return False: MLflow is to take no tags from here."""
        return False

    def tags(self) -> dict[str, str]:
        """Return no tags; MLflow requires the method."""
        return {}


def launched_project(argv: Sequence[str]) -> str | None:
    """Return the project that an `mlflow run` command line names, a folder or an address; None for any other command line.

    Args:
        argv: As in `sys.argv`. Under `python -m mlflow` its first word is `-m` while MLflow is imported.
    """
    program, *words = argv or [""]
    called = Path(program).name.removesuffix(".exe") == "mlflow" or Path(program).parts[-2:] == ("mlflow", "__main__.py")
    if program == "-m":
        called = sys.orig_argv[: len(sys.orig_argv) - len(words)][-2:] == ["-m", "mlflow"]
    operands = list(_operands(words)) if called else []
    return operands[1] if operands[:1] == ["run"] and len(operands) > 1 else None


def _operands(words: Sequence[str]) -> Iterator[str]:
    following = iter(words)
    for word in following:
        if word in VALUED:
            next(following, None)
        elif word == "-" or not word.startswith("-"):
            yield word


def is_lethe(project: str) -> bool:
    """Return whether the MLproject of a folder or of a Git address is named lethe; False where it can't be read."""
    address, _, folder = project.strip("'\"").partition("#")
    path = Path(unquote(urlparse(address).path)) if address.startswith("file:") else Path(address)
    if path.exists():
        try:
            text = (path / folder / "MLproject").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
    elif address in addresses():
        return True
    else:
        text = _git_file(address, f"{folder}/MLproject".lstrip("/"))
    return bool(NAME.search(text))


def _git_file(address: str, path: str) -> str:
    """Return a file of the newest commit at a Git address; "" if it has none. Takes no longer than `git clone --depth 1`."""
    quiet = {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes"} | os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # MLflow will ask for a password
    with contextlib.suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryDirectory(prefix="lethe-git-") as folder:
        clone = ["git", "clone", "-q", "--depth=1", "--filter=blob:none", "--no-checkout", "--", address, folder]
        subprocess.run(clone, env=quiet, capture_output=True, check=True, timeout=60)
        show = ["git", "-C", folder, "show", f"HEAD:{path}"]
        return subprocess.run(show, env=quiet, capture_output=True, check=True, timeout=60, text=True).stdout
    return ""


def prepare(environ: MutableMapping[str, str]) -> None:
    """Set what `mlflow run` of Lethe needs in its environment.

    Args:
        environ: Changed in place: PATH begins with this interpreter's folder, and MLFLOW_CONDA_HOME is set unless it was.
    """
    _put_own_python_first(environ)
    if os.name == "posix" and not environ.get("MLFLOW_CONDA_HOME"):  # on Windows: --env-manager local
        environ["MLFLOW_CONDA_HOME"] = str(real_conda(environ) or stand_in())


def refuse_passwords(argv: Sequence[str]) -> None:
    """Exit if a `-P` value has a database password: MLflow writes these values on its run before the program starts."""
    password = re.compile(r"search\.storage=\S+(://[^@/\s]*:\S*@|[?&]password=)")
    if any(map(password.search, argv)):
        sys.exit("error: search.storage has a password, which mlflow run would log as a parameter: leave it to PGPASSWORD or ~/.pgpass")


def _put_own_python_first(environ: MutableMapping[str, str]) -> None:
    """Make `.venv/bin/mlflow run .` run the program in .venv without activating it."""
    path = environ.get("PATH", os.defpath)
    own = str(Path(sys.executable).parent)
    first = shutil.which("python", path=path)
    if shutil.which("python", path=own) and (first is None or str(Path(first).parent) != own):
        environ["PATH"] = own + os.pathsep + path


def real_conda(environ: MutableMapping[str, str]) -> Path | None:
    """Return the home of a conda that MLflow can use, or None.

    CONDA_EXE and PATH may hold links and wrappers, which MLflow would not follow to the profile script next to the real one, and shims
    such as pyenv's, which may do nothing but report an error."""
    for conda in _condas(environ):
        home = Path(os.path.realpath(conda)).parent.parent
        if _is_home(home):
            return home
        if (base := _base(conda, environ)) and _is_home(base):
            return base
    return None


def _condas(environ: MutableMapping[str, str]) -> Iterator[Path]:
    folders = [Path(folder) / "conda" for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    named = environ.get("CONDA_EXE")
    yield from filter(_runs, ([Path(named)] if named else []) + folders)


def _is_home(folder: Path) -> bool:
    return _runs(folder / "bin" / "conda") and (folder / "etc" / "profile.d" / "conda.sh").is_file()


def _runs(file: Path) -> bool:
    return file.is_file() and os.access(file, os.X_OK)


def _base(conda: Path, environ: MutableMapping[str, str]) -> Path | None:
    """Return the folder that a shim names as its conda's. Only for a path that does not show it: the command takes a second."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            [conda, "info", "--base"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return Path(answer.stdout.strip())
    return None


def stand_in() -> Path:
    """Return the shipped folder, or a copy where a blank in its path (MLflow quotes nothing) or a lost mode would break it."""
    if shlex.quote(str(STAND_IN)) == str(STAND_IN) and _runs(STAND_IN / "bin" / "conda"):
        return STAND_IN
    copy = Path(tempfile.mkdtemp(prefix="lethe-conda-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(STAND_IN, copy, dirs_exist_ok=True)
    (copy / "bin" / "conda").chmod(0o755)
    return copy
