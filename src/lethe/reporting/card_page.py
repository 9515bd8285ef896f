"""An unlearning card as a page: HTML that needs no network, and Markdown. Every number comes from the card's JSON."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment

from lethe._util.names import escape_markdown
from lethe.data.splits import SPLITS
from lethe.evaluation import registry, seed_aggregation
from lethe.evaluation.measures import LARGEST_SHARE
from lethe.evaluation.verdict.words import REFERENCE_UNFIT
from lethe.plots import histograms
from lethe.reporting import narrative
from lethe.reporting.templates import environment, number
from lethe.workspace import copies

Card = Mapping[str, Any]

CLASSES = 20  # that are listed by name; the others are only counted
# histogram -> legend, colour, line style
CURVES = {
    "forget": ("this model on forget", "#D55E00", "-"),
    "test": ("this model on test", "#0072B2", "-"),
    "retrained": ("retrained on forget", "#222222", "--"),
    "original": ("original on forget", "#767676", ":"),
}
# targets that are another model's value, in words for the reader
TARGETS = {
    registry.REFERENCE: "the retrained model's",
    registry.HELD_OUT: "the retrained model's",
}
# What the page for the person says: of the verdict, of the events of the ledger, of stores, and of what was done to a place
PLAIN = {
    "as_retrained": "No test could tell it from a model that had never seen them.",
    "remembers": "The tests still show that it has seen your images.",
    "over_forgets": "It now treats your images as stranger than images that it has never seen, which can give away that they were used.",
    "different": "It still differs from such a model, though not by knowing your images better.",
    "cannot_tell": "The tests could not decide it: there were too few images or models to compare with.",
    REFERENCE_UNFIT: "There was no suitable model to compare it with, so we can't say.",
}
ACTS = {
    "received": "your request was entered",
    "unlearned": "a model was changed so that it forgets your images",
    "evaluated": "it was tested",
    "approved": "it was accepted in place of the model that had learned your images",
    "erased": "your images and what had been made from them were deleted",
    "verified": "everything within reach was searched again",
}
STORES = {
    "workspace": "the folder in which the model was changed",
    "source": "the collection of images",
    "mlflow": "the record of experiments",
    "dvc": "the archive of earlier versions",
}
STEPS = {
    "delete": "deleted",
    "rewrite without them": "changed, so that nothing of your images is in {it} any more",
    "replace by the accepted result": "replaced by the model that was changed",
}
THINGS = {"source": ("file", "files"), "workspace": ("file or folder", "files or folders"), "mlflow": ("entry", "entries")}
COPIES = ("copy", "copies")  # what else a store has
BARS = " ▁▂▃▄▅▆▇█"


def html(card: Card) -> str:
    """Render a card as one HTML page."""
    return (
        _environment(True)
        .get_template("card.html.jinja")
        .render(**_variables(card, str), figure=histograms.loss_histograms(_series(card), card["loss"]["log10_edges"]))
    )


def person(card: Card) -> str:
    """Render the page for the person whose images they were, from a card with its section on the erasure."""
    plain = PLAIN.get(card["verdict"] or "", PLAIN[REFERENCE_UNFIT])
    deleted = [_in_plain_words(line) for line in card["erasure"]["places"]]
    return _environment(True).get_template("person.html.jinja").render(card=card, plain=plain, acts=ACTS, deleted=deleted)


def _in_plain_words(line: Mapping[str, Any]) -> str:
    """What was done to one kind of place on one day, for a person who knows nothing of stores."""
    one, many = THINGS.get(line["store"], COPIES)
    step = STEPS.get(line["step"], line["step"]).format(it="it" if line["places"] == 1 else "them")
    return (
        f"{line['date']}: in {STORES.get(line['store'], line['store'])}, {line['places']:,} {one if line['places'] == 1 else many} {step}"
    )


def markdown(card: Card) -> str:
    """Render a card as Markdown."""
    return _environment(False).get_template("card.md.jinja").render(**_variables(card, escape_markdown))


@cache
def _environment(escaped: bool) -> Environment:
    return environment(
        escaped,
        bars=bars,
        says=conclusion,
        markdown=escape_markdown,
        seeds=seed_aggregation.seed_range,
        target=lambda target: TARGETS.get(target, target),
    )


def _variables(card: Card, as_shown: Callable[[str], str]) -> dict[str, Any]:
    """What the templates fill in; `as_shown` makes a class's name one of the page."""
    classes = list(card["request"]["classes"].items())
    named = ", ".join(f"{as_shown(name)} {count:,}" for name, count in classes[:CLASSES])
    more = f" and {len(classes) - CLASSES} more classes" if len(classes) > CLASSES else ""
    request = card["request"]
    more += f"{', ' if named else ''}classes not named {request['other_classes']:,}" if request["other_classes"] else ""
    more += f" (a class is named if the request has at least {request['smallest_class']:,} images of it)"
    groups = [(about, list(lines)) for about, lines in groupby(card["measures"], lambda line: line["about"])]
    curves = {what: CURVES[what] for what in card["loss"]["of"]}
    sizes = card["data"]["images"] | {"forget": request["images"]}
    copied = [f"{line}." for line in copies.sentences(card["copies"], sizes)]
    counted = "" if card["says"]["kind"] == REFERENCE_UNFIT else tally(card["tally"], card["measures"])
    return {
        "card": card,
        "classes": named + more,
        "groups": groups,
        "curves": curves,
        "tally": counted,
        "copied": copied,
        "beyond": narrative.beyond_chance(card["alarm"]),
    }


def tally(counts: Mapping[str, Any], lines: Sequence[Mapping[str, Any]] = ()) -> str:
    """Summarise the measures that discriminate, and those by which the model differs, each by itself.

    Args:
        counts: what the card counts (`able`, `differ`).
        lines: of its measures.

    Returns:
        One sentence, or two, each after a space.

    >>> tally({"able": 12, "differ": ["mia.svc", "klom"]})
    ' Each taken by itself, 2 of the 12 measures that can discriminate here differ from the retrained model: mia.svc, klom.'
    >>> tally({"able": 0, "differ": []}, [{"id": "accuracy.retain", "power": False, "apart": True}])[71:]
    ' From the retrained model this one differs in accuracy.retain.'
    """
    others = [line["id"] for line in lines if line["power"] is False and line["apart"]]
    also = f" Of the others, {', '.join(others)} differ{'s' if len(others) == 1 else ''}." if others else ""
    if not counts["able"] and not counts["differ"]:
        differing = f" From the retrained model this one differs in {', '.join(others)}." if others else ""
        return f" No measure below separates the original from the retrained model here.{differing}"
    differ, able = counts["differ"], number(counts["able"])
    few = f"{len(differ) or 'none'} of the {able} measures that can discriminate here"
    return f" Each taken by itself, {few} differ from the retrained model{': ' if differ else ''}{', '.join(differ)}.{also}"


def _series(card: Card) -> list[tuple[str, str, str, Sequence[float]]]:
    return [(*CURVES[what], got["percent"]) for what, got in card["loss"]["of"].items()]


def bars(percent: Sequence[float], highest: float) -> str:
    """Draw a histogram in one line of text, in eighths of the highest bin of all histograms.

    Args:
        percent: share of the images in each bin.
        highest: the highest bin of all histograms, in percent.

    Returns:
        One character per bin; a bin that is not empty gets at least one eighth.
    """
    return "".join(BARS[max(round(8 * value / highest), 1 if value > 0 else 0)] for value in percent)


def conclusion(line: Mapping[str, Any]) -> str:
    """What a measure shows: whether the model differs from the retrained one, or, of forgetting, that it can't show it here.

    A measure on retain, validation or test is not asked to tell the original from the retrained model: both should know these images."""
    if line["id"] == "share_of_retrain" and line["model"]["value"] > LARGEST_SHARE:
        return f"above {LARGEST_SHARE:g}"
    if line["power"] is False and not line["apart"] and not _of_usefulness(line["id"]):
        return "cannot discriminate"
    return {None: "", False: "as retrained", True: "differs from retrained"}[line["apart"]]


def _of_usefulness(id_: str) -> bool:
    """Whether a part is of images that every model should know, and no class of theirs was to be forgotten."""
    parts = id_.split(".")
    return "forgotten_classes" not in parts and any(part in SPLITS and part != "forget" for part in parts)
