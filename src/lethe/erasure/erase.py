"""`erase`: the plan, its execution, and the check. A killed execution is finished by the same command.

Order: the journal first (workspace/erased.py), then a copy of the accepted weights, then every place in any order, each of them whole or
not at all, and last the original, which is replaced by the accepted weights."""

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lethe._util import in_use, manifest
from lethe._util.checkout import root, send_command
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import read_json, short
from lethe._util.log import log
from lethe._util.redact import without_secrets
from lethe.config.loader import STAGE, Config
from lethe.data.splits import count
from lethe.erasure import other_workspaces
from lethe.erasure.dvc_objects import DvcObjects, check_kept
from lethe.erasure.git_objects import GitObjects
from lethe.erasure.mlflow_models import MlflowModels, renew_cards
from lethe.erasure.sought import Sought
from lethe.erasure.source_files import SourceFiles
from lethe.erasure.stores import REPLACE, YOURS, Place, Store
from lethe.erasure.workspace_files import WorkspaceFiles, all_models, relist
from lethe.evaluation.verdict.words import CANNOT_TELL, DIFFERENT, OVER_FORGETS, REFERENCE_UNFIT, REMEMBERS, Verdict
from lethe.models import checkpoint
from lethe.reporting import card_erasure, card_files
from lethe.tracking.outbox import is_held
from lethe.workspace import erased, ledger, repair, scores
from lethe.workspace.erased import Erasure
from lethe.workspace.layout import Layout
from lethe.workspace.plan import planned_results
from lethe.workspace.prepare import load_existing
from lethe.workspace.provenance import matches
from lethe.workspace.pseudonyms import existing, pseudonyms
from lethe.workspace.settings import is_checkout, record_erasure, repair_command

if TYPE_CHECKING:
    from torch import Tensor

AGAINST = {  # what speaks against accepting a result, by the word of its verdict
    REMEMBERS: "it does not satisfy a deletion request, so unlearn by another method, or further, before you accept it",
    OVER_FORGETS: "the images can be identified by what it no longer knows, so unlearn by another method, or less, before you accept it",
    DIFFERENT: "whoever has a retrained model can distinguish the two, so read its scores before you accept it",
    CANNOT_TELL: "much of the memory may be left, so read in its scores what it would take to tell before you accept it",
    REFERENCE_UNFIT: "nothing shows that it forgot the images, so have it compared with a valid retrained model before you accept it",
}
ALWAYS = "clones, backups, printed pages, and exports that were handed on"


def plan(config: Config, source: bool = False, keep: Sequence[str] = ()) -> int:
    """Print every place that holds images of the request, their ids, or a model that learned them. Nothing is changed.

    Args:
        config: names the workspace and, as its method, the result that is accepted.
        source: whether the files of the images' source are to be erased, too.
        keep: remotes and caches of DVC that are left alone.

    Returns:
        The exit code, 0 whatever was found.

    Raises:
        UserError: the result does not exist, or was not evaluated.
    """
    check_kept(keep)
    erasure = _begun(_unfinished(config), source) or _planned(config, source)
    keep = _kept(erasure, keep)
    stores = _stores(config, erasure, keep)
    places = [place for store in stores for place in store.find()]
    _print(places)
    for line in _unreachable(stores, places):
        log(f"not reached from here: {line}")
    log(f"{len(places)} places, {sum(place.size for place in places):,} bytes; nothing was changed; {_again(config, erasure, keep)} erases")
    return 0


def erase(config: Config, source: bool = False, keep: Sequence[str] = ()) -> int:
    """Erase the images of the request everywhere, or finish an erasure that was interrupted.

    Args:
        config: names the workspace and, as its method, the result that is accepted and becomes the original.
        source: whether the files of the images' source are erased, too.
        keep: remotes and caches of DVC that are left alone.

    Returns:
        0 if nothing is left, 1 if something is, which is printed.

    Raises:
        UserError: the result does not exist, or was not evaluated.
        RunFailed: a place could not be erased, records for MLflow are not sent, or another command works in the workspace.
    """
    check_kept(keep)
    layout = Layout(config.workspace)
    lock = layout.lock("erase")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0), in_use.alone(layout.root):
            return _erase(config, layout, source, keep)
    except Timeout:
        raise RunFailed(f"another process erases in {layout.root}") from None


def check(config: Config, keep: Sequence[str] = ()) -> int:
    """Search all stores again for what was erased from this workspace, and print what is left.

    Args:
        config: names the workspace.
        keep: remotes and caches of DVC that are not searched, besides those that the erasures left alone.

    Returns:
        0 if nothing is left, 1 otherwise.

    Raises:
        UserError: nothing was erased yet.
    """
    check_kept(keep)
    erasures = erased.read(config)
    if not erasures:
        raise UserError(f"nothing was erased in {config.workspace} yet, so there is nothing to check")
    keep = tuple(dict.fromkeys([*(kept for one in erasures for kept in one.keep), *map(without_secrets, keep)]))
    left = _check(config, erasures, keep)
    for line in other_workspaces.holding(config, Sought(erasures, pseudonyms(config), config.data.image_size)):
        log(f"not reached from here: {line}")
    for kept in keep:
        log(f"not searched: {kept}, which is kept (--keep)")
    if one := erased.pending(config):
        log(f"the erasure is not finished; {_again(config, one, _kept(one, keep))} finishes it")
        return 1
    for one in erasures:
        ledger.append(config, "verified", one.request, left=len(left))
    return 1 if left else 0


def _erase(config: Config, layout: Layout, source: bool, keep: Sequence[str]) -> int:
    begun = _unfinished(config)
    if begun is None:
        _require_sent(layout)
    erasure = _begun(begun, source) or _planned(config, source)
    keep = _kept(erasure, keep)
    if erasure.state == erased.PENDING:
        erasure = replace(erasure, keep=keep)
    if erasure != begun:
        _note(config, erasure)
    ledger.append_once(config, "approved", erasure.request, method=erasure.method, weights=erasure.accepted)
    _accept(layout, erasure)
    stores = _stores(config, erasure, keep)
    found = [(store, place) for store in stores for place in store.find() if place.step != YOURS]
    erasure = _noted(config, erasure, [place for _, place in found])
    carry_out(sorted(found, key=lambda one: one[1].step == REPLACE))  # those last: from then on nothing here remembers
    if erasure.source:
        relist(config)
    weights = _relative(layout.accepted(short(erasure.request)))
    record_erasure(config, _data_hash(layout), weights)
    if is_checkout(layout.root):
        log(f"set pretrain.checkpoint: {weights} in params.yaml, and the next request in data.forget")
    erasures = [one if one.state == erased.DONE else one.done() for one in erased.read(config)]
    left = _check(config, erasures, keep)
    ledger.append_once(config, "erased", erasure.request, images=erasure.images, left=len(left), data=_data_hash(layout))
    unreachable = list(_unreachable(stores, left))
    if page := card_erasure.record(config, erasure, left=len(left), unreached=len(unreachable)):
        log(f"for the person whose images they were: {page}")
    try:
        renew_cards(config, erasure)
    except RunFailed as error:
        log(f"MLflow's copy of the card is as it was: {error}; the same command renews it later")
    erased.write(config, erasures)
    manifest.settle(layout.root)
    for line in unreachable:
        log(f"not reached from here: {line}")
    return 1 if left else 0


def carry_out(places: Sequence[tuple[Store, Place]]) -> None:
    """Erase places, one after the other. What another store than the workspace refuses is left, and is said; the check finds it.

    Args:
        places: each with the store that has it.

    Raises:
        RunFailed: a file of the workspace could not be erased: it is not finished then.
    """
    for store, place in places:
        log(f"{place.step}: {place.name}")
        try:
            store.erase(place)
        except RunFailed as error:
            if store.name == WorkspaceFiles.name:
                raise
            log(f"not done: {error}")


def _noted(config: Config, erasure: Erasure, places: Sequence[Place]) -> Erasure:
    """Note what is about to be erased in the journal, which the card reports: a killed command has erased it in part."""
    hashed, today = pseudonyms(config), datetime.now(UTC).date().isoformat()
    known = {(key, step) for key, _, step, _, _ in erasure.places}
    rows = [[short(hashed.of_hash(place.name)), place.store, place.step, place.size, today] for place in places]
    new = [row for row in rows if (row[0], row[2]) not in known]
    if not new:
        return erasure
    derived = tuple(dict.fromkeys([*erasure.derived, *(place.derived for place in places if place.derived)]))
    noted = replace(erasure, places=(*erasure.places, *new), derived=derived)
    _note(config, noted)
    return noted


def _note(config: Config, erasure: Erasure) -> None:
    erased.write(config, [*(one for one in erased.read(config) if one.request != erasure.request), erasure])


def _kept(erasure: Erasure, keep: Sequence[str]) -> tuple[str, ...]:
    """What is left alone: what the command names, and what the one before named that it finishes."""
    before = erasure.keep if erasure.state == erased.PENDING else ()
    return tuple(dict.fromkeys([*before, *map(without_secrets, keep)]))


def _check(config: Config, erasures: Sequence[Erasure], keep: Sequence[str]) -> list[Place]:
    hashed = existing(config)
    if hashed is None:
        raise UserError(f"{config.workspace} has lost its secret, by which erased images are found; restore it from a backup")
    sought = Sought(erasures, hashed, config.data.image_size)
    stores = _all_stores(config, sought, None, erases=False, keep=keep)
    log(f"searching again for what is left, which may take minutes: {', '.join(store.name for store in stores)}")
    left = [place for store in stores for place in store.check()]
    _print(left)
    images = sum(one.images for one in erasures)
    result = f"{len(left)} places still hold something" if left else "nothing is left in what was searched"
    log(f"{images:,} erased images: {result}")
    log(sought.nearness)
    for name, what in sought.unread.items():
        log(f"not looked into: {name}: {what}")
    return left


def _unfinished(config: Config) -> Erasure | None:
    """The erasure that was interrupted; else the last one as long as there is no next request: a store may have been away."""
    last = erased.read(config)[-1:]
    splits = Layout(config.workspace).splits
    closed = last and splits.is_dir() and count(splits, "forget") == 0
    return erased.pending(config) or (last[0] if closed else None)


def _begun(erasure: Erasure | None, source: bool) -> Erasure | None:
    """An erasure that goes on; with the source's files if the command asks for them, though the one that began it did not."""
    return erasure and replace(erasure, source=erasure.source or source)


# --- what is planned --------------------------------------------------------------------------------------------------


def _planned(config: Config, source: bool) -> Erasure:
    """Describe the erasure that the configuration asks for; the accepted result must exist, fit the request and have scores. A card of an
    earlier result is named, for what cards are made from is erased."""
    prepared = load_existing(config)
    layout, results = prepared.layout, planned_results(config)
    if len(results) > 1:
        raise UserError(f"method is {config.method}, a chain of {len(results)} runs; erase takes the method of one result")
    name = str(results[0])
    again = {stage: repair_command(stage, config, method=name) for stage in ("unlearn", "evaluate")}
    path = layout.weights(name)
    if not path.exists():
        others = [run for run in layout.with_scores() if run.key not in STAGE and not run.chain and layout.weights(run).exists()]
        there = f"; there are results of {', '.join(dict.fromkeys(run.method for run in others))}, which --method names" if others else ""
        raise UserError(f"{path} does not exist{there}; {again['unlearn']} makes the result that takes the original's place")
    if not matches({key: prepared.hashes[key] for key in ("data", "split")}, checkpoint.metadata(path)):
        raise UserError(f"{path} was made for another request than {layout.splits} holds; {again['unlearn']} makes it again")
    if not layout.scores(name).exists():
        raise UserError(f"{layout.scores(name)} does not exist; {again['evaluate']} measures the result before it is accepted")
    for card, said in card_files.outdated(prepared, [name]).items():
        log(f"{card} {said}, which can't be done after the erasure")
    log(f"{name}, which takes the original's place: {accepts(scores.read(layout.scores(name)).verdict)}")
    accepted, tensors = checkpoint.model_hash(path), checkpoint.load(path)[0]
    models: dict[str, str] = {}
    for other in all_models(layout):
        about, hash_ = checkpoint.metadata(other), checkpoint.model_hash(other)
        clean = about.get("kind", "").startswith("retrained") and about.get("retain") == prepared.hashes["retain"]
        if hash_ != accepted and not clean:
            models[hash_] = _telling(checkpoint.load(other)[0], tensors)
    hashed = pseudonyms(config)
    known = {"method": name, "accepted": accepted, "source": source}
    erasure = erased.new(prepared, hashed, models=models, tensors=[one for one in models.values() if one], **known)  # type: ignore[arg-type]
    card = layout.card(name, short(erasure.request))
    card = card.with_name(f"{card.name}.json")  # the name of a method may have a dot
    if not card.exists():
        makes = f"`{repair.maker(layout, card)}` makes it"
        log(f"no card of {name} exists, and after the erasure neither it nor the page for the person can be made; {makes}")
    return erasure


def accepts(verdict: Verdict | None) -> str:
    """Say in words what it means to accept a result with this verdict.

    Args:
        verdict: of the result; None: it has none.

    Returns:
        The verdict, and after a semicolon what speaks against accepting it; nothing where nothing does.
    """
    if verdict is None:
        return f"no verdict; {AGAINST[REFERENCE_UNFIT]}"
    return "; ".join(filter(None, (verdict.head.lower(), AGAINST.get(verdict.word))))


def _telling(model: "Mapping[str, Tensor]", accepted: "Mapping[str, Tensor]") -> str:
    """SHA-256 of the largest tensor of a model that the accepted one does not share; "" if they share all."""
    own = [value for name, value in model.items() if name not in accepted or not value.equal(accepted[name])]
    largest = max(own, key=lambda value: value.numel(), default=None)
    return "" if largest is None else hashlib.sha256(largest.contiguous().reshape(-1).numpy().tobytes()).hexdigest()


def _require_sent(layout: Layout) -> None:
    for each in (layout, *(Layout(layout.original_runs(seed)) for seed in layout.original_seeds())):
        waiting = [*each.outbox.glob("*/")]
        if any(map(is_held, waiting)):
            raise RunFailed(f"another command is running in {layout.root}; erase takes a workspace in which none is")
        if waiting:
            sends = f"`{send_command(each.root)}` sends them"
            raise RunFailed(f"{each.outbox} holds records that MLflow does not have yet, with models in them; {sends}")


def _accept(layout: Layout, erasure: Erasure) -> None:
    """Keep a copy of the accepted weights that no later run of the method replaces."""
    path = layout.accepted(short(erasure.request))
    if path.exists():
        return
    tensors, metadata = checkpoint.load(layout.weights(erasure.method))
    kept = {key: metadata[key] for key in ("architecture", "recipe", "seed") if key in metadata}
    checkpoint.save_model(tensors, path, {"kind": "accepted", "request": erasure.request} | kept)


def _data_hash(layout: Layout) -> str:
    return str(read_json(layout.about("train"))["hash"])


def _relative(path: Path) -> str:
    """The path as a key takes it: relative to where keys resolve, if it is below."""
    absolute, base = path.resolve(), root().resolve()
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)


# --- stores -------------------------------------------------------------------------------------------------------------


def _stores(config: Config, erasure: Erasure, keep: Sequence[str]) -> list[Store]:
    finished = [one for one in erased.read(config) if one.state == erased.DONE]
    sought = Sought([*finished, erasure], pseudonyms(config), config.data.image_size)
    return _all_stores(config, sought, erasure, erases=erasure.source, keep=keep)


def _all_stores(config: Config, sought: Sought, erasure: Erasure | None, *, erases: bool, keep: Sequence[str]) -> list[Store]:
    git = GitObjects(root(), sought)
    others: list[Store] = [SourceFiles(config, sought, erases), MlflowModels(config, sought), DvcObjects(sought, git, keep), git]
    return [*others, WorkspaceFiles(config, sought, erasure)]


# --- output -------------------------------------------------------------------------------------------------------------


def _print(places: Sequence[Place]) -> None:
    for place in places:
        advice = f" ({place.advice})" if place.advice else ""
        print(f"{place.store:<10} {place.step:<20} {place.size:>12,}  {place.name}: {place.holds}{advice}")


def _unreachable(stores: Sequence[Store], places: Sequence[Place]) -> Iterator[str]:
    """What can't be searched from here. A list or a model that was found where the images are is among the places, and left to the user."""
    listed = {Path(place.name).resolve() for place in places}
    for store in stores:
        yield from store.unreachable(listed)
    yield ALWAYS


def _again(config: Config, erasure: Erasure, keep: Sequence[str]) -> str:
    more = (" --source" if erasure.source else "") + "".join(f" --keep {shlex.quote(one)}" for one in keep)
    return repair_command("erase", config, method=erasure.method).rstrip("`") + f"{more} --yes`"
