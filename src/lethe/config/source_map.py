"""Layers of values and where each value came from: a later layer overrides an earlier one, key by key.

Errors name the layer of the wrong value, with file and line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.redact import without_secrets
from lethe.config.describe import show
from lethe.config.yaml_file import line_of
from lethe.data.request import KINDS

FORGET = "data.forget."
ADDRESSES = (".checkpoint", ".init")  # endings of keys that may hold an address
# A layer that sets any of these keys first clears those set by the layers below it
REQUEST = frozenset(f"{FORGET}{name}" for name in (*KINDS, "column"))


@dataclass(frozen=True)
class Layer:
    """Values of one source.

    Args:
        name: as shown in messages: a file's name, or "command line".
        values: dotted key -> value.
        file: the YAML file that they were read from, if any.
        section: dotted prefix of the keys in that file ("demo." for the section `demo` of params.yaml).
        given: whether the values were given for this command; defaults and a workspace's settings were not.
    """

    name: str
    values: Mapping[str, Any]
    file: Path | None = None
    section: str = ""
    given: bool = False

    def __post_init__(self) -> None:
        """Take the secrets out of addresses: values are logged, printed and kept."""
        object.__setattr__(self, "values", {key: _without_secrets(key, value) for key, value in self.values.items()})

    def place(self, key: str) -> str:
        """Name of the layer and, if it has a file, the line of the key in it."""
        line = line_of(self.file, self.section + key) if self.file else None
        return self.name + (f", line {line}" if line else "")


@dataclass
class SourceMap:
    """The tree of values after all layers so far, and the layer of each key.

    Args:
        base: the lowest layer, params.yaml. Errors about a key that no other layer has point to its file.
        tree: sections and values, nested.
    """

    base: Layer
    tree: dict[str, Any]
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take the secrets out of the addresses in the tree, as the base has done."""
        for key, value in self.base.values.items():
            if key.endswith(ADDRESSES):
                self._set(key, value)

    def add(self, layer: Layer) -> None:
        """Put a layer above the others.

        Raises:
            UserError: it has a key `a.b` although `a` holds a value, not a section.
        """
        if not REQUEST.isdisjoint(layer.values):
            self._drop_request()
        self.layers.append(layer)
        for key, value in layer.values.items():
            self._set(key, value)

    def value(self, key: str) -> Any:
        """Return the value of a dotted key; None if it has no value."""
        node: Any = self.tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def place(self, key: str) -> str:
        """Where the value of a key came from: "params.yaml, line 12" or "command line"."""
        ordered = (self.base, *self.layers)
        exact = next((layer for layer in reversed(ordered) if key in layer.values), None)
        around = next((layer for layer in ordered if any(one.startswith(f"{key}.") for one in layer.values)), self.base)
        return (exact or around).place(key)

    def refusal(self, key: str, accepted: str) -> UserError:
        """Make the error for a value that its key does not accept.

        Args:
            key: dotted key.
            accepted: what the key accepts; ends the message.

        Returns:
            The error, which names the key, its value and the place; the caller raises it.
        """
        return UserError(f"{key} is {show(self.value(key))} ({self.place(key)}); {accepted}")

    def _drop_request(self) -> None:
        data = self.tree.get("data")
        if isinstance(data, dict):
            kept = data.get("forget")
            others = {key: value for key, value in kept.items() if f"{FORGET}{key}" not in REQUEST} if isinstance(kept, dict) else {}
            data["forget"] = dict.fromkeys((*KINDS, "column")) | others

    def _set(self, key: str, value: Any) -> None:
        *parents, leaf = key.split(".")
        node = self.tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise UserError(f"{parent} is {child!r} ({self.base.name}); it takes a section")
            node = child
        node[leaf] = value


def _without_secrets(key: str, value: Any) -> Any:
    return without_secrets(value) if key.endswith(ADDRESSES) and isinstance(value, str) else value
