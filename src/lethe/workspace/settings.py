"""A workspace's own settings: the keys that its files were made with, so that no later command has to repeat them.

Rules:

1. `<workspace>/settings.yaml` is a layer of the configuration: params.yaml < settings.yaml < the stage's section (demo) < command line.
2. The checkout itself (`run.workspace` is `.`) has no such layer: its settings are params.yaml, and an edit of that always counts. Keys
   given on a command line there are only remembered (.lethe/given.json), so that commands suggested in messages can repeat them.
3. A stage that DVC runs reads params.yaml alone. Recorded keys no longer describe the files that it makes, so they are dropped.
4. A key is recorded when the files that depend on it are made: data.* by prepare, pretrain.* and model.* with the original, retrain.*
   with the retrained model, methods.<name>.* with a result, evaluate.* with scores. `make demo` records its section of params.yaml.
5. A given key that contradicts the settings of existing files is an error that names the command to replace them."""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from lethe._util import dvc_stage
from lethe._util.checkout import command, params_file
from lethe._util.errors import UserError
from lethe._util.files import read_json, write_json, write_text
from lethe._util.integrity import refuse_newer
from lethe.config.describe import show
from lethe.config.loader import Config
from lethe.config.schema import SECTIONS, flatten
from lethe.config.source_map import FORGET, REQUEST, Layer
from lethe.config.yaml_file import read_yaml
from lethe.workspace.layout import Layout

HEADER = "# The keys by which this workspace was made. They win over params.yaml; the command line wins over them.\n"
NOT_RECORDED = ("run.workspace", "method")
COUNTS = ("pretrain.seeds", "retrain.seeds", "run.seeds")  # numbers of models in the bank and of a method, which decide no file
WITH_ORIGINAL = ("pretrain.", "model.", "data.mean", "data.std", "run.seed", "run.precision", "run.experiment")
FILES = ("data.root", "data.metadata", "data.forget.ids", "pretrain.checkpoint", "retrain.checkpoint")
# prefix of a key -> the stage that makes the files that depend on it
DECIDES = {"data.": "prepare", "model.": "pretrain", "pretrain.": "pretrain", "run.seed": "pretrain", "retrain.": "retrain"}
# a stage -> prefixes of the keys that it may change
CHANGES = {
    "prepare": tuple(DECIDES),
    "pretrain": ("model.", "pretrain.", "run.seed", "retrain."),
    "retrain": ("pretrain.", "retrain.", "run.seed"),
}


def layer(folder: Path) -> Layer:
    """Read the settings that apply to a command on a workspace.

    Args:
        folder: the workspace.

    Returns:
        Dotted keys with their values, and their file; an empty layer under DVC and for the checkout itself.
    """
    layout = Layout(folder)
    if dvc_stage.active() or is_checkout(folder):
        return Layer("", {})
    if layout.settings.exists():
        return Layer(str(layout.settings), _read(layout), layout.settings)
    return Layer(str(layout.given), {key: None if text == "null" else text for key, text in _given(layout).items()})


def is_checkout(folder: Path) -> bool:
    """Whether the folder is the checkout. With an installed package none is: its params.yaml is not for the user to edit."""
    return folder.resolve() == params_file().parent.resolve()


def recorded(config: Config) -> dict[str, str]:
    """Return the keys that are remembered for the checkout but not applied, which a suggested command has to repeat."""
    layout = Layout(config.workspace)
    return _given(layout) if is_checkout(layout.root) else {}


def record(config: Config, data: str, *prefixes: str) -> None:
    """Record the given keys that the files just made depend on.

    Args:
        config: the configuration they were made with.
        data: the hash of the train images.
        *prefixes: of the keys to record. Keys with these prefixes that were recorded earlier but did not apply now are dropped.
    """
    values = _all(config)
    given = {key: show(values.get(key, text)) for key, text in config.given.items() if _recordable(key, prefixes)}

    def change(was: Mapping[str, str]) -> dict[str, str]:
        return {key: text for key, text in was.items() if key in config.applied_settings or not key.startswith(prefixes)} | given

    update(config, data, change)


def update(config: Config, data: str, change: Callable[[Mapping[str, str]], dict[str, str]]) -> None:
    """Change the recorded keys so that two commands at once lose none of them.

    Args:
        config: names the workspace.
        data: the hash of the train images.
        change: takes the recorded keys with their texts and returns those to record; called again under a lock if they differ.
    """
    if _is_current(config, change(_stored(config))):
        return
    lock = Layout(config.workspace).lock("settings")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        _store(config, data, change(_stored(config)))


def record_data(config: Config, data: str, replaced: bool) -> None:
    """Record the keys that the images and splits depend on.

    Args:
        config: the configuration they were made with.
        data: the hash of the train images.
        replaced: whether the images and splits were made now; if not, only keys that those on disk confirm are recorded.
    """
    confirmed = ("data.source", "data.root", "data.image_size", "data.limit", "data.seed", FORGET)
    values = _all(config)
    given = {key: show(values.get(key, text)) for key, text in config.given.items() if _recordable(key, ("data.", "model."))}
    laid = {} if dvc_stage.active() else {key: show(values.get(key, text)) for key, text in config.laid.items() if key not in NOT_RECORDED}

    def change(was: Mapping[str, str]) -> dict[str, str]:
        if not was:
            return given | laid
        kept = {key: text for key, text in was.items() if not replaced or key in config.applied_settings or not key.startswith("data.")}
        if not REQUEST.isdisjoint(given):
            kept = {key: text for key, text in kept.items() if key not in REQUEST}
        return kept | (given if replaced else {key: text for key, text in given.items() if key.startswith(confirmed)}) | laid

    update(config, data, change)


def record_erasure(config: Config, data: str, checkpoint: str) -> None:
    """Record that the images of the request are gone: it is no longer asked for, and the accepted weights are the original.

    Args:
        config: names the workspace.
        data: the hash of the train images that are left.
        checkpoint: what `pretrain.checkpoint` takes.
    """
    update(config, data, lambda was: {key: text for key, text in was.items() if key not in REQUEST} | {"pretrain.checkpoint": checkpoint})


def check(config: Config, stage: str) -> None:
    """Check that no given key contradicts the settings of files that exist, unless the stage replaces them.

    Args:
        config: the configuration of the command.
        stage: the stage that the command runs.

    Raises:
        UserError: a key contradicts them; the message names both values and the command that replaces the files.
    """
    layout, values = Layout(config.workspace), _all(config)
    for key in sorted(config.given, key=lambda one: one not in FILES or not _is_missing(config, str(values.get(one)))):
        prefix = next((prefix for prefix in DECIDES if key.startswith(prefix)), None)
        if prefix is None or key in COUNTS or key.startswith(CHANGES.get(stage, ())):
            continue
        was = config.settings.get(key)
        if key in REQUEST and was is None:  # another of the ways to name a forget set
            was = next((f"{other} {text}" for other, text in config.settings.items() if other in REQUEST), None)
        now = show(values.get(key))
        if was is None or was == now or not _exists(layout, prefix):
            continue
        where = "command line" if key not in config.laid else "params.yaml"
        if key in FILES and _is_missing(config, now):
            raise UserError(f"{key} is {now} ({where}), which does not exist")
        raise UserError(
            f"{key} is {now} ({where}), and {layout.root} was made with {was}; {repair_command(DECIDES[prefix], config)} replaces it"
        )


def repair_command(stage: str, config: Config, **more: str) -> str:
    """Format the command that makes missing files or replaces files that do not match.

    Args:
        stage: the script of src/ that does it.
        config: of the current command; keys that were given to it and are not in the workspace's settings are repeated.
        **more: additional keys with their values, which override. With `method`, the remembered keys of that method are repeated too.

    Returns:
        The command, in backticks.
    """
    method, values = more.get("method", ""), _all(config)
    given = {key: text for key, text in config.given.items() if key != "method" and not key.startswith("methods.")}
    if stage != "prepare":
        remembered = recorded(config)
        if not REQUEST.isdisjoint(given):
            remembered = {key: text for key, text in remembered.items() if key not in REQUEST}
        leave = ("pretrain.", "retrain.") if stage in ("pretrain", "retrain") else ()  # made again, with the keys of the current command
        remembered = {
            k: v for k, v in remembered.items() if not k.startswith(("methods.", *leave)) or (method and k.startswith(f"methods.{method}."))
        }
        given = remembered | given
    given = {key: text for key, text in given.items() if config.settings.get(key) != show(values.get(key, text))} | more
    return f"`{command(stage, *as_words(given))}`"


def as_words(given: Mapping[str, str]) -> list[str]:
    """Spell keys, key -> text, as the words of a command line: --key text."""
    return [word for key, text in given.items() for word in (f"--{key}", text)]


def _recordable(key: str, prefixes: tuple[str, ...]) -> bool:
    return key.startswith(prefixes) and key not in NOT_RECORDED


def _is_missing(config: Config, text: str) -> bool:
    """Whether a key names a file that does not exist; an address is not looked up."""
    file = re.split("[#&](?:sha256|key)=", text)[0]
    return text != "null" and "://" not in text and not config.path(Path(file)).exists()


def _exists(layout: Layout, prefix: str) -> bool:
    """Whether files that depend on keys with this prefix exist."""
    kind = {"data.": None, "retrain.": "retrained"}.get(prefix, "original")
    return layout.about("train").exists() if kind is None else layout.weights(kind).exists()


def _all(config: Config) -> dict[str, Any]:
    """Dotted key -> value of every key that can be recorded."""
    trees = {name: getattr(config, name).model_dump(mode="json") for name in SECTIONS}
    trees["methods"] = {name: own.model_dump(mode="json") for name, own in config.methods.items()}
    return flatten(trees, "")


def _given(layout: Layout) -> dict[str, str]:
    """The keys in .lethe/given.json, unless the images have changed since it was written."""
    if not (layout.given.exists() and layout.about("train").exists()):
        return {}
    found: dict[str, Any] = read_json(layout.given)
    return dict(found["given"]) if found.get("of") == read_json(layout.about("train"))["hash"] else {}


def _read(layout: Layout) -> dict[str, Any]:
    found = read_yaml(layout.settings, str(layout.settings))
    refuse_newer(found.pop("format", None), str(layout.settings))
    return flatten(found, "")


def _stored(config: Config) -> dict[str, str]:
    layout = Layout(config.workspace)
    if not is_checkout(layout.root) and layout.settings.exists():
        return {key: show(value) for key, value in _read(layout).items()}
    return _given(layout)


def _is_current(config: Config, given: Mapping[str, str]) -> bool:
    layout = Layout(config.workspace)
    if is_checkout(layout.root):
        return given == _given(layout)
    return given == _stored(config) and (not given or layout.settings.exists())


def _store(config: Config, data: str, given: Mapping[str, str]) -> None:
    layout = Layout(config.workspace)
    if is_checkout(layout.root):
        write_json(layout.given, {"of": data, "given": given})
    else:
        write_text(layout.settings, HEADER + _yaml(config, given))


def _yaml(config: Config, given: Mapping[str, str]) -> str:
    from ruamel.yaml import YAML

    values, tree = _all(config), dict[str, Any]()
    for key in sorted(given):
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = values[key] if key in values and show(values[key]) == given[key] else given[key]
    yaml, out = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = None  # the innermost sections on one line, as in params.yaml
    yaml.dump(tree, out)
    return out.getvalue() if tree else ""
