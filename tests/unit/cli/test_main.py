"""What ends a command: one line on stderr and an exit code."""

import pytest

from lethe.cli.main import main


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("erase", ["--yes", "--run.workspace", "/dev/null/ws"]) == 1
    assert capsys.readouterr().err == "failed: /dev/null/ws/.lethe/locks: Not a directory\n"
