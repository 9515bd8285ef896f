"""Configurations that nobody means, from the schema: for tests that bad input is one line, and leaves nothing behind."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lethe.config.method_schema import method_section
from lethe.config.schema import SECTIONS, Space, leaves
from lethe.recipes.registry import registered_names

_SAID = json.loads(Path(__file__).with_suffix(".json").read_text())
VALUES = (*_SAID["values"], 5000 * "9", "a" * 300, "a/" * 3000)  # as typed
PARSED = tuple(_SAID["parsed"])  # as in a YAML file
KEYS = (*_SAID["keys"], "k" * 5000, "a." * 200)
FILES = tuple(_SAID["files"])  # of --config and a workspace's settings.yaml


@cache
def keys() -> tuple[str, ...]:
    """Every key of every section, method and space."""
    found = ["method", *(key for name, kind in SECTIONS.items() for key, _ in leaves(kind, name))]
    for name in registered_names():
        words = method_section(name).model_fields
        found += [f"methods.{name}.{word}" for word in words]
        if name in ("hybrid_4", "model_1"):
            found += [f"search.spaces.{name}.{word}.{part}" for word in words for part in (*Space.model_fields, "x")]
    return tuple(found)


def places(folder: Path) -> dict[str, str]:
    """What stands for PIPE, FOLDER, OWN and LOOP among the values: made in the folder."""
    made = {"PIPE": folder / "pipe", "FOLDER": folder / "folder", "OWN": folder / "own.yaml", "LOOP": folder / "loop"}
    os.mkfifo(made["PIPE"])
    made["FOLDER"].mkdir()
    made["OWN"].write_text("run: {threads: 1}\n")
    made["LOOP"].symlink_to(made["LOOP"])
    return {name: str(path) for name, path in made.items()}


VALUE = st.sampled_from(VALUES)
ONE = st.tuples(st.sampled_from(keys()), VALUE)  # a key that exists
TWO = st.lists(ONE, min_size=2, max_size=3, unique_by=lambda pair: pair[0])
NO_KEY = st.sampled_from(KEYS) | st.sampled_from(keys()).map(lambda key: key[:-1]) | st.text(max_size=6)
OTHER = st.tuples(NO_KEY, VALUE | st.text(max_size=6))


def _typed(pairs: list[tuple[str, str]]) -> list[str]:
    return [word for key, value in pairs for word in (f"--{key}", value)]


def words() -> SearchStrategy[list[str]]:
    """A command line after the stage: a key with a value, several, one that does not exist, or something else."""
    pairs: SearchStrategy[list[tuple[str, str]]] = ONE.map(lambda one: [one]) | TWO | st.tuples(OTHER, ONE).map(list)
    odd = OTHER.map(lambda one: [f"--{one[0]}={one[1]}"]) | OTHER.map(lambda one: [f"--{one[0]}"]) | st.lists(VALUE, max_size=2)
    return pairs.map(_typed) | odd


def _nested(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                return tree
        node[leaf] = value
    return tree


def files() -> SearchStrategy[bytes]:
    """The content of a YAML file: sections with one value of any type or with several, or something else."""
    value: SearchStrategy[Any] = st.sampled_from(PARSED) | VALUE
    one = st.tuples(st.sampled_from(keys()), value)
    trees = one.map(lambda pair: [pair]) | st.lists(one | st.tuples(NO_KEY, value), min_size=2, max_size=3)
    written = trees.map(lambda pairs: json.dumps(_nested(pairs)))  # JSON is YAML
    encoded = (written | st.sampled_from(FILES) | st.text(max_size=8)).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return encoded | st.binary(max_size=20)


def layers() -> SearchStrategy[tuple[list[str], bytes | None, bytes | None]]:
    """A command line, the file of its --config and the workspace's settings: one of them, or all."""
    none, empty = st.none(), st.just(list[str]())
    return st.one_of(
        st.tuples(words(), none, none),
        st.tuples(empty, files(), none),
        st.tuples(empty, none, files()),
        st.tuples(words(), files(), files()),
    )
