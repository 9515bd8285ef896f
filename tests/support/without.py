"""Run Python where libraries are missing that the stages need and the engine does not."""

import os
import subprocess
import sys
from pathlib import Path

MISSING = ("mlflow", "optuna", "dvc", "pydantic", "pydantic_core", "rich", "ruamel", "pandas", "matplotlib", "sqlalchemy", "cryptography")
_BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_without(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in which every import of MISSING fails, in the processes that it starts too."""
    (folder / "sitecustomize.py").write_text(_BLOCK.format(names=MISSING))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2] / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=folder, check=False)
