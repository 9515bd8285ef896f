"""`card --verify FILE --run.workspace FOLDER`: a card against the logits tables and the ledger of its workspace.

The seal of a card shows an edit by whoever does not write another seal. Here every number is computed again from the tables."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.config.loader import Config
from lethe.reporting import card_seal
from lethe.reporting.card_content import make_card
from lethe.workspace import erased, ledger, pseudonyms
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing
from lethe.workspace.pseudonyms import Pseudonyms
from lethe.workspace.workspace import Prepared

SHOWN = 10  # differences that are printed
# What the tables do not show: when the card was written, and what is compared by itself
_OWN = ("date", "seal", "ledger", "scores", "erasure")


def verify(config: Config, file: Path) -> int:
    """Check a card's seal, and compare it with the tables and the ledger of its workspace; print what differs.

    Args:
        config: names the workspace.
        file: the card's JSON.

    Returns:
        0 if nothing differs, 1 otherwise.

    Raises:
        UserError: the file is no card, or one of another workspace.
    """
    whole, said = card_seal.check(file)
    print(f"{file}: {said}")
    if not whole:
        return 1
    card = read_json(file)
    hashed = pseudonyms.existing(config)
    try:
        request, name = card["request"], str(card["method"])
        if hashed is None or request.get("key") != hashed.key_id:
            raise UserError(f"{file} is not a card of {config.workspace}: its ids are hashed with another secret than that workspace has")
        faults = [*_by_ledger(config, card, hashed)]
        prepared = _of_request(config, request, hashed)
        faults += differences(card, make_card(prepared, name, recompute=True)) if prepared else []
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a card as this version writes it: it lacks {error}") from None
    for fault in faults[:SHOWN]:
        print(f"{file}: {fault}")
    if len(faults) > SHOWN:
        print(f"{file}: and {len(faults) - SHOWN} more")
    if faults:
        return 1
    compared = "every number is what its logits tables show, and " if prepared else "its request is not the workspace's present one; "
    print(f"{file}: {compared}its result is the one that the ledger has")
    return 0


def _of_request(config: Config, request: Mapping[str, Any], hashed: Pseudonyms) -> Prepared | None:
    """The workspace, configured as the card was made; None if it holds another request now, or this one was erased."""
    if request["hash"] in {one.request for one in erased.read(config)}:
        return None
    shown = {"smallest_class": request["smallest_class"], "thumbnails": len(request["thumbnails"])}
    prepared = load_existing(replace(config, card=config.card.model_copy(update=shown)))
    ids = [prepared.images.ids[i] for i in prepared.splits["forget"]]
    return prepared if hashed.of_request(ids) == request["hash"] else None


def _by_ledger(config: Config, card: Mapping[str, Any], hashed: Pseudonyms) -> Iterator[str]:
    """What the ledger contradicts: its line that the card names, and the weights and score file of its result."""
    if (named := card["ledger"]) and named not in ledger.heads(config):
        yield f"ledger is {named[:12]}, and no line of {Layout(config.workspace).ledger} has this hash"
    events = [event for event in ledger.read(config) if event["event"] == "evaluated" and event["request"] == card["request"]["hash"]]
    events = [event for event in events if event["method"] == card["method"]]
    if events and card["models"]["result"]["weights"] not in {event["weights"] for event in events}:
        yield "models.result.weights is of no model that the ledger says was evaluated for this request"
    elif events and card["scores"]["file"] not in {hashed.of_hash(event["scores"]) for event in events}:
        yield "scores.file is of no score file that the ledger has for this result"


def differences(card: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over what a card states otherwise than the files of its workspace.

    Args:
        card: its content.
        computed: the content of the card that the files give now.

    Yields:
        A line for each value. How to reproduce the result is compared only where both name the same MLflow run.
    """
    shown, found = dict(leaves(card)), dict(leaves(computed))
    same_run = shown.get("reproduce.about.run") == found.get("reproduce.about.run")
    for path in dict.fromkeys([*shown, *found]):
        if path.partition(".")[0] in _OWN or (path.startswith("reproduce") and not same_run):
            continue
        if shown.get(path) != found.get(path):
            yield f"{path} is {_brief(shown.get(path))} on the card; by the workspace's files it is {_brief(found.get(path))}"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the values of parsed JSON with their dotted paths; entries that have an id by that.

    Args:
        value: what json.loads returns.
        path: of `value` itself.

    Yields:
        Path and value of everything that is neither an object nor a list.
    """
    if isinstance(value, Mapping):
        items = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(one["id"]) if isinstance(one, Mapping) and "id" in one else str(n), one) for n, one in enumerate(value)]
    else:
        yield path, value
        return
    for key, one in items:
        yield from leaves(one, f"{path}.{key}" if path else key)


def _brief(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
