"""A cluster that can't be used."""

import sys

import pytest

from lethe._util.errors import UserError
from lethe.parallel.pool import map_units
from support import units


def test_a_cluster_that_can_not_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS is no address, and Ray is not installed: make ray, on every machine$"):
        list(map_units(units.told, [1]))
    assert list(map_units(units.told, [])) == []
