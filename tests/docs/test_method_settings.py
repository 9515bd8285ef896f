"""The page of the methods' settings: a row for each method of the field, with the defaults that params.yaml has."""

import re
from typing import Any

from ruamel.yaml import YAML

from lethe.recipes.registry import registered_names
from support.project import ROOT

ROW = re.compile(r"^\| `(\w+)` \| (.*?) \|", re.MULTILINE)
OWN = re.compile(r"model_\d|hybrid_\d|lethe")


def parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_defaults_on_the_page_are_those_of_params_yaml() -> None:
    stated = parse((ROOT / "params.yaml").read_text().split("\nrun:")[0])["methods"]
    rows = dict(ROW.findall((ROOT / "docs" / "method-settings.md").read_text()))
    assert {*rows} == {name for name in registered_names(chains=False) if not OWN.fullmatch(name)}
    for method, cell in rows.items():
        pairs = re.findall(r"`(.+?)`", cell)
        assert pairs
        for pair in pairs:
            assert parse(pair).items() <= stated[method].items(), f"{method}: {pair}"
