"""The command line of each stage: the function it calls, and the words that are not configuration keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from lethe._util.errors import UserError
from lethe.config.loader import STAGE


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        function: `package.module:function`. Its module is imported by `load`, after the configuration was read: it may import torch.
        keys: the words that set configuration keys, `--key value` or `--key=value`.
        arguments: keyword arguments of the function, beside the configuration.
        overlay: the section of params.yaml to lay over the others.
    """

    function: str
    keys: Sequence[str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overlay: str | None = None

    def load(self) -> Callable[..., object]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., object] = getattr(import_module(module), name)
        return function


def parse(stage: str, words: Sequence[str]) -> Command:
    """Return what a stage's command line asks for. Raises UserError for words that the stage does not take."""
    parser = _PARSERS.get(stage)
    return parser(list(words)) if parser else Command(_FUNCTIONS[stage], words)


def _unlearn(words: list[str]) -> Command:
    keys = [word for word in words if word not in ("--explain", "--time")]
    if "--explain" in words:
        return Command("lethe.pipeline.dry_run:print_explanation", keys, {"measure": "--time" in words})
    return Command("lethe.pipeline.unlearn:unlearn", keys)


def _evaluate(words: list[str]) -> Command:
    """`--method` also takes several methods, references and `all`, which the configuration key does not."""
    for value, rest in _taken(words, "--method"):
        names = value.split(",")
        if len(names) > 1 or value in {*STAGE, "all"}:
            return Command("lethe.pipeline.unlearn:evaluate", rest, {"names": names})
    return Command("lethe.pipeline.unlearn:evaluate", words)


def _report(words: list[str]) -> Command:
    if words[:1] != ["card"]:
        return Command("lethe.reporting.report:report", words)
    words, ids = words[1:], list[str]()
    while found := _taken(words, "--list"):
        ids.append(found[0][0])
        words = found[0][1]
    if len(ids) > 1 or "" in ids:
        raise UserError(f"list is {' '.join(ids) or repr('')}; it takes the id of one image, e.g. --list train/5940")
    if ids:
        return Command("lethe.reporting.card:listed", words, {"id_": ids[0]})
    return Command("lethe.reporting.card:card", words)


def _search(words: list[str]) -> Command:
    if words[:1] != ["adopt"]:
        return Command("lethe.search.study:search", words)
    first_key = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    given = words[1:first_key]
    if not 1 <= len(given) <= 2 or not given[0].isdecimal():
        raise UserError(f"adopt {' '.join(given)}: it takes the number of a trial and, if you like, a name: adopt 17 gentle")
    return Command("lethe.search.study:adopt", words[first_key:], {"number": int(given[0]), "name": "".join(given[1:])})


def _demo(words: list[str]) -> Command:
    if "--full" in words:
        return Command("lethe.pipeline.stages:full_demo", [word for word in words if word != "--full"], overlay="full")
    return Command("lethe.pipeline.stages:demo", words, overlay="demo")


def _taken(words: list[str], flag: str) -> list[tuple[str, list[str]]]:
    """Return, for each time `flag` is given, its value and the other words."""
    found = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            end = place + (1 if equals else 2)
            found.append((value if equals else "".join(words[place + 1 : end]), words[:place] + words[end:]))
    return found


_FUNCTIONS = {
    "fingerprint": "lethe.workspace.fingerprint:fingerprint",
    "prepare": "lethe.pipeline.stages:prepare",
    "pretrain": "lethe.pipeline.stages:pretrain",
    "retrain": "lethe.pipeline.stages:retrain",
    "bank": "lethe.pipeline.bank_training:grow",
}
_PARSERS = {"unlearn": _unlearn, "evaluate": _evaluate, "report": _report, "search": _search, "demo": _demo}
