"""What --help, --list and --version print."""

from collections.abc import Mapping

import lethe
from lethe._util.redact import plain
from lethe.cli.stages import STAGES
from lethe.config.describe import accepts
from lethe.config.loader import Config, load
from lethe.config.method_schema import arguments, method_section
from lethe.config.schema import SECTIONS, flatten, leaves
from lethe.recipes import registry


def verbs() -> str:
    """Return what `lethe --help` prints: every verb with one line of what it does."""
    lines = ["usage: lethe <verb> [--key value ...]", ""]
    lines += [f"  {name:<12} {stage.summary}" for name, stage in STAGES.items()]
    lines += ["", "  lethe <verb> --help  every key with type, range and meaning"]
    lines += ["  lethe --list         methods, measures, data sources and architectures"]
    lines += ["  lethe --version"]
    return "\n".join(lines)


def stage(verb: str, program: str) -> str:
    """Return what --help of a stage prints: every key with type, range, meaning, and its value in params.yaml.

    Args:
        verb: Name of the stage in `STAGES`.
        program: How it was called, such as `python src/unlearn.py`.
    """
    usage = [line.replace("{program}", program) for line in STAGES[verb].usage]
    if not STAGES[verb].takes_keys:
        first, *rest = usage
        return "\n".join([first, "", _sentence(STAGES[verb].summary), *rest])
    lines = [f"usage: {program} [--key value ...]", "", _sentence(STAGES[verb].summary), ""]
    lines += ["Defaults come from params.yaml; a key on the command line overrides it.", ""]
    return "\n".join([*lines, *_keys(load()), *usage])


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _keys(config: Config) -> list[str]:
    values = {name: flatten(getattr(config, name).model_dump(mode="json"), name) for name in SECTIONS}
    lines = []
    for name, kind in SECTIONS.items():
        for key, info in leaves(kind, name):
            lines += [f"  --{key}  {accepts(info)}", f"      {info.description} [{plain(values[name][key]) or '[]'}]"]
    lines += [f"  --method  {', '.join(config.methods)}", f"      the unlearning method [{config.method}]", ""]
    lines += ["  --methods.<method>.<argument>, if the method has that argument; for defaults see params.yaml or docs/keys.md", ""]
    methods = registry.registered_names()
    for word, info in arguments().items():
        having = [name for name in methods if word in method_section(name).model_fields]
        who = "" if having == methods else f" ({', '.join(having)})"
        lines += [f"  --methods.<method>.{word}  {accepts(info)}", f"      {info.description}{who}"]
    lines += ["", "  --config  a YAML file", "      with sections as in params.yaml; overrides params.yaml and the workspace's settings"]
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
