"""What a card says once its request is erased: what was deleted where and when, what remains and until when, what had been derived from the
images, and who did what. And the page for the person whose images they were, in plain words.

Nothing here names a file: paths may name people. Places are counted by store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from lethe._util.errors import UserError
from lethe._util.files import read_json, short, write_text
from lethe.config.loader import Config
from lethe.reporting import card_page, card_seal
from lethe.workspace import ledger
from lethe.workspace.erased import Erasure
from lethe.workspace.layout import Layout


def record(config: Config, erasure: Erasure, *, left: int, unreached: int) -> Path | None:
    """Add the erasure to every card of the request, seal them again, and write the page for the person.

    Args:
        config: names the workspace, the key that signs, and what remains elsewhere.
        erasure: what was erased.
        left: number of places that still hold something.
        unreached: number of stores that could not be searched.

    Returns:
        The page, next to the card of the accepted result; None if the request has no card.

    Raises:
        UserError: a card of an earlier version can't be rendered again.
        RunFailed: the disk refuses.
    """
    key = config.card.signing_key
    cards = of_request(config, erasure)
    for path, content in cards.items():
        content |= {"erasure": section(config, erasure, left=left, unreached=unreached), "ledger": ledger.head(config)}
        cards[path] = rewrite(path, content, config.path(key) if key else None)
    chosen = next((path for path, content in cards.items() if content["method"] == erasure.method), next(iter(cards), None))
    if chosen is None:
        return None
    page = chosen.with_name(f"person-{short(erasure.request)}.html")
    write_text(page, card_page.person(cards[chosen]))
    return page


def section(config: Config, erasure: Erasure, *, left: int, unreached: int) -> dict[str, Any]:
    """The card's section on the erasure, as JSON.

    Args:
        config: names the workspace.
        erasure: what was erased.
        left: number of places that still hold something.
        unreached: number of stores that could not be searched.

    Returns:
        Places counted by store, step and date, with their bytes; what was derived from the models; the ledger's entries of the request.
    """
    places: dict[tuple[str, str, str], dict[str, Any]] = {}
    for _, store, step, size, date in erasure.places:
        line = places.setdefault((store, step, date), {"store": store, "step": step, "date": date, "places": 0, "bytes": 0})
        line["places"] += 1
        line["bytes"] += size
    events = [entry for entry in ledger.read(config) if entry["request"] == erasure.request]
    return {
        "method": erasure.method,
        "images": erasure.images,
        "places": [places[which] for which in sorted(places)],
        "derived": [*erasure.derived],
        "left": left,
        "unreached": unreached,
        "remains": [dict(zip(("what", "until"), one.rsplit("=", 1), strict=True)) for one in config.card.remains or ()],
        "events": [{name: entry.get(name, "") for name in ("event", "at", "by")} for entry in events],
    }


def rewrite(path: Path, content: Mapping[str, Any], key: Path | None) -> dict[str, Any]:
    """Write a card that was changed: its seal and all three files.

    Args:
        path: of its JSON.
        content: of the card; an old seal is replaced.
        key: as for `card_seal.sealed`.

    Returns:
        The content with its seal.

    Raises:
        UserError: it can't be rendered, being of an earlier version.
    """
    sealed = card_seal.sealed({name: value for name, value in content.items() if name != "seal"}, key)
    try:
        pages = {".md": card_page.markdown(sealed), ".html": card_page.html(sealed)}
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        TemplateError,
    ) as error:  # a card of an earlier version lacks what the page shows now
        raise UserError(f"{path} can't be rendered again ({error}); delete the card's three files") from None
    for suffix, page in pages.items():
        write_text(path.with_suffix(suffix), page)
    write_text(path, json.dumps(sealed, indent=1) + "\n")
    return sealed


def of_request(config: Config, erasure: Erasure) -> dict[Path, dict[str, Any]]:
    """Return the cards of a request: path of the JSON -> content.

    Args:
        config: names the workspace.
        erasure: of the request.

    Returns:
        By path, in the order of the paths; {} if it has no card.
    """
    read = {path: read_json(path) for path in sorted(Layout(config.workspace).cards.rglob("*.json"))}
    cards = {path: card for path, card in read.items() if isinstance(card, dict) and "hash" in card.get("request", {})}
    return {path: card for path, card in cards.items() if card["request"]["hash"] == erasure.request}
