"""Which cards on disk are of an earlier result. To make a card takes tables and MLflow, so no other command does it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lethe._util.errors import UserError
from lethe._util.files import read_json, short
from lethe._util.integrity import digest_file
from lethe._util.log import log
from lethe.models import checkpoint
from lethe.workspace import repair
from lethe.workspace.pseudonyms import existing
from lethe.workspace.workspace import Prepared


def outdated(prepared: Prepared, names: Iterable[str]) -> dict[Path, str]:
    """Find the cards of the present request whose result, or its scores, have been replaced since.

    Args:
        prepared: the images and splits.
        names: of the results.

    Returns:
        Path of the card's JSON -> what it is, and the command that makes it again. Cards that can't be read are passed over.
    """
    layout, hashed = prepared.layout, existing(prepared.config)
    if hashed is None or not layout.cards.is_dir():
        return {}
    request = short(hashed.of_request([prepared.images.ids[i] for i in prepared.splits["forget"]]))
    found: dict[Path, str] = {}
    for name in names:
        card, model, scores = layout.card(name, request), layout.weights(name), layout.scores(name)
        path = card.with_name(f"{card.name}.json")
        with suppress(UserError, KeyError, TypeError, AttributeError):
            content = read_json(path) if path.exists() else {}
            replaced = path.exists() and model.exists() and content["models"]["result"]["weights"] != checkpoint.model_hash(model)
            if stated := content.get("scores"):  # which cards of earlier versions lack
                replaced = replaced or not scores.exists() or stated["file"] != hashed.of_hash(digest_file(scores))
            if replaced:
                found[path] = f"is of an earlier result; `{repair.maker(layout, path)}` makes it again"
    return found


def log_outdated(prepared: Prepared, names: Iterable[str]) -> None:
    """Log a line for each card that is of an earlier result.

    Args:
        prepared: the images and splits.
        names: of the results that may be new.
    """
    for path, said in outdated(prepared, names).items():
        log(f"{path.with_name(f'{path.stem}.html')} {said}")
