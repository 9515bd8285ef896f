"""`verify`: read every file of a workspace, and say which ones are damaged and which belong to nothing."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lethe._util import integrity, manifest
from lethe._util.errors import UserError
from lethe._util.files import OUTBOX, is_half_written, read_json
from lethe.config.loader import Config
from lethe.config.yaml_file import read_yaml
from lethe.data import splits
from lethe.engine import epoch_table
from lethe.evaluation.score import Score
from lethe.evaluation.verdict.words import REFERENCE_UNFIT
from lethe.reporting import card_files, card_seal
from lethe.reporting.card_proof import leaves
from lethe.tracking import outbox_format
from lethe.workspace import artifacts, ledger, repair, scores
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)
KILLED = "left half-written by a killed command; remove it"
LEFT_OUT = "damaged records that were not sent to MLflow; remove it once you have looked at it"


@dataclass(frozen=True)
class Finding:
    """What is known of a file.

    Attributes:
        path: of the file.
        kind: whole: as it was written; unverified: it states no hash of its own; damaged; stray: it belongs to nothing.
        reason: why it is damaged or stray.
    """

    path: Path
    kind: str
    reason: str = ""


def verify(config: Config, recompute: bool = False) -> int:
    """Print every damaged and every stray file of a workspace, and how to make it again.

    Args:
        config: names the workspace.
        recompute: compute every score again from its logits tables, and compare.

    Returns:
        0 if no file is damaged, 1 otherwise.

    Raises:
        UserError: there is no such workspace.
    """
    layout = Layout(config.path(config.run.workspace))
    findings = list(inspect(layout))
    findings = list({each.path: each for each in (*findings, *of_tables(config, recompute))}.values())
    if not findings:
        raise UserError(f"run.workspace is {layout.root}; it takes a folder with the files of a run, and there are none in it")
    count = {kind: sum(each.kind == kind for each in findings) for kind in ("whole", "unverified", "damaged", "stray")}
    for each in findings:
        if each.kind == "damaged":
            print(f"damaged: {each.path}: {each.reason}; {repair.remedy(each.path, layout.root)}")
        elif each.kind == "stray":
            print(f"belongs to nothing: {each.path}: {each.reason}")
    for name, about in manifest.accepted(layout.root).items():
        print(f"accepted: {layout.root / name}: as it is since {about['at']}, by {about['by']}")
    print(
        f"{count['whole']} files are as they were written, {count['unverified']} can be read and state no hash of their own, "
        f"{count['damaged']} damaged, {count['stray']} belong to nothing"
    )
    return 1 if count["damaged"] else 0


def inspect(layout: Layout) -> Iterator[Finding]:
    """Read the files of a workspace, in the order of their paths.

    Args:
        layout: of the workspace. Of a workspace that is also a checkout, only folders that the program writes are looked at.
    """
    for path in sorted(_files(layout)):
        if is_half_written(path):
            yield Finding(path, "stray", KILLED)
            continue
        if path.is_relative_to(layout.damaged):
            yield Finding(path, "stray", LEFT_OUT)
            continue
        look = reader(layout, path)
        try:
            known = manifest.state(path)
            if known is False:
                raise ValueError("it is not what was written: the manifest has other hashes")
            if look or known:
                yield Finding(path, "whole" if (look and look(path)) or known else "unverified")
        except (UserError, *UNREADABLE) as error:
            said = error.reason if isinstance(error, integrity.Damaged) else str(error)
            reason = said.removeprefix(f"{path} ").removeprefix("is damaged: ")
            yield Finding(path, "damaged", " ".join(reason.split()))
    if not layout.ledger.exists() and manifest.noted_heads(layout.ledger):
        yield Finding(layout.ledger, "damaged", "it is missing: the manifest has hashes of its lines")
    yield from _without_model(layout)


def of_tables(config: Config, recompute: bool) -> Iterator[Finding]:
    """Compare the score files of the present request with the logits tables: what these hold, tier and number of retrained models; and its
    cards with the results.

    Args:
        config: names the workspace.
        recompute: compute every score again, too.

    Yields:
        Only what is not as it must be. Files that can't be read, or of another request, are passed over.
    """
    layout = Layout(config.workspace)
    try:
        if not (layout.images.exists() and layout.splits.exists()):
            return
        prepared = load_existing(config)
    except (UserError, *UNREADABLE):
        return
    for path, said in card_files.outdated(prepared, map(str, layout.with_scores())).items():
        yield Finding(path, "stray", f"it {said}")
    for run in map(str, layout.with_scores()):
        with suppress(UserError, *UNREADABLE):
            if layout.weights(run).exists() and artifacts.current_logits(prepared, run) is None:
                continue
            wrong = scores.fault(prepared, run)
            if wrong in (scores.OTHER_TABLES, *scores.OTHER_REQUEST.values()):
                yield Finding(layout.scores(run), "stray", f"it {wrong}; `{repair.maker(layout, layout.scores(run))}` makes it again")
            elif wrong:
                yield Finding(layout.scores(run), "damaged", f"it {wrong}")
            elif recompute and (wrong := _differs(scores.read(layout.scores(run)), scores.recomputed(prepared, run))):
                yield Finding(layout.scores(run), "damaged", wrong)


def _differs(stored: Score, computed: Score) -> str:
    """The first value that a score file holds and its tables do not show; "" if there is none."""
    ours, theirs = (dict(leaves(score.to_json())) for score in (computed, stored))
    own = (integrity.KEY, "of.", REFERENCE_UNFIT)  # the last is a line with a command that depends on the keys of the present one
    apart = [path for path in dict.fromkeys([*theirs, *ours]) if ours.get(path) != theirs.get(path) and not path.startswith(own)]
    if stored.judged and stored.judged.at_random is None:  # of an earlier version, which does not say it
        apart = [path for path in apart if path != "judged.at_random"]
    path = apart[0] if apart else ""
    return f"its {path} is {theirs.get(path, 'missing')}, and by its tables {ours.get(path, 'missing')}" if path else ""


def _files(layout: Layout) -> Iterator[Path]:
    folders = (layout.data, layout.models, layout.all_logits, layout.epochs("-").parent, layout.all_scores, layout.banks, layout.others)
    further = (layout.metrics("-").parent, layout.cards, layout.accepted("-").parent, layout.originals, layout.report)
    remembered = (layout.recipe("-").parent, layout.search("-").parent, layout.clock("-").parent)
    own = (layout.resume, layout.bank_states, layout.other_states, layout.outbox, layout.damaged)
    for folder in (*folders, *further, *remembered, *own):
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    single = (layout.ledger, layout.settings, layout.given, layout.erased, layout.manifest)
    yield from (path for path in single if path.is_file())


def reader(layout: Layout, path: Path) -> Callable[[Path], bool] | None:
    """Return what reads a file of a workspace.

    Args:
        layout: of the workspace.
        path: of the file.

    Returns:
        A function of a path, which returns whether the file states its own hash, or raises; None: nothing is read from such a file.
    """
    if path.is_relative_to(layout.outbox):
        named = {"row.json": _header, "sent.json": _state, "records.jsonl": _records}
        inside = path.relative_to(layout.outbox).parts
        return named.get(inside[-1]) if len(inside) < 3 else _of_outbox
    if path == layout.ledger:
        return _ledger
    if path == layout.manifest:
        return _manifest
    if path == layout.settings:
        return _settings
    if path.suffix == ".safetensors":
        return _tensors
    if path.suffix == ".json":
        return _score if path.is_relative_to(layout.all_scores) else _card if path.is_relative_to(layout.cards) else _json
    if path.suffix == ".csv" and path.parent == layout.splits:
        return None if path.stem == "forget" and layout.erased.exists() else _split  # of an erased request nothing is named
    return _epochs if path.suffix == ".csv" and path.is_relative_to(layout.epochs("-").parent) else None


def _tensors(path: Path) -> bool:
    with safe_open(path, framework="np") as file:
        file.keys()
    return integrity.check(path)


def _json(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and integrity.check_json(content, str(path))


def _score(path: Path) -> bool:
    content = read_json(path)
    Score.from_json(content, str(path))
    return integrity.KEY in content


def _card(path: Path) -> bool:
    whole, said = card_seal.check(path)
    if not whole:
        raise ValueError(said)
    return True


def _split(path: Path) -> bool:
    if not splits.count(path.parent, path.stem):
        raise ValueError("it names no image")
    return False


def _epochs(path: Path) -> bool:
    rows = epoch_table.read_csv(path)
    if [row.get("step") for row in rows] != sorted({row["step"] for row in rows}):
        raise ValueError("its steps do not follow one another")
    return False


def _ledger(path: Path) -> bool:
    _, _, faults = ledger.verify(path)
    if faults:
        raise ValueError("; ".join(f"line {fault.line} {fault.what}" for fault in faults))
    return True


def _manifest(path: Path) -> bool:
    if why := manifest.damage(path.parents[1]):
        raise ValueError(why)
    return True


def _settings(path: Path) -> bool:
    read_yaml(path, str(path))
    return False


def _header(path: Path) -> bool:
    return _of_form(path, outbox_format.is_header)


def _state(path: Path) -> bool:
    return _of_form(path, outbox_format.is_state)


def _of_form(path: Path, fits: Callable[[object], bool]) -> bool:
    content = read_json(path)
    if not fits(content):
        raise ValueError("it does not have the form that this program writes")
    return integrity.check_json(content, str(path))


def _records(path: Path) -> bool:
    *lines, _ = path.read_bytes().split(b"\n")
    if wrong := [str(n) for n, line in enumerate(lines, 1) if not outbox_format.as_record(line)]:
        raise ValueError(f"line {', '.join(wrong[:5])} is no record, or not as it was written")
    with suppress(UserError):  # that of sent.json is said of itself
        state = read_json(path.with_name("sent.json"))
        if outbox_format.is_state(state) and state["sent"] > len(lines):
            raise ValueError(f"it has {len(lines)} records, and {state['sent']} were sent: lines are missing")
    return bool(lines) and all(map(outbox_format.has_digest, lines))


def _of_outbox(path: Path) -> bool:
    """An artifact, or a file of a model, that waits to be sent."""
    folder = next(each for each in path.parents if each.parent.name == OUTBOX.name)
    name, hashes = path.relative_to(folder).as_posix(), outbox_format.stated_hashes(folder / "records.jsonl")
    if wrong := outbox_format.damage(path, name, hashes):
        raise ValueError(wrong)
    return name in hashes


def _without_model(layout: Layout) -> Iterator[Finding]:
    """Results whose model or logits table is gone: nothing reads them again. An erasure leaves scores and takes the tables."""
    for run in layout.with_scores():
        if not layout.logits(run).exists() and not layout.erased.exists():
            yield Finding(layout.scores(run), "stray", f"there is no {layout.logits(run)}")
