"""What ends a command: one line on stderr and an exit code."""

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

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


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("erase", ["--yes", "--run.workspace", "/dev/null/ws"]) == 1
    assert capsys.readouterr().err == "failed: /dev/null/ws/.lethe/locks: Not a directory\n"


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
