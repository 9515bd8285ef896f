"""Content of an unlearning card: a JSON value, collected from the files of a workspace and the run's record in MLflow."""

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lethe._util.errors import UserError
from lethe._util.files import digest, short
from lethe._util.integrity import digest_file
from lethe.evaluation import catalogue, chance, logits_table, registry
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import Score
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import KINDS, ResultSet, assess, discriminates
from lethe.models import checkpoint
from lethe.reporting.reproduction import find_run, reproduction, weights_hash
from lethe.workspace import artifacts, copies, ledger, replication, scores
from lethe.workspace.provenance import matches
from lethe.workspace.pseudonyms import KIND, Pseudonyms, pseudonyms
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared

Card = dict[str, Any]

THUMBNAIL = 64  # pixels of the longer side, at most
BINS, LEAST = 30, 1e-6  # of the loss histograms, on a logarithmic scale; losses below LEAST (nats) count as LEAST

LIMITS = {
    0: "There is no retrained model to compare with. This page describes how the model behaves; it can't show whether that is forgetting.",
    1: "Fewer than eight retrained models hardly show how much two of them differ (a single one not at all), so a distance may be noise, "
    "and a small distance proves nothing.",
    2: "At least eight retrained models show how much such models differ. Whether a single image stands out was not examined: that takes "
    "at least 64 of them and as many unlearned ones.",
    3: "At least 64 retrained and 64 unlearned models were compared, image by image. Even this bounds only the attacks that were tried, "
    "not attacks that nobody has thought of yet.",
}
NEAR_COPIES = {
    True: "near copies were looked for by perceptual hashes",
    False: "near copies were not looked for: the images are too small to tell them from others",
}
NOT_TRIED = (
    "The strongest attack available here, which learns from many models that forgot other images (U-LiRA, evaluate.shadows), was not tried."
)
ALWAYS = (
    "Averages over the request say nothing about single images: one may be remembered while the others are forgotten.",
    "Only this result was examined. Copies, older checkpoints, backups and models trained from it are outside the scope of this page.",
    "Retraining is imitated, not performed. If the law or a contract requires retraining, this page does not replace it.",
)


def make_card(prepared: Prepared, name: str, *, recompute: bool = False) -> Card:
    """Collect the content of a run's card.

    Args:
        prepared: the workspace.
        name: the run.
        recompute: compute the scores from the logits tables, whatever the score files hold.

    Returns:
        The content, as JSON, without a seal.

    Raises:
        UserError: files are missing or do not belong together; names the command that fixes it.
    """
    for reference in prepared.config.run.measures or ():
        registry.load(reference)
    tables, all_scores = _read(prepared, name, recompute)
    score = all_scores["model"]
    if score.unfit:  # a model that nothing is compared with
        all_scores.pop("retrained", None)
        tables.pop("retrained", None)
    run = find_run(name, tables["model"])
    lines = measure_lines(all_scores, run)
    if score.unfit:
        lines = [line | {"reference": None, "power": None, "apart": None} for line in lines]
    counts = count_measures(lines)
    hashed = pseudonyms(prepared.config)
    request = _request(prepared, hashed)
    found = copies.counts(prepared)
    copied = copies.sentences(found, {split: len(index) for split, index in prepared.splits.items()})
    return {
        "method": name,
        "date": datetime.now(UTC).date().isoformat(),
        "alarm": score.over_forgetting,
        "seeds": [*score.seeds],
        "originals": _originals(prepared, name),
        "verdict": score.verdict.word if score.verdict else None,
        "says": _says(score) or _verdict(_result_set(prepared, name, all_scores), name),
        "request": request,
        "ledger": ledger.head(prepared.config),
        "copies": {key: found[key] for key in copies.RELATIONS} | {"near": NEAR_COPIES[bool(found["near"])]},
        "data": {"hash": prepared.hashes["data"], "split": hashed.of_hash(prepared.hashes["split"])}
        | {"images": {split: len(index) for split, index in prepared.splits.items() if split != "forget"}},
        "models": _models(prepared, name, tables, hashed),
        "scores": {
            "file": hashed.of_hash(digest_file(prepared.layout.scores(name))),
            "tables": hashed.of_hash(score.contents) if score.contents else "",
        },
        "measures": lines,
        "tally": counts,
        "missing": {id_: result.missing for id_, result in score.measures.items() if result.missing},
        "loss": loss_distributions(tables),
        "tier": score.tier,
        "references": score.references,
        "cannot": [
            f"{score.unfit[0].upper()}{score.unfit[1:]}." if score.unfit else LIMITS[score.tier],
            *([] if any(line["measure"] == "ulira" for line in lines) else [NOT_TRIED]),
            *(f"{line}." for line in copied if "held-out" in line),
            *ALWAYS,
        ],
        "reproduce": reproduction(prepared.config, name, tables, run, request["classes"]),
    }


def _read(prepared: Prepared, name: str, recompute: bool) -> tuple[dict[str, LogitsTable], dict[str, Score]]:
    """Logits tables and scores of `model` and, if they exist, of `original` and `retrained`; checked to belong together."""
    layout, split = prepared.layout, prepared.hashes["split"]
    again = {stage: repair_command(stage, prepared.config, method=RunId.parse(name).key) for stage in ("unlearn", "evaluate")}
    tables, all_scores = {}, {}
    runs = {"model": name, "original": "original", "retrained": "retrained"}
    for which, run in runs.items():
        model, logits = layout.weights(run), layout.logits(run)
        if which != "model" and not logits.exists():
            continue
        foreign = "was made for other splits than data/splits holds"
        if which == "model" and model.exists() and not matches({"split": split}, checkpoint.metadata(model)):
            raise UserError(f"{model} {foreign}; {again['unlearn']} creates it again")
        if not matches({"split": split}, checkpoint.metadata(logits)):
            raise UserError(f"{logits} {foreign}; {again['evaluate' if model.exists() else 'unlearn']} creates it again")
        tables[which] = logits_table.read(logits, run)
        if model.exists() and tables[which].about.get("model") != checkpoint.weights_hash(checkpoint.load(model)[0]):
            raise UserError(f"{logits} was read from other weights than {model} holds; {again['evaluate']} creates it again")
        all_scores[which] = scores.recomputed(prepared, run) if recompute else scores.read(layout.scores(run))
    logits_table.require_same_images(*tables.values())
    hashes = {which: short(weights_hash(table)) for which, table in tables.items()}
    for which, score in all_scores.items():
        known, own = score.tables, hashes | {"model": hashes[which]}
        if "model" not in known or any(own.get(key) != value for key, value in known.items() if key in runs):
            raise UserError(
                f"{layout.scores(runs[which])} belongs to other tables than {layout.all_logits} holds; {again['evaluate']} creates it again"
            )
    if not recompute and all(_as_read_now(prepared, runs[which]) for which in tables):
        for which in all_scores:
            if wrong := scores.fault(prepared, runs[which]):
                raise UserError(f"{layout.scores(runs[which])} {wrong}; {again['evaluate']} creates it again")
    return tables, all_scores


def _as_read_now(prepared: Prepared, run: str) -> bool:
    """Whether a table would not be read anew from its model: one of an earlier version may have been read in another way."""
    return not prepared.layout.weights(run).exists() or artifacts.current_logits(prepared, run) is not None


# --- the verdict ------------------------------------------------------------------------------------------------------


def _result_set(prepared: Prepared, name: str, all_scores: Mapping[str, Score]) -> ResultSet:
    accuracies = {name if which == "model" else which: score.accuracy for which, score in all_scores.items()}
    alarm = all_scores["model"].alarm
    sizes = {split: len(index) for split, index in prepared.splits.items()}
    return ResultSet("", "", "", sizes, accuracies, alarms={} if alarm is None else {name: alarm}, unfit=all_scores["model"].unfit)


def _verdict(results: ResultSet, name: str) -> dict[str, str]:
    """What forget accuracy shows, by the rule of the report; it is "over-forgets" exactly if the alarm is raised."""
    verdict = assess(results, name)
    if verdict is None:
        meaning = "Accuracies say nothing about forgetting without an original and a retrained model."
        return {"kind": "unknown", "head": "Nothing to compare with", "meaning": meaning}
    if not discriminates(results) and not results.alarms.get(name):
        meaning = "Forget accuracy does not separate the original from the retrained model, so it can't judge this model."
        return {"kind": "no power", "head": "Cannot discriminate", "meaning": meaning}
    head, meaning = KINDS[verdict.kind]
    return {"kind": verdict.kind, "head": head, "meaning": meaning}


def _says(score: Score) -> dict[str, str] | None:
    """The verdict in words; None for a score file of an earlier version."""
    judged = score.verdict
    return {"kind": judged.word, "head": judged.head, "meaning": judged.meaning} if judged else None


def _originals(prepared: Prepared, name: str) -> str:
    """What the method's runs from several originals show of forget accuracy, in one sentence; "" without such runs."""
    found = replication.read(prepared, name)
    result = found.measures.get("accuracy.forget") if found else None
    if not found or not result or not result.estimate or result.estimate.low is None:
        return ""
    low, high = result.estimate.ends()
    spread = found.spreads["accuracy.forget"]
    unlearn = "" if spread.unlearn is None else f", {spread.unlearn:.3g} between seeds from one original"
    verdict = f"; the verdict on all of them is: {found.judged.head.lower()}" if found.judged else ""
    return (
        f"The method was also run from other originals ({found.size}): forget accuracy {result.estimate.value:.2f} % on average, 95 % "
        f"interval over originals {low:.2f} to {high:.2f}; variance {spread.train:.3g} between originals{unlearn}{verdict}."
    )


# --- the request ------------------------------------------------------------------------------------------------------


def _request(prepared: Prepared, hashed: Pseudonyms) -> Card:
    """The request, with pseudonyms in place of ids: whoever has the workspace and an id finds its card, but a card leads to no id."""
    images, forget = prepared.images, prepared.splits["forget"]
    ids = sorted(images.ids[i] for i in forget)
    counts = Counter(images.classes[images.labels[i]] for i in forget)
    number, smallest = prepared.config.card.thumbnails, prepared.config.card.smallest_class
    classes, others = named_classes({name: counts[name] for name in images.classes if name in counts}, smallest)
    return {
        "hash": hashed.of_request(ids),
        "hashed_by": KIND,
        "key": hashed.key_id,
        "images": len(ids),
        "of": images.train,
        "classes": classes,
        "other_classes": others,
        "smallest_class": smallest,
        "ids": sorted(map(hashed.of_id, ids)),
        "thumbnails": [_thumbnail(prepared, int(i)) for i in _evenly(sorted(forget, key=lambda i: images.ids[i]), number)],
    }


def named_classes(counts: Mapping[str, int], smallest: int) -> tuple[dict[str, int], int]:
    """Choose the classes that a card names: a class with few images in the request describes the person who asked.

    If the images of the others are fewer than `smallest` in all, the smallest class that would be named joins them: otherwise the only
    class without a name could be guessed.

    Args:
        counts: images of the request by class.
        smallest: number of images from which on a class is named.

    Returns:
        The classes to name, with their numbers of images, and the number of images of all others.

    >>> named_classes({"cat": 30, "dog": 12, "eel": 3}, 10)
    ({'cat': 30}, 15)
    """
    named = {name: number for name, number in counts.items() if number >= smallest}
    others = sum(counts.values()) - sum(named.values())
    if named and 0 < others < smallest:
        others += named.pop(min(named, key=lambda name: named[name]))
    return named, others


def _evenly(items: list[Any], number: int) -> list[Any]:
    """At most `number` items, evenly spaced."""
    return [items[i] for i in sorted({round(at) for at in np.linspace(0, len(items) - 1, min(number, len(items)))})] if number else []


def _thumbnail(prepared: Prepared, index: int) -> dict[str, str]:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(prepared.images.pixels[index].transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    return {"class": prepared.images.classes[prepared.images.labels[index]], "png": base64.b64encode(png.getvalue()).decode()}


# --- models and measures ----------------------------------------------------------------------------------------------


def _models(prepared: Prepared, name: str, tables: Mapping[str, LogitsTable], hashed: Pseudonyms) -> Card:
    """Hashes of each model's weights and, keyed because it holds the ids, of its table; metadata of its file, which may be gone."""
    models: Card = {}
    for which, table in tables.items():
        run = name if which == "model" else which
        path = prepared.layout.weights(run)
        metadata = checkpoint.metadata(path) if path.exists() else {}
        _require_recorded(prepared, run, weights_hash(table), metadata)
        about = {key: metadata[key] for key in ("architecture", "provenance", "seed", "recipe") if key in metadata}
        models["result" if which == "model" else which] = {"weights": weights_hash(table), "logits": hashed.of_hash(table.hash), **about}
    return models


def _require_recorded(prepared: Prepared, run: str, weights: str, metadata: Mapping[str, str]) -> None:
    """Check that a model says of itself what the ledger recorded when it was unlearned, or unlearned from.

    Another run may have the same weights: a method without steps has the original's."""
    events = [event for event in ledger.read(prepared.config) if event["event"] == "unlearned"] if metadata else []
    if run == "original":
        what, stated = "provenance", metadata.get("provenance", "")
        known = {event.get("provenance") for event in events if event["original"] == weights} - {None}
    else:
        what, stated = "recipe", digest([metadata.get("recipe", "")])
        known = {event["recipe"] for event in events if (event["method"], event["weights"]) == (run, weights)}
    if known and stated not in known:
        path = prepared.layout.weights(run)
        raise UserError(f"{path} states another {what} than the ledger has for its weights: one of the two was edited")


def measure_lines(all_scores: Mapping[str, Score], run: Mapping[str, Any] | None) -> list[Card]:
    """Make one line for each measure that has a value, in the order of the catalogue.

    Args:
        all_scores: scores of `model` and, if they exist, of `original` and `retrained`.
        run: the MLflow run of the result, from which cost is taken; None leaves cost out.

    Returns:
        Lines of `measure`, `id`, `about`, `aim`, `interval`; `model`, `reference` and `original` as {value, low, high}, without ends if
        there is no interval, or None; `power`: whether the measure discriminates the original from the retrained model by more than
        chance; `apart`: whether the model differs from the retrained model by more than chance. The last two are None if unknown.
    """
    model, original, retrained = (_estimates(all_scores.get(which)) for which in ("model", "original", "retrained"))
    references = {id_: result.reference for id_, result in all_scores["model"].measures.items() if result.reference}
    lines: list[Card] = []
    for measure in catalogue.all_measures():
        for id_, estimate in model.items():
            if not (id_ == measure.id or id_.startswith(f"{measure.id}.")):
                continue
            reference, began = references.get(id_) or retrained.get(id_), original.get(id_)
            line: Card = {"measure": measure.id, "id": id_, "about": measure.about, "aim": measure.target, "interval": estimate.interval}
            line |= {"model": _number(estimate), "reference": _number(reference), "original": _number(began)}
            target = catalogue.target_of(id_, reference)
            lines.append(line | {"power": chance.differs(id_, began, target), "apart": chance.differs(id_, estimate, target)})
        if measure.depends_on_machine and run and measure.id in run["metrics"]:
            value = {"value": run["metrics"][measure.id]}
            line = {"measure": measure.id, "id": measure.id, "about": measure.about, "aim": measure.target, "interval": ""}
            lines.append(line | {"model": value, "reference": None, "original": None, "power": None, "apart": None})
    return lines


def _estimates(score: Score | None) -> dict[str, Estimate]:
    """The measures of a score that have a value."""
    return {id_: result.estimate for id_, result in score.measures.items() if result.estimate} if score else {}


def count_measures(lines: Sequence[Card]) -> Card:
    """Count the measures that discriminate the original from the retrained model (`able`); list those by which the model differs.

    A measure differs if any of its parts does."""
    able = dict.fromkeys(line["measure"] for line in lines if line["power"])
    return {
        "able": len(able),
        "differ": [id_ for id_ in able if any(line["measure"] == id_ and line["power"] and line["apart"] for line in lines)],
    }


def _number(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    ends = {"low": estimate.low, "high": estimate.high} if estimate.low is not None and estimate.high is not None else {}
    return {"value": estimate.value} | ends


def loss_distributions(tables: Mapping[str, LogitsTable]) -> Card:
    """Histograms (percent of the images in each bin) and quantiles of the loss.

    Of the model on forget and on test, and of the original and the retrained model on forget, over common bins of log10(loss / nats)."""
    asked = {
        "forget": ("model", "forget"),
        "test": ("model", "test"),
        "retrained": ("retrained", "forget"),
        "original": ("original", "forget"),
    }
    losses = {
        what: np.maximum(tables[which].loss[tables[which].rows(split)], LEAST) for what, (which, split) in asked.items() if which in tables
    }
    losses = {what: loss for what, loss in losses.items() if len(loss)}
    ends = np.log10(np.concatenate(list(losses.values())))
    edges = np.linspace(math.floor(ends.min()), max(math.ceil(ends.max()), math.floor(ends.min()) + 1), BINS + 1)
    of: Card = {}
    for what, loss in losses.items():
        shares = 100 * np.histogram(np.log10(loss), edges)[0] / len(loss)
        quantiles = [float(f"{value:.4g}") for value in np.quantile(loss, (0.1, 0.5, 0.9))]
        of[what] = {"images": len(loss), "percent": shares.round(3).tolist(), "quantiles": quantiles}
    return {"log10_edges": edges.round(4).tolist(), "of": of}
