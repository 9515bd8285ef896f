"""The unlearning card: what was deleted, how well, how sure that is, and what was not looked at. One for each method and request.

`make` gathers it into one value, plain JSON, from files of the workspace; `cardpage` shows that value and knows nothing else.
Cards stand under cards/, which no stage of DVC empties: those of past requests stay, and are found by an image's id."""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lethe._util import checkout
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest, read_json, short, whole
from lethe._util.log import log
from lethe._util.redact import plain
from lethe.config.loader import OVERLAYS, Config, load
from lethe.evaluation import catalogue, registry
from lethe.evaluation import logits_table as table
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation import verdict as judge
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.membership import CHANCE_LEVELS
from lethe.evaluation.score import Score
from lethe.evaluation.verdict import ResultSet
from lethe.models import checkpoint
from lethe.reporting import card_page as cardpage
from lethe.tracking.run_log import RunLog, find_runs
from lethe.workspace import scores as results
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, lying

Card = dict[str, Any]

PIXELS = 64  # of a thumbnail's longer side, at most
BINS, LEAST = 30, 1e-6  # of the loss histograms, on a logarithmic scale; losses below LEAST (nats) count as LEAST
SEVERAL = 2  # one of some twenty intervals of 95 % misses by chance
EITHER_SIDE = ("distance", "residual")  # a model can miss their aim on both sides, so the aim is what a retrained model scores

CANNOT = {
    0: "No retrained model stands beside this one. The page says how the model behaves, and can't say whether that is forgetting.",
    1: "Fewer than eight retrained models hardly show how far two of them lie apart (one shows nothing of it), so a distance may be noise, "
    "and a small one is no proof.",
    2: "At least eight retrained models show how far such models lie apart. Whether a single image stands out takes at least 64 of them "
    "and as many unlearned ones, and was not looked at.",
    3: "At least 64 retrained and unlearned models were compared, image by image. Even that bounds only the attacks that were tried; "
    "an attack that nobody has thought of yet is not among them.",
}
UNTRIED = "The strongest attack here, which learns from many models that forgot other images (U-LiRA, evaluate.shadows), was not tried."
BEYOND = (
    "Averages over the request say nothing of its single images: one may be remembered while the others are forgotten.",
    "Looked at was this result alone. Its copies, older checkpoints, backups, and models trained from it, stand outside of this page.",
    "Retraining is imitated, not done. Where the law or a contract asks for retraining, this page does not replace it.",
)


def card(config: Config) -> None:
    """cards/<method>-<request>.{json,md,html} in the workspace, and with the run's row on MLflow; all are made before one is written."""
    names = [str(RunId(name, chain=config.method)) for name in config.chain_recipes()] if config.chain else [config.method]
    for name in names:
        _check_there(config, name)
    prepared = lying(config)
    for name in names:
        made = make(prepared, name)
        path = prepared.layout.card(name, short(made["request"]["hash"]))
        pages = {".json": json.dumps(made, indent=1) + "\n", ".md": cardpage.markdown(made), ".html": cardpage.html(made)}
        for suffix, text in pages.items():
            with whole(path.with_name(path.name + suffix)) as beside:
                beside.write_text(text, encoding="utf-8")
        several = checkpoint.metadata(prepared.layout.logits(name))
        result = seeds.result(made["models"]["result"]["weights"], several)
        with RunLog.join(config.workspace, tags={"method": name, "result": result}) as row:
            for suffix, text in pages.items():
                row.text(f"card/{path.name}{suffix}", text)
        print(f"{path}.html")


# --- every card of an image -------------------------------------------------------------------------------------------


def listed(config: Config, id_: str) -> None:
    """Every card whose request names the image, newest first. Raises UserError when there is none."""
    folder, sought, found = Layout(config.workspace).cards, short(digest([id_])), []
    for path in sorted(folder.rglob("*.json")):
        made = read_json(path)
        try:
            if sought in made["request"]["ids"]:
                cells = (made["date"], made["method"], short(made["request"]["hash"]), made["alarm"] or made["says"]["head"])
                found.append((*cells, str(path.with_suffix(".html"))))
        except (KeyError, TypeError):
            raise UserError(
                f"{path} is no card: it lacks request, method or what it says; {repair_command('report', config)} has no use for it"
            ) from None
    if not found:
        again = repair_command("report", config).replace("report.py", "report.py card", 1)
        raise UserError(f"{id_}: no card in {folder} is of a request that names it; {again} makes the card of the request that is there")
    for line in sorted(found, reverse=True):
        print("  ".join(line))


# --- what stands on it ------------------------------------------------------------------------------------------------


def make(prepared: Prepared, name: str) -> Card:
    """All that the page says. Raises UserError, naming the command that mends it, when files are missing or do not belong together."""
    tables, scores = _read(prepared, name)
    ours = scores["model"]
    reading = _reading(prepared, name, scores)
    weak = results.baseline_warning(prepared.layout)
    row = _row(name, tables["model"])
    lines = _measures(scores, row)
    tally = _tally(lines)
    return {
        "method": name,
        "date": datetime.now(UTC).date().isoformat(),
        "alarm": ours.over_forgetting,
        "seeds": [*ours.seeds],
        "says": _weighed(_says(reading, name), tally),
        "request": _request(prepared),
        "data": {"hash": prepared.hashes["data"], "split": prepared.hashes["split"]}
        | {"images": {split: len(index) for split, index in prepared.splits.items() if split != "forget"}},
        "models": _models(prepared, name, tables),
        "measures": lines,
        "tally": tally,
        "missing": {id_: result.missing for id_, result in ours.measures.items() if result.missing},
        "loss": losses(tables),
        "tier": ours.tier,
        "references": ours.references,
        "cannot": [
            *([f"{weak[0].upper()}{weak[1:]}."] if weak else []),
            CANNOT[ours.tier],
            *([] if any(line["measure"] == "ulira" for line in lines) else [UNTRIED]),
            *BEYOND,
        ],
        "reproduce": _reproduce(prepared.config, name, tables, row),
    }


def _check_there(config: Config, name: str) -> None:
    """Before anything is read or fetched."""
    layout = Layout(config.workspace)
    again = {stage: repair_command(stage, config, method=RunId.parse(name).key) for stage in ("unlearn", "evaluate")}
    if not layout.exists(name):
        raise UserError(f"{layout.root} holds no run of {name}; {again['unlearn']} makes one")
    for path in (layout.logits(name), layout.scores(name)):
        if not path.exists():
            raise UserError(f"{path} does not exist; {again['evaluate']} makes it")


def _read(prepared: Prepared, name: str) -> tuple[dict[str, LogitsTable], dict[str, Score]]:
    """Logits tables and scores of the model and, as far as they are there, of those it is measured beside; all of these splits."""
    layout, split = prepared.layout, prepared.hashes["split"]
    again = {stage: repair_command(stage, prepared.config, method=RunId.parse(name).key) for stage in ("unlearn", "evaluate")}
    tables, scores = {}, {}
    for which, stem in {"model": name, "original": "original", "retrained": "retrained"}.items():
        model, logits, path = layout.weights(stem), layout.logits(stem), layout.scores(stem)
        if which != "model" and not logits.exists():
            continue
        foreign = "was made for other splits than data/splits holds"
        if which == "model" and model.exists() and checkpoint.metadata(model).get("split") != split:
            raise UserError(f"{model} {foreign}; {again['unlearn']} makes it anew")
        if checkpoint.metadata(logits).get("split") != split:
            raise UserError(f"{logits} {foreign}; {again['evaluate' if model.exists() else 'unlearn']} makes it anew")
        tables[which] = table.read(logits, stem)
        if model.exists() and tables[which].about.get("model") != checkpoint.weights_hash(checkpoint.load(model)[0]):
            raise UserError(f"{logits} was read from other weights than {model} holds; {again['evaluate']} makes it anew")
        scores[which] = results.read(path)
    table.require_same_images(*tables.values())
    of = {which: short(_weights(made)) for which, made in tables.items()}
    for which, stem in {"model": name, "original": "original", "retrained": "retrained"}.items():
        if which not in scores:
            continue
        said, own = scores[which].tables, of | {"model": of[which]}
        if "model" not in said or any(own.get(key) != value for key, value in said.items() if key in ("model", "original", "retrained")):
            raise UserError(f"{layout.scores(stem)} is of other tables than {layout.all_logits} holds; {again['evaluate']} makes it anew")
    return tables, scores


def _weights(made: LogitsTable) -> str:
    return made.about.get("model", made.hash)


def _reading(prepared: Prepared, name: str, scores: Mapping[str, Score]) -> ResultSet:
    rows = {name if which == "model" else which: measured.accuracy for which, measured in scores.items()}
    alarm = scores["model"].alarm
    sizes = {split: len(index) for split, index in prepared.splits.items()}
    return ResultSet("", "", "", sizes, rows, alarms={} if alarm is None else {name: alarm})


def _says(reading: ResultSet, name: str) -> dict[str, str]:
    """What forget accuracy says, by the report's rule; it says over-forgets exactly where the alarm does."""
    found = judge.assess(reading, name)
    if found is None:
        return {
            "kind": "unknown",
            "head": "Nothing to compare with",
            "meaning": "Without an original and a retrained model accuracies say nothing.",
        }
    if not judge.discriminates(reading) and not reading.alarms.get(name):
        meaning = "Forget accuracy does not tell the original from the retrained model, so it can't judge this one."
        return {"kind": "no power", "head": "No power here", "meaning": meaning}
    head, meaning = judge.KINDS[found.kind]
    return {"kind": found.kind, "head": head, "meaning": meaning}


def _weighed(says: dict[str, str], tally: Card) -> dict[str, str]:
    """Forget accuracy alone acquits nobody whom several other measures tell from a retrained model."""
    others = [id_ for id_ in tally["differ"] if id_ != "accuracy"]
    if says["kind"] not in ("as retrained", "undecided") or not others:
        return says
    if len(others) < SEVERAL:
        return says | (
            {"head": "By forget accuracy as the retrained model, not by every measure"} if says["kind"] == "as retrained" else {}
        )
    meaning = "Forget accuracy does not tell them apart by more than chance, and other measures do."
    return {"kind": "differs", "head": "Not as the retrained model", "meaning": meaning}


# --- the request ------------------------------------------------------------------------------------------------------


def _request(prepared: Prepared) -> Card:
    """Its ids as hashes alone: who has an id finds its card, and who has a card does not learn the ids."""
    images, forget = prepared.images, prepared.splits["forget"]
    ids = sorted(images.ids[i] for i in forget)
    classes = Counter(images.classes[images.labels[i]] for i in forget)
    number = prepared.config.card.thumbnails
    return {
        "hash": digest(ids),
        "images": len(ids),
        "of": images.train,
        "classes": {name: classes[name] for name in images.classes if name in classes},
        "ids": [short(digest([id_])) for id_ in ids],
        "thumbnails": [_thumbnail(prepared, int(i)) for i in _some(sorted(forget, key=lambda i: images.ids[i]), number)],
    }


def _some(all_: list[Any], number: int) -> list[Any]:
    """At most so many, evenly through all."""
    return [all_[i] for i in sorted({round(at) for at in np.linspace(0, len(all_) - 1, min(number, len(all_)))})] if number else []


def _thumbnail(prepared: Prepared, index: int) -> dict[str, str]:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(prepared.images.pixels[index].transpose(1, 2, 0)))
    picture.thumbnail((PIXELS, PIXELS))
    drawn = io.BytesIO()
    picture.save(drawn, "PNG", optimize=True)
    return {"class": prepared.images.classes[prepared.images.labels[index]], "png": base64.b64encode(drawn.getvalue()).decode()}


# --- models and measures ----------------------------------------------------------------------------------------------


def _models(prepared: Prepared, name: str, tables: Mapping[str, LogitsTable]) -> Card:
    """Each with the hash of its weights and what its file says of it; its file may be gone, and only its table be left."""
    found: Card = {}
    for which, made in tables.items():
        path = prepared.layout.weights(name if which == "model" else which)
        known = checkpoint.metadata(path) if path.exists() else {}
        about = {key: known[key] for key in ("architecture", "provenance", "seed", "recipe") if key in known}
        found["result" if which == "model" else which] = {"weights": _weights(made), "logits": made.hash, **about}
    return found


def _measures(scores: Mapping[str, Score], row: Mapping[str, Any] | None) -> list[Card]:
    """Every measure that has a number, in the order of the list: the model's, the reference's and the original's; whether more than chance
    tells the original from the reference (`power`), and the model from it (`apart`); None where that can't be known."""
    ours, original, retrained = (_entries(scores.get(which)) for which in ("model", "original", "retrained"))
    lines: list[Card] = []
    for each in catalogue.all_measures():
        for id_, got in ours.items():
            if "value" not in got or not (id_ == each.id or id_.startswith(f"{each.id}.")):
                continue
            reference = got.get("reference") or _number(retrained.get(id_))
            began = _number(original.get(id_))
            line = {"measure": each.id, "id": id_, "about": each.about, "aim": each.target, "interval": got.get("interval", "")}
            line |= {"model": _number(got), "reference": _number(reference), "original": began}
            beside = _number(reference) or _aim(each, id_)
            lines.append(line | {"power": _apart(began, beside), "apart": _apart(_number(got), beside)})
        if each.depends_on_machine and row and each.id in row["metrics"]:
            value = {"value": row["metrics"][each.id]}
            line = {"measure": each.id, "id": each.id, "about": each.about, "aim": each.target, "interval": ""}
            lines.append(line | {"model": value, "reference": None, "original": None, "power": None, "apart": None})
    return lines


def _entries(score: Score | None) -> dict[str, dict[str, Any]]:
    """The measures of a score as in its file."""
    return {id_: result.to_json() for id_, result in score.measures.items()} if score else {}


def _tally(lines: Sequence[Card]) -> Card:
    """How many measures tell the original from the retrained model here, and by which of these the model differs from it, in any part."""
    able = dict.fromkeys(line["measure"] for line in lines if line["power"])
    return {
        "able": len(able),
        "differ": [id_ for id_ in able if any(line["measure"] == id_ and line["power"] and line["apart"] for line in lines)],
    }


def _number(got: Mapping[str, Any] | None) -> dict[str, float] | None:
    return {key: got[key] for key in ("value", "low", "high") if key in got} if got and "value" in got else None


def _aim(measure: registry.Measure, id_: str) -> dict[str, float] | None:
    """What a retrained model scores, where that is known without one."""
    if measure.id in EITHER_SIDE and isinstance(measure.target, int | float):
        return {"value": float(measure.target)}
    return {"value": CHANCE_LEVELS[id_]} if id_ in CHANCE_LEVELS else None


def _apart(a: Mapping[str, float] | None, b: Mapping[str, float] | None) -> bool | None:
    return None if a is None or b is None else not alike(a, b)


def alike(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two numbers differ by no more than chance, from their own intervals: the difference's interval by squaring and adding
    (Zou and Donner, doi:10.1002/sim.3095), as of independent ones. Without intervals: whether they are equal."""
    low, high = sorted((a, b), key=lambda one: one["value"])
    reach = math.hypot(low.get("high", low["value"]) - low["value"], high["value"] - high.get("low", high["value"]))
    return high["value"] - low["value"] <= reach


def losses(tables: Mapping[str, LogitsTable]) -> Card:
    """Histograms of the loss, percent of the images in each bin: the model's on forget and on test, the others' on forget."""
    asked = {
        "forget": ("model", "forget"),
        "test": ("model", "test"),
        "retrained": ("retrained", "forget"),
        "original": ("original", "forget"),
    }
    found = {
        what: np.maximum(tables[which].loss[tables[which].rows(split)], LEAST) for what, (which, split) in asked.items() if which in tables
    }
    found = {what: loss for what, loss in found.items() if len(loss)}
    ends = np.log10(np.concatenate(list(found.values())))
    edges = np.linspace(math.floor(ends.min()), max(math.ceil(ends.max()), math.floor(ends.min()) + 1), BINS + 1)
    of: Card = {}
    for what, loss in found.items():
        shares = 100 * np.histogram(np.log10(loss), edges)[0] / len(loss)
        quantiles = [float(f"{value:.4g}") for value in np.quantile(loss, (0.1, 0.5, 0.9))]
        of[what] = {"images": len(loss), "percent": shares.round(3).tolist(), "quantiles": quantiles}
    return {"log10_edges": edges.round(4).tolist(), "of": of}


# --- who can make it again --------------------------------------------------------------------------------------------


def _row(name: str, made: LogitsTable) -> dict[str, Any] | None:
    """The run's row on MLflow; None, with a line, where the store is away."""
    try:
        found = find_runs({"method": name, "result": seeds.result(_weights(made), made.about)})
    except RunFailed as error:
        log(f"the card goes without what the run's row says: {error}")
        return None
    return found[0] if found else None


def _reproduce(config: Config, name: str, tables: Mapping[str, LogitsTable], row: Mapping[str, Any] | None) -> Card:
    """Commands, by the keys on the rows of result and original; where there is no row, by those that the card was asked for with."""
    method = RunId.parse(name).key
    if row is None:
        again = {stage: repair_command(stage, config, method=method).strip("`") for stage in ("unlearn", "evaluate")}
        return {"commands": {"result": again["unlearn"], "scores": again["evaluate"]}, "about": {}}
    original = _row("original", tables["original"]) if "original" in tables else None
    params: dict[str, str] = (original["params"] if original else {}) | row["params"]
    params["run.seeds"] = row["tags"].get("seeds", "1")
    ways = {stage: _differing(params, stage, method) for stage in ("unlearn", *OVERLAYS)}
    shortest = min(ways, key=lambda stage: len(ways[stage]))
    tags: dict[str, str] = row["tags"]
    about = {key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")}
    for tag, word in {"mlflow.source.git.commit": "commit", "git_dirty": "edited", "device": "device", "precision": "precision"}.items():
        if tag in tags:
            about[word] = tags[tag]
    commands = {"result": _command(shortest, ways[shortest]), "scores": _command("evaluate", ways["unlearn"])}
    return {"commands": commands, "about": about | {"run": row["run_id"]}}


def _command(stage: str, keys: Mapping[str, str]) -> str:
    return checkout.command(stage, *(word for key, value in keys.items() for word in (f"--{key}", value)))


def _differing(params: Mapping[str, str], stage: str, method: str) -> dict[str, str]:
    """The keys in which a row differs from params.yaml as it is now, with the overlay that the stage lays over it; the method first."""
    asked = load([], overlay=stage if stage in OVERLAYS else None)
    first = {"method": method} if method != asked.method or stage not in OVERLAYS else {}
    asked = replace(asked, method=method)
    usual = {key: plain(value) for key, value in (asked.resolved("original") | asked.resolved(method)).items()}
    keys = {key: value for key, value in sorted(params.items()) if key in usual and usual[key] != value and key != "method"}
    named = {key for key in keys if key.startswith("data.forget.")}  # one of the four; naming it lays the others aside
    return first | {key: value for key, value in keys.items() if key not in named or value != plain(None)}
