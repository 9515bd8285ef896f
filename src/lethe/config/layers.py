"""The layers of a command's values: params.yaml, the workspace's settings, a section of params.yaml, the file of --config, typed keys."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lethe._util.checkout import here, root
from lethe._util.errors import UserError
from lethe._util.files import user_path
from lethe.config.describe import show
from lethe.config.reader import Reader, like_of
from lethe.config.schema import flatten
from lethe.config.source_map import FORGET, REQUEST, Layer, SourceMap
from lethe.config.yaml_file import read_yaml
from lethe.data.request import KINDS
from lethe.recipes.registry import is_method

OVERLAYS = ("demo",)  # sections of params.yaml that override others in the stage of that name
REPEATABLE = (f"{FORGET}where",)  # keys that a command line may have several times
UPON = {"full": ("demo",)}  # overlay -> those below it: python src/demo.py --full


def layers(
    argv: Sequence[str], overlay: str | None, params: Path, settings: Callable[[Path], Layer] | None = None
) -> tuple[SourceMap, Layer]:
    """Collect the layers of a command. Keys of the command line are checked, values are not.

    Args:
        argv: `--key value` or `--key=value`, and `--config FILE`.
        overlay: `demo` or `full`; None: no overlay.
        params: the YAML file of the lowest layer.
        settings: returns the layer of a workspace's settings, by its folder; None: that layer is empty.

    Returns:
        The source map with all layers, lowest first, and the layer of the workspace's settings, which is one of them.

    Raises:
        UserError: a word is not `--key value`, a key or a section is unknown or given twice, or a file can't be read as YAML sections.
    """
    typed = _parse(argv)
    tree = read_yaml(params, params.name)
    overlays = {name: tree.pop(name, None) or {} for name in (*OVERLAYS, *UPON)}
    sources = SourceMap(Layer(params.name, flatten(tree, ""), params), tree)
    reader = Reader(sources)
    reader.check_names()
    names = (*UPON.get(overlay, ()), overlay) if overlay else ()
    laid = [Layer(params.name, flatten(overlays[name], ""), params, f"{name}.", given=True) for name in names]
    own = [_file(typed.pop("config"))] if "config" in typed else []
    named = [typed, *(layer.values for layer in reversed([*laid, *own]))]
    workspace = next((one["run.workspace"] for one in named if "run.workspace" in one), sources.value("run.workspace"))
    remembered = settings(here() / _workspace(workspace)) if settings else Layer("", {})
    for layer in (remembered, *laid, *own):
        sources.add(layer)
        if not layer.section:
            reader.check_names()
    likes = {key: value for key, value in typed.items() if _names_base(key)}  # a variant takes the keys of its base
    sources.add(Layer("command line", likes, given=True))
    typed |= _outside_methods(sources, typed)
    known = reader.known()
    for key in typed:
        if key not in likes and key not in known:
            raise reader.unknown(key, "command line")
    values = {key: None if value in ("null", "None", "~") else value for key, value in typed.items() if key not in likes}
    sources.add(Layer("command line", values, given=True))
    return sources, remembered


def given_keys(sources: SourceMap) -> dict[str, str]:
    """Key -> text of the layers that belong to this command; a request for a forget set replaces an earlier one."""
    given: dict[str, str] = {}
    for layer in sources.layers:
        if layer.given:
            if not REQUEST.isdisjoint(layer.values):
                given = {key: value for key, value in given.items() if key not in REQUEST}
            given |= {key: show(value) for key, value in layer.values.items()}
    return given


def _outside_methods(sources: SourceMap, typed: Mapping[str, str]) -> dict[str, str]:
    """Make sections for methods that are not in params.yaml: registered ones, entry points and `package.module:function`.

    Returns:
        What changes on the command line: `method` and `search.method` without their module.
    """
    methods = sources.tree.get("methods")
    if not isinstance(methods, dict):
        return {}
    method = typed.get("method", sources.value("method"))
    named = {key.split(".")[1] for key in typed if key.startswith("methods.") and key.count(".") > 1}
    for name in sorted({str(method), str(typed.get("search.method", "")), *named} - {*methods}):
        if ":" not in name and is_method(name):
            methods[name] = {}
    changed: dict[str, str] = {}
    for key in ("method", "search.method"):
        own = typed.get(key, sources.value(key))
        if not isinstance(own, str) or ":" not in own:
            continue
        name, place = own.rpartition(":")[2], "command line" if key in typed else sources.place(key)
        if name in methods and like_of(methods[name]) != own:
            other = f"--{key} <name> --methods.<name>.like {own}"
            raise UserError(f"{key} is {own} ({place}); a method {name} exists, so give it another name: {other}")
        sources.add(Layer(place, {f"methods.{name}.like": own, key: name}, given=True))
        changed |= {key: name} if key in typed else {}
    return changed


def _parse(argv: Sequence[str]) -> dict[str, str]:
    """Key -> text of a command line."""
    typed: dict[str, str] = {}
    tokens = iter(argv)
    for token in tokens:
        if not token.startswith("--"):
            raise UserError(f"{token!r} is not understood; it takes --key value, e.g. --run.seed 1")
        key, equals, value = token[2:].partition("=")
        if not equals:
            following = next(tokens, None)
            if following is None:
                raise UserError(f"{key} has no value (command line); it takes --{key} <value>")
            value = following
        if key in typed and key in REPEATABLE:
            value = f"{typed[key]},{value}"
        elif key in typed:
            raise UserError(f"{key} is given twice (command line): {typed[key]} and {value}")
        typed[key] = value
    requests = [key for key in typed if key.removeprefix(FORGET) in KINDS and typed[key] != "null"]
    if len(requests) > 1:
        raise UserError(f"{' and '.join(requests)} are both given (command line); it takes one of them")
    return typed


def _workspace(value: Any) -> Path:
    """The folder whose settings are a layer; the value is not checked yet."""
    try:
        return user_path(value)
    except UserError as error:
        raise UserError(f"run.workspace: {error}") from None


def _file(name: str) -> Layer:
    path = root() / user_path(name)
    values = flatten(read_yaml(path, name), "")
    return Layer(name, values, path if path.is_file() else None, given=True)  # a pipe can't be read again to find a line


def _names_base(key: str) -> bool:
    """Whether a key is `methods.<variant>.like`."""
    return key.startswith("methods.") and key.endswith(".like") and key.count(".") == 2
