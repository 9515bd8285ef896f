"""Run Python where libraries are missing that the stages need and the engine does not."""

import os
import subprocess
import sys
from pathlib import Path

MISSING = ("mlflow", "optuna", "dvc", "pydantic", "pydantic_core", "rich", "ruamel", "pandas", "matplotlib", "sqlalchemy", "cryptography")
_BLOCK = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run_without(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in which every import of MISSING fails, in the processes that it starts too."""
    (folder / "sitecustomize.py").write_text(_BLOCK.format(names=MISSING))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2] / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=folder, check=False)
