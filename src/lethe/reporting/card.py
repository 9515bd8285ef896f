"""The unlearning card: what was deleted, how well, how certain that is, and what was not examined. One for each method and request.

card_content.py collects the content as one JSON value; card_page.py renders that value and reads nothing else. Cards are stored in
cards/, which no DVC stage empties: cards of past requests are kept, and are found by an image's id."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest, read_json, short, user_path
from lethe._util.log import log
from lethe.config.describe import unknown_method
from lethe.config.loader import Config
from lethe.data import id_table, splits
from lethe.data.id_lookup import is_absolute
from lethe.evaluation import seed_aggregation
from lethe.models import checkpoint
from lethe.reporting import card_erasure, card_page, card_seal
from lethe.reporting.card_content import make_card
from lethe.tracking.run_log import RunLog
from lethe.workspace import erased, ledger, pseudonyms
from lethe.workspace.layout import Layout
from lethe.workspace.plan import planned_results
from lethe.workspace.prepare import load_existing
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared

LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")  # endings that no id of an image has


def write_cards(config: Config, names: Sequence[str] = ()) -> None:
    """Write cards/<method>-<request>.{json,md,html} of methods, or of each link of a chain, and log them to their MLflow runs.

    Nothing is written before all three are complete.

    Args:
        config: the configuration.
        names: methods, or `all` that have a result; none: the configured one.

    Raises:
        UserError: files of the method are missing or do not belong together; names the command that fixes it.
    """
    if unknown := [name for name in names if name not in (*config.methods, "all")]:
        raise unknown_method(unknown[0], (*config.methods, "all"))
    _require_images(config)
    with_scores = [name for name in config.methods if Layout(config.workspace).scores(name).exists()]
    methods = [*(with_scores if "all" in names else names)] or [config.method]
    names = [str(run) for method in methods for run in planned_results(replace(config, method=method))]
    for name in names:
        _require_files(config, name)
    prepared, key = load_existing(config), config.card.signing_key
    for name in names:
        content = card_seal.sealed(make_card(prepared, name), config.path(key) if key else None)
        path = prepared.layout.card(name, short(content["request"]["hash"]))
        pages = {".json": json.dumps(content, indent=1) + "\n", ".md": card_page.markdown(content), ".html": card_page.html(content)}
        for suffix, text in pages.items():
            with atomic_write(path.with_name(path.name + suffix)) as temporary:
                temporary.write_text(text, encoding="utf-8")
            _plain_hashed(prepared, name).with_suffix(suffix).unlink(missing_ok=True)
        metadata = checkpoint.metadata(prepared.layout.logits(name))
        result = seed_aggregation.result(content["models"]["result"]["weights"], metadata)
        with RunLog.join(config.workspace, tags={"method": name, "result": result}) as run:
            for suffix, text in pages.items():
                run.text(f"card/{path.name}{suffix}", text)
        print(f"{path}.html")


def _require_images(config: Config) -> None:
    """Check that the images of the request are there, without which nothing that a card is made from is left.

    Raises:
        UserError: they were erased; the message says when, and names the cards that were made before.
    """
    erased.require_finished(config)
    layout, erasures = Layout(config.workspace), erased.read(config)
    if not (erasures and layout.splits.is_dir() and splits.count(layout.splits, "forget") == 0):
        return
    last = erasures[-1]
    noted = [entry["at"][:10] for entry in ledger.read(config) if (entry["event"], entry["request"]) == ("erased", last.request)]
    days = noted or [place[-1] for place in last.places]
    cards = [path.with_suffix(".html") for path in card_erasure.of_request(config, last)]
    cards += [page for page in (layout.cards / f"person-{short(last.request)}.html",) if page.exists()]
    there = f"what was made before is {', '.join(map(str, cards))}" if cards else "none was made before"
    when = f" on {max(days)}" if days else ""
    raise UserError(f"the images of the last request in {layout.root} were erased{when}, so no card of it can be made; {there}")


def _plain_hashed(prepared: Prepared, name: str) -> Path:
    """The card of the same run and request as earlier versions wrote it, with hashes by which its ids can be found: it is replaced."""
    path = prepared.layout.card(name, short(digest(sorted(prepared.images.ids[i] for i in prepared.splits["forget"]))))
    return path.with_name(f"{path.name}.json")


def _require_files(config: Config, name: str) -> None:
    """Check that the files of a run exist, before anything is read or fetched."""
    layout = Layout(config.workspace)
    again = {stage: repair_command(stage, config, method=RunId.parse(name).key) for stage in ("unlearn", "evaluate")}
    if not layout.exists(name):
        raise UserError(f"{layout.root} holds no run of {name}; {again['unlearn']} creates one")
    for path in (layout.logits(name), layout.scores(name)):
        if not path.exists():
            raise UserError(f"{path} does not exist; {again['evaluate']} creates it")


def list_cards(config: Config, named: str) -> None:
    """Print every card whose request names an image, or one of several, newest first.

    Args:
        config: the workspace.
        named: the image's id or path, or a file of ids; cards hold pseudonyms of ids only, which the workspace's secret leads to.

    Raises:
        UserError: there is none, or no such file.
    """
    folder, lines, locked = Layout(config.workspace).cards, [], 0
    hashed, ids = pseudonyms.existing(config), _named(config, named)
    for path in sorted(folder.rglob("*.json")):
        content = read_json(path)
        try:
            key, sought = content["request"].get("key"), {short(digest([id_])) for id_ in ids}  # plain in cards of earlier versions
            if key is not None:
                if hashed is None or key != hashed.key_id:
                    locked += 1
                    continue
                sought = set(map(hashed.of_id, ids))
            if not sought.isdisjoint(content["request"]["ids"]):
                summary = content["alarm"] or content["says"]["head"]
                cells = (content["date"], content["method"], short(content["request"]["hash"]), summary)
                lines.append((*cells, str(path.with_suffix(".html"))))
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is not a card: it lacks request, method, date or verdict; remove it from {folder}") from None
    if locked:
        log(f"{locked} cards in {folder} have ids hashed with another secret than this workspace has, and can't be searched")
    if not lines:
        again = repair_command("report", config).replace("report.py", "report.py card", 1)
        raise UserError(f"{named}: no card in {folder} is of a request that names it; {again} creates the card of the present request")
    for line in sorted(lines, reverse=True):
        print("  ".join(line))


def _named(config: Config, word: str) -> list[str]:
    """The ids that a word of the command line stands for: an id, the path of an image below data.root, or a file of ids."""
    path, root = config.path(user_path(word)), config.path(config.data.root) if config.data.root else None
    is_list = path.suffix.lower() in LISTS and path.is_file()  # which may lie among the images
    if root and path.is_relative_to(root) and path != root and not is_list:
        return [path.relative_to(root).as_posix()]
    if path.is_file():
        return [name for name, _ in id_table.read(path, "list").names]
    if is_absolute(word) or word.startswith(("~", "./", "../")) or path.suffix.lower() in LISTS:
        raise UserError(f"list is {word} (no such file); it takes the id of one image, e.g. --list train/5940, or a file of ids")
    return [word]
