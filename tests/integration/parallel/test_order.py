"""A worker of the tests that dies: the others do the rest, and what it had finished is not done again."""

import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest
from support.order import LongestFirst

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False
    return LongestFirst(config, log)
"""
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(5))
def test_it(number):
    if __name__.endswith("b") and number == 2:
        os._exit(1)
"""


def test_a_worker_that_dies_is_one_failure(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text(TESTS)
    support = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "-p", "no:hydra_pytest", "-p", "no:anyio", "-v"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(support)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 19 passed" in done.stdout
    assert "crashed while running 'test_b.py::test_it[2]'" in done.stdout
