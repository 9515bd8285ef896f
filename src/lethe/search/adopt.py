"""Adopt a trial: write its arguments into params.yaml as a variant of the method."""

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lethe._util import names
from lethe._util.checkout import command, params_file, root
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest, short, write_text
from lethe._util.log import log
from lethe.config.loader import Config, load
from lethe.data import splits
from lethe.models import checkpoint
from lethe.search.spaces import argument_values, default_values
from lethe.search.storage import at_place, places, shared_layout, trials_of, with_storage
from lethe.workspace import settings
from lethe.workspace.layout import Layout
from lethe.workspace.settings import repair_command


def for_search(config: Config) -> Config:
    """Make `search.method` the configuration's method.

    Raises:
        UserError: `method` is given on the command line, which is a different key.
    """
    if "method" in config.given:
        raise UserError(f"method is {config.given['method']} (command line); a search takes --search.method")
    return replace(config, method=config.search.method)


def search_key(config: Config) -> dict[str, Any]:
    """The settings by which `adopt` finds a search without reading data; stored on the study as `about`."""
    search = config.search
    return {"method": config.method, "objective": search.objective, "sampler": search.sampler, "seed": search.seed}


def origin(original: str, split: str) -> str:
    """What a search is of, so that `adopt` tells searches of several workspaces in one database apart; copies of a workspace have the same.

    Args:
        original: Hash of the original's weights.
        split: Hash of the ids of all splits.
    """
    return short(digest([original, split]))


def typed_method(config: Config) -> dict[str, str]:
    """Key -> text of the keys that name the method to a later command, where this one says what it is `like`: a function, or a variant."""
    key = f"methods.{config.method}.like"
    like = config.given.get(key)
    if like is None:
        return {}
    named = {"search.method": like} if like.rpartition(":")[2] == config.method else {"search.method": config.method, key: like}
    required = [word for word, info in type(config.methods[config.method]).model_fields.items() if info.is_required()]
    keys = [f"methods.{config.method}.{word}" for word in required]
    return named | {key: config.given[key] for key in keys if key in config.given}


def adopt(config: Config, number: int, name: str = "") -> None:
    """Write a complete trial of the newest search with these settings into params.yaml, as a variant.

    Args:
        config: The configuration, whose `search.*` keys find the search.
        number: The trial's place in the search, as its tables have it.
        name: Name of the variant; "": `<method>_trial_<number>`.

    Raises:
        UserError: The name is taken or not a name, there is no such search, or the trial is not complete.
        RunFailed: params.yaml can't take another line; the message has the line to add.
    """
    config = for_search(config)
    name = name or f"{config.method}_trial_{number}"
    if reason := names.objection(name):
        raise UserError(f"a variant can't be called {name!r}: {reason}")
    if name in config.methods:
        raise UserError(f"methods.{name} already exists; give the variant another name: adopt {number} <name>")
    study = _newest(config)
    trial = at_place(study, number)
    state = trial.state if trial else None
    if trial is None or state is not TrialState.COMPLETE:
        place = places(study)
        complete = [str(n) for n in sorted(place[each.number] for each in trials_of(study, TrialState.COMPLETE))]
        what = f"is {state.name.lower()}" if state else "does not exist"
        raise UserError(f"trial {number} of {study.study_name} {what}; it takes a complete one: {', '.join(complete) or 'there is none'}")
    params = root() / "params.yaml"
    source = params if params.exists() else params_file()
    like, inherited = _inherited(config, source)
    changes = {word: value for word, value in trial.user_attrs["arguments"].items() if any(value != own[word] for own in inherited)}
    write_text(params, with_variant(source.read_text(encoding="utf-8"), name, like, changes))
    keys = {key: text for key, text in config.given.items() if not key.startswith("search.")}  # those of the data and the workspace
    again = repair_command("unlearn", replace(config, given=keys), method=name).strip("`")
    log(f"{params.name}: methods.{name} is trial {number} of {study.study_name}; {again}")


def _inherited(config: Config, params: Path) -> tuple[str, list[dict[str, Any]]]:
    """What a variant of the method is `like`, and the values that it has of that: by params.yaml alone, and with what the workspace
    remembers. Not by this command's keys, which later commands do not have."""
    alone = load(params=params)
    if (like := config.method) not in alone.methods:  # a function, or typed: what it is built on can be named in params.yaml
        like = config.like[config.method]
    if like not in alone.methods:
        return like, [default_values(config)]
    remembered = load(("--run.workspace", str(config.run.workspace)), params=params, settings=settings.layer)
    return like, [argument_values(replace(each, method=like)) for each in (alone, remembered)]


def _newest(config: Config) -> optuna.Study:
    exists = config.search.storage or (shared_layout(config).trials / "search.db").exists()
    summaries = with_storage(config, optuna.get_all_study_summaries) if exists else []
    matches = [study for study in summaries if study.user_attrs.get("about") == search_key(config) and study.datetime_start]
    where = str(config.workspace)
    if config.search.storage and matches:  # others may have theirs there
        layout = Layout(config.workspace)
        own = origin(checkpoint.model_hash(layout.weights("original")), splits.stored_split_hash(layout.splits))
        matches = [study for study in matches if study.user_attrs.get("origin") == own]
        where = f"search.storage of the original and the splits in {config.workspace}"
    if not matches:
        named = ", ".join(f"{key} {value}" for key, value in search_key(config).items())
        raise UserError(f"there is no search with {named} in {where}; `{command('search')}` with its keys runs one, or finds it")
    name = max(matches, key=lambda study: study.datetime_start).study_name
    newest: optuna.Study = with_storage(config, partial(optuna.load_study, study_name=name))
    return newest


def with_variant(text: str, name: str, like: str, arguments: Mapping[str, Any]) -> str:
    """Add a variant to the text of params.yaml, as one line at the end of `methods`; every other byte stays.

    Args:
        text: The file's text.
        name: Name of the variant.
        like: The method it is a variant of, or package.module:function.
        arguments: The arguments that differ.

    Returns:
        The new text.

    Raises:
        RunFailed: The file is written in a way in which the line would change something else.
    """
    yaml = YAML(typ="safe", pure=True)
    document = YAML().load(text)
    later = [document.lc.key(key)[0] for key in document if document.lc.key(key)[0] > document.lc.key("methods")[0]]
    lines = text.splitlines(keepends=True)
    end = min(later, default=len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # comments before the next section belong to it
        end -= 1
    variant = {"like": like, **arguments}
    written = f"{name}: {{{', '.join(f'{key}: {_plain(value)}' for key, value in variant.items())}}}"
    indent = " " * next(iter(document["methods"].lc.data.values()))[1]
    lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    changed = "".join([*lines[:end], f"{indent}{written}\n", *lines[end:]])
    wanted = yaml.load(text)
    wanted["methods"][name] = yaml.load(written)[name]
    try:
        same = yaml.load(changed) == wanted
    except YAMLError:
        same = False
    if not same:
        raise RunFailed(f"params.yaml is written in a way that can't be added to; add this line to its methods: {written}")
    return changed


def _plain(value: Any) -> str:
    """Format a value so that every YAML reader agrees: no exponent (some read it as text), names as a list."""
    if isinstance(value, float):
        digits = format(Decimal(repr(value)), "f")
        return digits if "." in digits else f"{digits}.0"
    if isinstance(value, str) and ":" in value:  # a function, which some readers would take for a key
        return f"'{value}'"
    return f"[{value.replace(',', ', ')}]" if isinstance(value, str) and "," in value else json.dumps(value).strip('"')
