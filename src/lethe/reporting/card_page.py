"""An unlearning card as a page: HTML that needs no network, and Markdown. Every number is read from the card's JSON; none is made here."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lethe.evaluation import registry
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.measures import LARGEST_SHARE
from lethe.plots import histograms

Card = Mapping[str, Any]

CLASSES = 20  # that are named; of the others there is but the number
# what a histogram is of: words, colour, line
CURVES = {
    "forget": ("this model on forget", "#D55E00", "-"),
    "test": ("this model on test", "#0072B2", "-"),
    "retrained": ("retrained on forget", "#222222", "--"),
    "original": ("original on forget", "#767676", ":"),
}
# aims that are another's value, in a reader's words
AIMS = {
    registry.REFERENCE: "the retrained model's",
    registry.HELD_OUT: "the retrained model's",
}
BARS = " ▁▂▃▄▅▆▇█"


def html(card: Card) -> str:
    return (
        _environment(True)
        .get_template("card.html.jinja")
        .render(**_said(card), figure=histograms.loss_histograms(_series(card), card["loss"]["log10_edges"]))
    )


def markdown(card: Card) -> str:
    return _environment(False).get_template("card.md.jinja").render(**_said(card))


@cache
def _environment(escaped: bool) -> Environment:
    found = Environment(
        loader=PackageLoader("lethe.reporting", "."), autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {
        "number": number,
        "interval": interval,
        "bars": bars,
        "words": words,
        "says": says,
        "seeds": seeds.seed_range,
        "aim": lambda aim: AIMS.get(aim, aim),
    }
    return found


def _said(card: Card) -> dict[str, Any]:
    classes = list(card["request"]["classes"].items())
    named = ", ".join(f"{name} {count:,}" for name, count in classes[:CLASSES])
    more = f" and {len(classes) - CLASSES} more classes" if len(classes) > CLASSES else ""
    groups = [(about, list(lines)) for about, lines in groupby(card["measures"], lambda line: line["about"])]
    curves = {what: CURVES[what] for what in card["loss"]["of"]}
    return {"card": card, "classes": named + more, "groups": groups, "curves": curves, "tally": tally(card["tally"])}


def tally(found: Mapping[str, Any]) -> str:
    """What all measures together come to.

    >>> tally({"able": 12, "differ": ["mia.svc", "klom"]})
    ' By 2 of the 12 measures that can tell here it differs from the retrained model: mia.svc, klom.'
    """
    if not found["able"] and not found["differ"]:
        return " No measure below can tell the original from the retrained model here."
    differ = found["differ"]
    return (
        f" By {len(differ) or 'none'} of the {number(found['able'])} measures that can tell here it differs from the retrained model"
        f"{': ' if differ else ''}{', '.join(differ)}."
    )


def _series(card: Card) -> list[tuple[str, str, str, Sequence[float]]]:
    return [(*CURVES[what], got["percent"]) for what, got in card["loss"]["of"].items()]


def number(value: float | int) -> str:
    """To four digits, whole numbers whole.

    >>> number(91.0), number(0.40848), number(12345.6), number(-2.4)
    ('91', '0.4085', '12,346', '-2.4')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def interval(got: Mapping[str, float] | None) -> str:
    """The value and, where it has one, its interval; a dash where there is none."""
    if got is None:
        return "–"
    return number(got["value"]) + (f" ({number(got['low'])} to {number(got['high'])})" if "low" in got else "")


def bars(percent: Sequence[float], highest: float) -> str:
    """A histogram in one line of text: eighths of the highest bin of all, never none where there is something."""
    return "".join(BARS[max(round(8 * value / highest), 1 if value > 0 else 0)] for value in percent)


def words(text: str) -> str:
    """The measures' own words, without their Markdown."""
    return text.replace("`", "").replace("*", "")


def says(line: Mapping[str, Any]) -> str:
    """What a measure's line comes to."""
    if line["power"] is False:
        return "no power here"
    if line["id"] == "share_of_retrain" and line["model"]["value"] > LARGEST_SHARE:
        return f"over {LARGEST_SHARE:g}"
    return {None: "", False: "as retrained", True: "differs from retrained"}[line["apart"]]
