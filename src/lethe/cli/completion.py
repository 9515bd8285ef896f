"""Shell completion of `lethe`: verbs, their keys, and the values of keys that have few."""

import argparse
from typing import Any, Literal, get_args, get_origin

from lethe._util.errors import UserError
from lethe.cli.key_groups import READS, group_of
from lethe.cli.stages import STAGES
from lethe.config.describe import accepts, types_of
from lethe.config.loader import load
from lethe.config.schema import SECTIONS, leaves


def script(shell: str) -> str:
    """Return the script that completes `lethe` in a shell.

    Args:
        shell: one of shtab's, such as bash or zsh.

    Raises:
        UserError: it is another one.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"completion is {shell or repr('')}; it takes {', '.join(shtab.SUPPORTED_SHELLS)}")
    text: str = shtab.complete(_parser(), shell)
    return text


def _parser() -> argparse.ArgumentParser:
    """The verbs and keys as a parser, which is what shtab reads; command lines are parsed by the configuration."""
    parser = argparse.ArgumentParser(prog="lethe")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--version", action="store_true")
    verbs = parser.add_subparsers()
    methods = load().methods
    for verb, stage in STAGES.items():
        command = verbs.add_parser(verb, help=_safe(stage.summary), description="")
        if not stage.takes_keys:
            continue
        command.add_argument("--help-all", action="store_true")
        _takes_file(command.add_argument("--config"))
        if "Method" in READS[verb]:
            command.add_argument("--method", choices=[*methods])
        for section, kind in SECTIONS.items():
            for key, info in leaves(kind, section):
                if group_of(key) in READS[verb]:
                    few = [choice for one in types_of(info) if get_origin(one) is Literal for choice in get_args(one)]
                    option = command.add_argument(f"--{key}", help=_safe(info.description or ""), choices=few or None)
                    if "path" in accepts(info):
                        _takes_file(option)
    return parser


def _takes_file(option: Any) -> None:
    """Have the shell complete an option's value as a path, by the attribute that shtab reads."""
    import shtab

    option.complete = shtab.FILE


def _safe(text: str) -> str:
    """A text without what argparse replaces."""
    return text.replace("%", "%%")
