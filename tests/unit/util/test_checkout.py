"""What relative paths, params.yaml and suggested commands resolve to, in a checkout and without one."""

import os
from pathlib import Path

import pytest

from lethe._util import checkout
from support.project import ROOT


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no variable that says otherwise."""
    for name in ("DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_a_checkout_it_is_the_checkout(elsewhere: Path) -> None:
    assert ROOT.resolve() == checkout.CHECKOUT
    assert checkout.root() == checkout.here() == ROOT.resolve()
    (elsewhere / "params.yaml").write_text("")
    assert checkout.params_file() == checkout.default_params() == ROOT.resolve() / "params.yaml"
    assert checkout.command("prepare", "--data.root", "a b") == "python src/prepare.py --data.root 'a b'"


def test_without_a_checkout_it_is_the_current_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "CHECKOUT", None)
    assert checkout.root() == checkout.here() == elsewhere
    assert checkout.params_file().read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert checkout.params_file() == checkout.default_params()
    (elsewhere / "params.yaml").write_text("")
    assert checkout.params_file() == elsewhere / "params.yaml"
    assert checkout.command("prepare", "--run.workspace", "w") == "lethe prepare --run.workspace w"
    assert checkout.commit() is None
    assert checkout.addresses() == set()
    monkeypatch.setenv("DVC_ROOT", os.fspath(elsewhere / "root"))
    assert checkout.root() == elsewhere / "root"
