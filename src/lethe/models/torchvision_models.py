"""torchvision.models, imported without torch's compiler."""

import importlib
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"


def torchvision_models() -> Any:
    """Import torchvision.models.

    One of torchvision's operators for object detection takes a function from torch's compiler when it is imported; the compiler takes
    longer to import than the rest of torchvision, and no classifier calls that operator. Unless the compiler is loaded already, the
    operator gets a function that loads it when it is called. A torchvision that takes more than that function is imported as it is.

    Returns:
        The module.
    """
    if "torchvision" in sys.modules or COMPILER in sys.modules:
        return importlib.import_module("torchvision.models")
    package, utils = ModuleType(COMPILER), ModuleType(UTILS)
    vars(package)["__path__"] = []
    vars(utils)["is_compile_supported"] = _is_compile_supported
    sys.modules |= {COMPILER: package, UTILS: utils}
    with suppress(Exception):  # another version's needs
        try:
            importlib.import_module("torchvision.models")
        finally:
            for name, module in ((COMPILER, package), (UTILS, utils)):
                if sys.modules.get(name) is module:
                    del sys.modules[name]
    return importlib.import_module("torchvision.models")  # what a failed import has executed to its end is not executed again


def _is_compile_supported(device_type: Any) -> Any:
    return importlib.import_module(UTILS).is_compile_supported(device_type)
