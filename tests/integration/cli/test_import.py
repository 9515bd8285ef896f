"""What importing the package costs."""

import subprocess
import sys


def test_importing_lethe_imports_nothing_slow() -> None:
    code = (
        "import sys, lethe; print([n for n in ('torch', 'numpy', 'pydantic', 'mlflow', 'optuna') if n in sys.modules], lethe.__version__)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("[] ")


def test_a_network_of_torchvisions_does_not_import_torchs_compiler_which_is_there_when_it_is_called() -> None:
    code = """
import sys
from lethe.models.architectures import build
build("resnet18", 10, 0)
print([name for name in ("torch._dynamo", "sympy", "mlflow") if name in sys.modules])
from torchvision.ops import roi_align
print(roi_align.__module__ == "torchvision.ops.roi_align", sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu"))
print("torch._dynamo.eval_frame" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["[]", "True True", "True"]
