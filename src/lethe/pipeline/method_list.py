"""The list of methods: what each does, where it comes from, what it costs, and its arguments."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lethe.config.describe import show, unknown_method
from lethe.config.loader import Config
from lethe.config.method_schema import UnreadArguments
from lethe.pipeline.cost import planned_share
from lethe.recipes.registry import find_method


def print_methods(config: Config, names: Sequence[str] = ()) -> None:
    """Print what `listing` returns, on stdout.

    Args:
        config: the configuration.
        names: of the methods; empty or all: every method, or the one that the command line names.

    Raises:
        UserError: one of them does not exist.
    """
    named = [config.method] if not names and "method" in config.given else [] if "all" in names else names
    if unknown := [name for name in named if name not in config.methods]:
        raise unknown_method(unknown[0], (*config.methods, "all"))
    print(listing(config, named or [*config.methods]))


def listing(config: Config, names: Iterable[str]) -> str:
    """Describe methods and variants of the configuration, one paragraph each.

    Args:
        config: the configuration; costs are those of its data and architecture, as shares of retraining by work (`cost.work`).
        names: of the methods.
    """
    parts = []
    for name in names:
        section = config.methods[name]
        if isinstance(section, UnreadArguments):
            parts.append(f"{name}: {config.like[name]}, which the current folder and PYTHONPATH do not have")
            continue
        method = find_method(config.like[name])
        summary = method.summary if config.like[name] == name else f"{config.like[name]} with other numbers"
        arguments = " ".join(f"{word}={show(value)}" for word, value in dict(section).items() if value != method.defaults.get(word))
        percent = 100 * planned_share(replace(config, method=name))
        cost = f"{percent:{'.1f' if percent >= 1 else '.2g'}} % of retraining"
        parts.append(f"{name}: {summary}\n  source     {method.source}\n  cost       {cost}\n  arguments  {arguments}")
    return "\n\n".join(parts)
