"""How to reproduce a result: the commands, from the parameters of its MLflow run, and the versions and machine it ran on."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from lethe._util import checkout
from lethe._util.errors import RunFailed, UserError
from lethe._util.log import log
from lethe._util.redact import plain
from lethe.config.layers import OVERLAYS
from lethe.config.loader import Config, load
from lethe.config.method_schema import UnreadArguments
from lethe.config.source_map import REQUEST
from lethe.evaluation import seed_aggregation
from lethe.evaluation.logits_table import LogitsTable
from lethe.models import initial
from lethe.tracking.logged_runs import find_runs
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import recorded, repair_command

# Values that may name a person, and what a card has in place of them
PRIVATE = {"data.root": "<images>", "data.forget.ids": "<list of ids>", "data.forget.classes": "<classes>"}
PRIVATE |= {"data.forget.where": "<column=value>", "data.metadata": "<metadata>"}
PRIVATE |= {"pretrain.checkpoint": "<original>", "retrain.checkpoint": "<retrained>"}  # files; an address is public
PRIVATE |= {"pretrain.init": "<start>"}  # a file; the name of torchvision's weights is public
TAGS = {"mlflow.source.git.commit": "commit", "git_dirty": "edited", "device": "device", "precision": "precision"}


def weights_hash(table: LogitsTable) -> str:
    """Hash of the weights that a logits table was read from."""
    return table.about.get("model", table.hash)


def find_run(name: str, table: LogitsTable) -> dict[str, Any] | None:
    """Find the MLflow run that produced a result.

    Args:
        name: the run's name in the workspace.
        table: its logits table, whose metadata identify the weights.

    Returns:
        `run_id`, `name`, `status`, `tags`, `params` and `metrics`; None if there is no such run or, with a message, if the tracking server
        is not available.
    """
    try:
        runs = find_runs({"method": name, "result": seed_aggregation.result(weights_hash(table), table.about)})
    except RunFailed as error:
        log(f"the card does not include the MLflow run: {error}")
        return None
    return runs[0] if runs else None


def reproduction(
    config: Config, name: str, tables: Mapping[str, LogitsTable], run: Mapping[str, Any] | None, classes: Collection[str] = ()
) -> dict[str, Any]:
    """Commands that reproduce a result and its scores, and what is known about the run.

    Folders, lists and classes in them are replaced by placeholders.

    Args:
        config: the configuration that the card was requested with; its keys are used if there is no MLflow run.
        name: the run.
        tables: logits tables of `model` and `original`.
        run: the MLflow run of the result: its parameters and those of the original's run give the keys.
        classes: names of classes that may be shown.

    Returns:
        `commands` for `result` and `scores`; `about`: versions, commit, device, precision, run id.
    """
    method = RunId.parse(name).key
    if run is None:
        replaced = not REQUEST.isdisjoint(config.given)
        before = {key: text for key, text in recorded(config).items() if not (replaced and key in REQUEST)}
        hidden = {key: text for key, text in _without_names({**before, **config.given}, classes).items() if key in PRIVATE}
        again = {stage: repair_command(stage, config, method=method, **hidden).strip("`") for stage in ("unlearn", "evaluate")}
        return {"commands": {"result": again["unlearn"], "scores": again["evaluate"]}, "about": {}}
    original = find_run("original", tables["original"]) if "original" in tables else None
    params: dict[str, str] = (original["params"] if original else {}) | run["params"]
    params["run.seeds"] = run["tags"].get("seeds", "1")
    base = config.like.get(method, method)
    keys = {stage: _without_names(_changed_keys(params, stage, method, base), classes) for stage in ("unlearn", *OVERLAYS)}
    shortest = min(keys, key=lambda stage: len(keys[stage]))
    tags: dict[str, str] = run["tags"]
    about = {key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")}
    about |= {word: tags[tag] for tag, word in TAGS.items() if tag in tags}
    commands = {"result": _command(shortest, keys[shortest]), "scores": _command("evaluate", keys["unlearn"])}
    return {"commands": commands, "about": about | {"run": run["run_id"]}}


def _command(stage: str, keys: Mapping[str, str]) -> str:
    return checkout.command(stage, *(word for key, value in keys.items() for word in (f"--{key}", value)))


def _without_names(keys: Mapping[str, str], classes: Collection[str]) -> dict[str, str]:
    """Replace values that may name a person."""
    public = {key for key in PRIVATE if keys.get(key) in (None, plain(None))}
    if set(keys.get("data.forget.classes", "").split(",")) <= {*classes}:
        public.add("data.forget.classes")
    public |= {key for key in PRIVATE if "://" in keys.get(key, "")}
    if initial.is_name(keys.get("pretrain.init", "")):
        public.add("pretrain.init")
    return {key: value if key in public else PRIVATE.get(key, value) for key, value in keys.items()}


def _changed_keys(params: Mapping[str, str], stage: str, method: str, base: str) -> dict[str, str]:
    """The keys in which a run differs from the present params.yaml with the overlay of the stage; the method first, and if it is a variant
    that params.yaml does not have, what it is like."""
    overlay = stage if stage in OVERLAYS else None
    asked = load([], overlay=overlay)
    first = {"method": method} if method != asked.method or stage not in OVERLAYS else {}
    if method not in asked.methods:
        first |= {f"methods.{method}.like": base}
        try:
            asked = load([f"--methods.{method}.like", base], overlay=overlay)
        except UserError:  # a function whose code is gone: its defaults are not known, so all its arguments are stated
            asked = replace(asked, methods={**asked.methods, method: UnreadArguments()}, like={**asked.like, method: base})
    asked = replace(asked, method=method)
    usual = {key: plain(value) for key, value in (asked.resolved("original") | asked.resolved(method)).items()}
    ran = _later_arguments(asked, method) | {**params}
    unread = f"methods.{method}." if isinstance(asked.methods[method], UnreadArguments) else "-"
    stated = [key for key in sorted(ran) if key in usual or key.startswith(unread)]
    keys = {key: ran[key] for key in stated if usual.get(key) != ran[key] and key != "method"}
    forget = {key for key in keys if key in REQUEST}  # naming one of them unsets the others
    return first | {key: value for key, value in keys.items() if key not in forget or value != plain(None)}


def _later_arguments(asked: Config, method: str) -> dict[str, str]:
    """The method's optional arguments at what leaves them unused, as in a run of before they existed, whose parameters lack them."""
    section = asked.methods[method]
    unused = {name: field.default for name, field in type(section).model_fields.items() if not field.is_required()}
    without = section.model_copy(update=unused)
    return {
        key: plain(value) for key, value in replace(asked, methods={method: without}).resolved(method).items() if key.startswith("methods.")
    }
