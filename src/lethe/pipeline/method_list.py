"""The list of methods: what each does, where it comes from, what it costs, and its arguments."""

from dataclasses import replace

from lethe.config.describe import show
from lethe.config.loader import Config
from lethe.pipeline.cost import planned_share
from lethe.recipes.registry import find_method


def print_methods(config: Config) -> None:
    """Print what `listing` returns, on stdout.

    Args:
        config: the configuration.
    """
    print(listing(config))


def listing(config: Config) -> str:
    """Describe every method and variant of the configuration, one paragraph each.

    Args:
        config: the configuration; costs are those of its data and architecture, as shares of retraining by work (`cost.work`).
    """
    parts = []
    for name, section in config.methods.items():
        method = find_method(config.like[name])
        summary = method.summary if config.like[name] == name else f"{config.like[name]} with other numbers"
        arguments = " ".join(f"{word}={show(value)}" for word, value in dict(section).items() if value != method.defaults.get(word))
        cost = f"{100 * planned_share(replace(config, method=name)):.1f} % of retraining"
        parts.append(f"{name}: {summary}\n  source     {method.source}\n  cost       {cost}\n  arguments  {arguments}")
    return "\n\n".join(parts)
