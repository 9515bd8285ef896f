"""A variant of a method, written into params.yaml as one more line; every other byte of the file stays."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lethe._util.errors import RunFailed


def with_variant(text: str, name: str, like: str, arguments: Mapping[str, Any]) -> str:
    """params.yaml with one more line, at the end of `methods`; every other byte stays. Raises RunFailed where that gives another tree."""
    yaml = YAML(typ="safe", pure=True)
    place = YAML().load(text)
    after = [place.lc.key(key)[0] for key in place if place.lc.key(key)[0] > place.lc.key("methods")[0]]
    lines = text.splitlines(keepends=True)
    end = min(after, default=len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # what stands before the next section is about that one
        end -= 1
    variant = {"like": like, **arguments}
    written = f"{name}: {{{', '.join(f'{word}: {_plain(value)}' for word, value in variant.items())}}}"
    indent = " " * next(iter(place["methods"].lc.data.values()))[1]
    lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    made = "".join([*lines[:end], f"{indent}{written}\n", *lines[end:]])
    wanted = yaml.load(text)
    wanted["methods"][name] = yaml.load(written)[name]
    try:
        same = yaml.load(made) == wanted
    except YAMLError:
        same = False
    if not same:
        raise RunFailed(f"params.yaml is written in a way that can't be added to; add this line to its methods: {written}")
    return made


def _plain(value: Any) -> str:
    """As every reader of YAML understands it: no exponent (some take it for a text), names as a list."""
    if isinstance(value, float):
        digits = format(Decimal(repr(value)), "f")
        return digits if "." in digits else f"{digits}.0"
    return f"[{value.replace(',', ', ')}]" if isinstance(value, str) and "," in value else json.dumps(value).strip('"')
