"""What importing the package costs."""

import subprocess
import sys
from pathlib import Path

from support.without import run_without


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


def test_the_public_functions_need_no_library_of_the_stages(tmp_path: Path) -> None:
    code = """
import torch, lethe
from lethe.models.architectures import build
images, labels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8), torch.arange(40) % 3
retain, forget = ((images[a:b], labels[a:b]) for a, b in ((0, 30), (30, 40)))
for name in lethe.__all__:
    getattr(lethe, name)
network = build("convnet", 3, 0)
recipe = (lethe.Phase("repair", 1, (lethe.Term("retain"),), 16, lethe.Constant(0.01), optimizer=lethe.SGD(0.9, 0.0)),)
model = lethe.unlearn(network, retain=retain, forget=forget, method=recipe)
print(type(model).__name__)
try:
    lethe.unlearn(network, retain=retain, forget=forget, method="hybrid_4")
except lethe.UserError as error:
    print(error)
"""
    run = run_without(tmp_path, "-c", code)
    assert run.returncode == 0, run.stderr
    kind, refusal = run.stdout.splitlines()
    assert kind == "ConvNet"
    assert refusal == "method is 'hybrid_4', whose defaults take pydantic to read, which is not installed; a recipe works"
