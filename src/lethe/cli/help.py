"""What --help, --list and --version print."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import lethe
from lethe._util.redact import plain
from lethe.cli.key_groups import GROUPS, READS, group_of
from lethe.cli.stages import STAGES
from lethe.cli.words import split_option
from lethe.config.describe import accepts
from lethe.config.loader import Config, load
from lethe.config.method_schema import arguments, method_section
from lethe.config.schema import SECTIONS, flatten, leaves
from lethe.recipes import registry


def verbs() -> str:
    """Return what `lethe --help` prints: every verb with one line of what it does."""
    lines = ["usage: lethe <verb> [--key value ...]", ""]
    lines += [f"  {name:<12} {stage.summary}" for name, stage in STAGES.items()]
    lines += ["", "  lethe <verb> --help      the keys that it reads, with type, range and meaning; --help-all: all keys"]
    lines += ["  lethe --list             methods, measures, data sources and architectures"]
    lines += ["  lethe --completion bash  a script that completes verbs and keys; also for zsh, fish, tcsh", "  lethe --version"]
    return "\n".join(lines)


def stage(verb: str, program: str, words: Sequence[str] = (), *, every: bool = False) -> str:
    """Return what --help of a stage prints: the keys that it reads with type, range, meaning, and their values in params.yaml.

    Args:
        verb: Name of the stage in `STAGES`.
        program: How it was called, such as `python src/unlearn.py`.
        words: The command line; the arguments shown are those of the method that it names.
        every: Whether to show all keys and the arguments of all methods, as --help-all does.

    Returns:
        The text, without a final newline.
    """
    usage = [line.replace("{program}", program) for line in STAGES[verb].usage]
    if not STAGES[verb].takes_keys:
        first, *rest = usage
        return "\n".join([first, "", _sentence(STAGES[verb].summary), *rest])
    groups, config = tuple(GROUPS) if every else READS[verb], _config(verb, words)
    lines = [f"usage: {program} [--key value ...]", "", _sentence(STAGES[verb].summary)]
    lines += ["", *usage] if usage and usage[0] else usage
    lines.append("")
    for title in groups:
        lines += [f"{title}:", *_group(config, title, every), ""]
    lines += ["Defaults come from params.yaml; the command line wins over all others.", *_key("config", "a YAML file", CONFIG)]
    if not every:
        more = "" if "Images" in groups else "; images, network and training are as the workspace was made with"
        lines += _key("help-all", "", f"the keys of all commands and methods{more}")
    return "\n".join(lines)


CONFIG = "with sections as in params.yaml; overrides params.yaml and the workspace's settings"


def _key(name: str, takes: str, meaning: str) -> list[str]:
    """A key, then its meaning, indented and as wide as the terminal."""
    width = shutil.get_terminal_size((110, 24)).columns
    wrapped = textwrap.wrap(meaning, max(width, 40), initial_indent=" " * 6, subsequent_indent=" " * 6, break_long_words=False)
    return [f"  --{name}  {takes}".rstrip(), *wrapped]


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _config(verb: str, words: Sequence[str]) -> Config:
    """The defaults, with the method that the command line names."""
    _, named = split_option([*words], "--search.method" if verb == "search" else "--method")
    config = load()
    method = named[-1] if named and named[-1] in config.methods else config.search.method if verb == "search" else config.method
    return replace(config, method=method)


def _bracketed(value: object) -> str:
    return f"[{plain(value)}]"


def _group(config: Config, title: str, every: bool) -> list[str]:
    """The keys of a group, two lines each."""
    if title == "Method":
        return _key("method", "a name", f"the unlearning method [{load().method}]; one of {', '.join(config.methods)}")
    if title == "Arguments of the method":
        return _all_arguments() if every else _arguments(config)
    lines = []
    for name, kind in SECTIONS.items():
        values = flatten(getattr(config, name).model_dump(mode="json"), name)
        for key, info in leaves(kind, name):
            if group_of(key) == title:
                lines += _key(key, accepts(info), f"{info.description} {_bracketed(values[key])}")
    return lines


def _arguments(config: Config) -> list[str]:
    """The arguments of the configuration's method."""
    own = config.methods[config.method]
    values = own.model_dump(mode="json")
    lines = [f"  (those of {config.method}; with another --method, that one's are listed)"]
    for word, info in type(own).model_fields.items():
        lines += _key(f"methods.{config.method}.{word}", accepts(info), f"{info.description} {_bracketed(values[word])}")
    return lines


def _all_arguments() -> list[str]:
    """The arguments of all methods, and which methods have them."""
    lines = ["  --methods.<method>.<argument>, if the method has that argument; for defaults see params.yaml or docs/keys.md", ""]
    methods = registry.registered_names()
    for word, info in arguments().items():
        having = [name for name in methods if word in method_section(name).model_fields]
        who = "" if having == methods else f" ({', '.join(having)})"
        lines += _key(f"methods.<method>.{word}", accepts(info), f"{info.description}{who}")
    return lines


def registries() -> str:
    """Return what `lethe --list` prints: every registered method, measure, data source and architecture."""
    from lethe.data import sources
    from lethe.evaluation.catalogue import all_measures
    from lethe.models.architectures import OWN

    config = load()
    methods = {name: f"like {like}" if like != name else registry.find_method(name).summary for name, like in config.like.items()}
    architectures = {name: _first_line(build) for name, build in OWN.items()}
    architectures["<model of torchvision>"] = "any that classifies, such as resnet18"
    architectures["<package.module:function>"] = "one of your own"
    tables = [
        _table("Methods (--method)", methods),
        _table("Measures (scores/*.json)", {measure.id: measure.about for measure in all_measures()}),
        _table("Data sources (--data.source)", sources.summaries() | {"<package.module:function>": "one of your own"}),
        _table("Architectures (--model.architecture)", architectures),
    ]
    return "\n\n".join(tables)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _table(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {meaning}".rstrip() for name, meaning in rows.items())])


def version() -> str:
    """Return what `lethe --version` prints."""
    return f"lethe {lethe.__version__}"
