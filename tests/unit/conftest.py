"""The unit layer starts no process and imports no MLflow."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch  # its first import may start a process; a test that imports it later must not be the one that falls

FORBIDDEN = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_in_a_unit_test = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _in_a_unit_test and (event in FORBIDDEN or (event == "import" and arguments[0] == "mlflow")):
        raise AssertionError(f"a unit test may not do this, tests/integration is the place: {event} {arguments[0]}")


sys.addaudithook(_refuse)  # it can't be removed, so it is switched


@pytest.fixture(autouse=True, scope="module")
def no_process_and_no_mlflow() -> Iterator[None]:
    global _in_a_unit_test
    _in_a_unit_test = True
    yield
    _in_a_unit_test = False


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for all tests of a module that asks for it: on busy cores two wait for each other, and may sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
