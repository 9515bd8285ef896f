"""torchvision.models is imported without torch's compiler, and with it where a version of torchvision needs it."""

import sys
from pathlib import Path

import pytest

from lethe.models import torchvision_models


@pytest.mark.parametrize(("needs", "loaded"), [("is_compile_supported", False), ("counters", True)])
def test_a_torchvision_that_needs_more_of_the_compiler_gets_it(
    needs: str, loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both libraries stand-ins with what matters here: another pair of versions can't be installed beside this one."""
    files = {
        "torchvision/__init__.py": "from torchvision import first, models",
        "torchvision/first.py": "with open(__file__ + '.log', 'a') as log:\n    log.write('executed ')",
        "torchvision/models.py": f"from compiler.utils import {needs}",
        "compiler/__init__.py": "",
        "compiler/utils.py": "is_compile_supported = counters = 7",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(torchvision_models, "COMPILER", "compiler")
    monkeypatch.setattr(torchvision_models, "UTILS", "compiler.utils")
    monkeypatch.syspath_prepend(tmp_path)
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    for name in kept:
        del sys.modules[name]
    try:
        models = torchvision_models.torchvision_models()
        assert (getattr(models, needs) == 7) is loaded is ("compiler" in sys.modules)
        assert (tmp_path / "torchvision/first.py.log").read_text() == "executed "
        assert loaded or models.is_compile_supported is torchvision_models._is_compile_supported
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "compiler")]:
            del sys.modules[name]
        sys.modules.update(kept)
