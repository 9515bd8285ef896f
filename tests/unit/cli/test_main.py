"""What ends a command: one line on stderr and an exit code."""

import builtins
import gc
import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lethe.cli.main import main

OWN = """
import signal

def stopped(options):
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words of a command that reads images by a user's function, which may be stopped."""
    (tmp_path / "own_source.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield ["--data.root", str(tmp_path), "--run.workspace", str(tmp_path / "ws")]
    sys.modules.pop("own_source", None)


@pytest.mark.parametrize("module", ["pathlib", "lethe._util.errors", "lethe.cli.stages"])
def test_ctrl_c_while_it_is_imported_is_no_traceback(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def interrupted(name: str, *words: Any) -> Any:
        if name == module:
            raise KeyboardInterrupt
        return imported(name, *words)

    monkeypatch.delitem(sys.modules, "lethe.cli.main")
    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as end:
        importlib.import_module("lethe.cli.main")
    assert end.value.code == 130


def test_an_error_of_a_users_file_shows_its_place_and_one_of_a_package_does_not(own: list[str], tmp_path: Path) -> None:
    """Whatever folder the package is in: the system's and the account's are not the environment's."""
    code = "from lethe.recipes.parameters import Epochs\n\ndef method(*, epochs: Epochs = 1):\n    open('/dev/null/weights')\n"
    (package := tmp_path / "dist-packages").mkdir()
    for folder, name in ((tmp_path, "users_file"), (package, "a_package")):
        (folder / f"{name}.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package)
        assert main("unlearn", ["--explain", "--method", "a_package:method", *own]) == 1
        with pytest.raises(NotADirectoryError):
            main("unlearn", ["--explain", "--method", "users_file:method", *own])
    for name in ("users_file", "a_package"):
        sys.modules.pop(name, None)


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("erase", ["--yes", "--run.workspace", "/dev/null/ws"]) == 1
    assert capsys.readouterr().err == "failed: /dev/null/ws/.lethe/locks: Not a directory\n"


@pytest.mark.parametrize(
    ("line", "function", "said"),
    [
        ("search", "lethe.search.study.search", "search: stopped; the same command resumes\n"),
        ("erase --yes", "lethe.erasure.erase.erase", "erase: stopped; the same command finishes it\n"),
        ("erase", "lethe.erasure.erase.plan", ""),
        ("erase --check", "lethe.erasure.erase.check", ""),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_interrupted_says_what_goes_on_with_it(
    line: str,
    function: str,
    said: str,
    number: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(function, lambda *_, **__: signal.raise_signal(number))
    verb, *words = line.split()
    assert main(verb, [*words, "--run.workspace", str(tmp_path / "ws")]) == 130
    assert capsys.readouterr().err == said


def test_a_program_that_calls_it_has_its_own_settings_back(own: list[str]) -> None:
    handlers = [signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGHUP)]
    mine, thresholds = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)], gc.get_threshold()
    try:
        assert main("prepare", ["--data.source", "own_source:stopped", *own]) == 130
        assert main("prepare", ["--data.source", "none"]) == 2
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == mine
        assert gc.get_threshold() == thresholds
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), handlers, strict=True):
            signal.signal(number, handler)
