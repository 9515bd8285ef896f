"""The commands of the page on inputs are understood, and what its tables name exists."""

import re
import shlex
from typing import Any

import pytest

from lethe.config import loader
from lethe.config.source_map import FORGET
from lethe.data import id_table, sources
from lethe.data.request import KINDS
from lethe.models.foreign import WRAPPERS
from support.project import ROOT

PAGE = (ROOT / "docs" / "guides" / "inputs.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    python, script, *words = shlex.split(command)
    assert python == "python" and (ROOT / script).is_file()
    loader.load([word for word in words if word != "--explain"])


def test_its_recipe_is_one() -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(text, names)  # the page's own
    assert [phase.name for phase in names["finetune"]("retain", epochs=2, lr=0.1, batch_size=4)] == ["head", "all"]


def test_keys_of_its_tables_are_understood() -> None:
    typed = re.findall(r"`(--[^`]+)`", PAGE)
    assert len(typed) > 8
    for words in (shlex.split(text) for text in typed):
        if "<" in " ".join(words) or len(words) % 2:
            continue
        root = ["--data.root", "x"] if "--data.held_out.fraction" in words or "--data.skip_unreadable" in words else []
        loader.load([*words, *(["--data.source", "image_folder", *root] if root else [])])


def test_names_are_those_of_the_program() -> None:
    assert {"image_folder", "csv", "npz", "idx"} < set(sources.names())
    for name in (*WRAPPERS, *(f"{FORGET}{kind}" if kind == "fraction" else kind for kind in KINDS), *id_table.PATHS[:5]):
        assert f"`{name}`" in PAGE
