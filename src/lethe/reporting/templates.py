"""Jinja templates of the report and the card: one environment, and the filters that both use."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(escaped: bool, **filters: Callable[..., Any]) -> Environment:
    """Make the environment of the templates in this folder.

    Args:
        escaped: whether values are escaped for HTML: always, but for Markdown.
        filters: those of one page, in addition to the shared ones.

    Returns:
        An environment in which an unknown variable is an error.
    """
    made = Environment(
        loader=PackageLoader("lethe.reporting", "."), autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": number, "interval": interval, "words": plain_text} | filters
    return made


def number(value: float | int) -> str:
    """Format a number with four significant digits; from 1000 on as a whole number.

    >>> number(91.0), number(0.40848), number(12345.6), number(-2.4), number(-0.0)
    ('91', '0.4085', '12,346', '-2.4', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:z.4g}"


def interval(entry: Mapping[str, float] | None) -> str:
    """Format a value with its interval, if it has one; a dash if there is no value."""
    if entry is None:
        return "–"
    return number(entry["value"]) + (f" ({number(entry['low'])} to {number(entry['high'])})" if "low" in entry else "")


def plain_text(text: str) -> str:
    """A text without Markdown."""
    return text.replace("`", "").replace("*", "")
