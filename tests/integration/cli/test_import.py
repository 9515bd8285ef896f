"""What importing the package costs."""

import subprocess
import sys


def test_importing_lethe_imports_nothing_slow() -> None:
    code = (
        "import sys, lethe; print([n for n in ('torch', 'numpy', 'pydantic', 'mlflow', 'optuna') if n in sys.modules], lethe.__version__)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("[] ")
