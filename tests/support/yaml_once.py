"""DVC parses params.yaml again for every stage, a third of a second each time; here a text is parsed once per process."""

from copy import deepcopy
from typing import Any

from ruamel.yaml import YAML

_load = YAML.load
_trees: dict[str, Any] = {}


def load(self: YAML, stream: Any) -> Any:
    """YAML.load, remembering what a text is in plain types; another's change of it is not seen."""
    if "safe" not in self.typ or not isinstance(stream, str):
        return _load(self, stream)
    if stream not in _trees:
        _trees[stream] = _load(self, stream)
    return deepcopy(_trees[stream])
