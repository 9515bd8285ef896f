"""What lets `mlflow run . -e hybrid` work exactly as typed: no flag, no conda, no activated environment.

MLflow's own way with `conda_env: conda.yaml` is to call conda, and no variable chooses another. But whenever MLflow is
imported it imports this plugin, before it looks for conda, and then it obeys two variables of its own process:
MLFLOW_CONDA_HOME, which we point at a real conda where there is one and at a stand-in (conda_home/) where not, and
PATH, whose first `python` runs the program. We must not import mlflow, which is only half imported at that moment.
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

STAND_IN = Path(__file__).with_name("conda_home")


class Plugin:
    """A run context provider in name only: it is never in context and adds no tag; being made is all it is for."""

    def __init__(self) -> None:
        _keep_passwords(sys.argv)
        with contextlib.suppress(OSError):  # a convenience must never be what breaks `import mlflow`
            prepare(os.environ)

    def in_context(self) -> bool:
        return False

    def tags(self) -> dict[str, str]:
        return {}


def prepare(environ: MutableMapping[str, str]) -> None:
    """Ready this process to launch a project; a program that a launcher started (it has a run id) is left alone."""
    if environ.get("MLFLOW_RUN_ID"):
        return
    _put_own_python_first(environ)
    if os.name == "posix" and not environ.get("MLFLOW_CONDA_HOME"):  # on Windows: --env-manager local
        environ["MLFLOW_CONDA_HOME"] = str(real_conda(environ) or stand_in())


def _keep_passwords(argv: Sequence[str]) -> None:
    """MLflow writes what is given with -P on the run's row before the program starts."""
    program = Path(argv[0]) if argv else Path()
    password = re.compile(r"search\.storage=\S+(://[^@/\s]*:\S*@|[?&]password=)")
    if "mlflow" in (program.name, program.parent.name) and any(map(password.search, argv)):
        sys.exit("error: search.storage has a password, which mlflow run would write on its row: leave it to PGPASSWORD or ~/.pgpass")


def _put_own_python_first(environ: MutableMapping[str, str]) -> None:
    """So that `.venv/bin/mlflow run .` runs the program in .venv without activating it."""
    path = environ.get("PATH", os.defpath)
    own = str(Path(sys.executable).parent)
    first = shutil.which("python", path=path)
    if shutil.which("python", path=own) and (first is None or str(Path(first).parent) != own):
        environ["PATH"] = own + os.pathsep + path


def real_conda(environ: MutableMapping[str, str]) -> Path | None:
    """The home of a conda that MLflow can use. CONDA_EXE and PATH may hold links and wrappers, which MLflow would not
    follow to the profile script beside the real one, and shims such as pyenv's, which may only say that they can't."""
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
    """Where a shim says its conda is. Asked only about what isn't one by its place, for an answer takes a second."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            [conda, "info", "--base"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return Path(said.stdout.strip())
    return None


def stand_in() -> Path:
    """The shipped folder; a copy of it where a blank in its path (MLflow quotes nothing) or a lost mode would break."""
    if shlex.quote(str(STAND_IN)) == str(STAND_IN) and _runs(STAND_IN / "bin" / "conda"):
        return STAND_IN
    copy = Path(tempfile.mkdtemp(prefix="lethe-conda-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(STAND_IN, copy, dirs_exist_ok=True)
    (copy / "bin" / "conda").chmod(0o755)
    return copy
