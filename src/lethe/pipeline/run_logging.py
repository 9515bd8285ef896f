"""Which MLflow rows there are, and what stands on them: names, tags, parameters, descriptions."""

import importlib.metadata
import inspect
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.nn import Module

from lethe._util import dvc_stage as under_dvc
from lethe._util.checkout import CHECKOUT
from lethe._util.files import read_json, short
from lethe.config.loader import STAGE, Config
from lethe.data.splits import SPLITS
from lethe.engine.epoch_table import MEASURED, read_csv, row_metrics
from lethe.engine.resume import Resume
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.measures import LARGEST_SHARE
from lethe.evaluation.score import accuracy_and_loss
from lethe.models import architectures as model
from lethe.models import checkpoint
from lethe.recipes.recipe import Recipe
from lethe.recipes.registry import find_method
from lethe.tracking.mlflow_store import ROW
from lethe.tracking.run_log import RunLog
from lethe.workspace import scores as results
from lethe.workspace import timing as clock
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

COLOUR = {"original": "#8c8c8c", "retrained": "#111111"}  # else the UI may give both the same
ABOUT = {
    "original": "The model before unlearning, trained on retain and forget.",
    "retrained": "The reference: the same training on retain alone. What perfect unlearning would look like.",
}
ABOUT_BANK = "Originals and retrained models that differ in their seed alone; beside them everything is measured."
READING = (
    "Read every number against the row *retrained*: `<split>.distance` is accuracy minus the retrained model's, and 0 is the aim. "
    "Forget accuracy far *below* retrained is over-forgetting, and shows what was forgotten as surely as remembering does."
)


def opened(
    prepared: Prepared,
    name: str,
    recipe: Recipe,
    start: str,
    resume: Resume,
    *,
    launched: bool,
    parent: Mapping[str, Any] | None = None,
) -> RunLog:
    """The row of a run that is starting or going on; noted in the resume state, so that it is found again."""
    config = prepared.config
    row = RunLog.open(
        config.workspace,
        name=name,
        tags=tags(prepared, name) | {"start": start} | _below(parent),
        params=config.resolved(name) | {"recipe": repr(recipe)},
        description=describe(config, name),
        history=[(past["step"], row_metrics(past), past["at"]) for past in resume.history],
        previous=resume.row,
        launched=launched,
        parent=parent,
    )
    resume.row = row.reference()
    row.text("recipe.txt", "\n".join(map(repr, recipe)) + "\n")
    _inputs(row, prepared)
    return row


def _inputs(row: RunLog, prepared: Prepared) -> None:
    data = prepared.config.data
    row.text("params.resolved.json", prepared.config.as_json())
    row.dataset(
        name=data.source,
        digest=short(prepared.hashes["data"]),
        source=str(data.root or data.source),
        shape=prepared.images.pixels.shape[1:],
        classes=prepared.images.classes,
        profile={name: len(index) for name, index in prepared.splits.items()},
    )


def tags(prepared: Prepared, name: str) -> dict[str, str]:
    """What makes a table of rows: the same `data`, `split` and `original`."""
    compute, run = prepared.compute, RunId.parse(name)
    return (
        {
            "method": str(run.all_seeds),
            "data": short(prepared.hashes["data"]),
            "split": short(prepared.hashes["split"]),
            "architecture": prepared.config.model.architecture,
            "device": str(compute.device),
            "precision": compute.precision,
        }
        | ({"seed": str(run.seed)} if run.seed is not None else {})
        | ({"mlflow.runColor": COLOUR[name]} if name in COLOUR else {})
        | {f"version.{package}": importlib.metadata.version(package) for package in ("torch", "torchvision", "mlflow")}
        | under_dvc.tags()
    )


def where_to_look() -> str:
    """The command that opens the runs, and the address under which their table shows the columns that matter."""
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or ("" if os.environ.get("MLFLOW_EXPERIMENT_NAME") else "0")
    page = f"experiments/{experiment}/runs?viewStateShareKey=lethe" if experiment else "experiments"
    return f"`{'make' if CHECKOUT else 'lethe'} ui`, then http://127.0.0.1:5000/#/{page}"


def describe(config: Config, name: str, several: bool = False) -> str:
    """Two lines on what the row is, and how to read it."""
    run = RunId.parse(name)
    name, seed = str(run.all_seeds), run.seed
    base = config.like.get(run.method, run.method)
    about = ABOUT[name] if name in ABOUT else inspect.getdoc(find_method(base).function)
    which = f", seed {seed}" if seed is not None else f", mean over {config.run.seeds} seeds" if several else ""
    return f"**{name}**{which}: {about}\n\n{READING}"


def finished(row: RunLog, prepared: Prepared, name: str, step: int) -> None:
    """What is said once, at the end: test accuracy and loss, every measure whose tier is met, and distances to the retrained model
    where there is one; how many retrained models that took; the alarm; and the score file, which has the intervals."""
    measured = results.scores(prepared, name)
    apart = {}
    if name != "original" and results.there(prepared, "retrained"):
        apart = measured.distances(results.scores(prepared, "retrained"))
    estimates = {split: got.estimate for split in SPLITS if (got := measured.measures.get(f"accuracy.{split}"))}
    halves = {f"{split}.accuracy.half_width": seeds.half_width(estimates.get(split)) for split in SPLITS}
    row.metrics(measured.metrics() | apart | halves, step=step)
    alarm = (measured.over_forgetting or "no") if measured.references else None
    row.tags({"tier": f"T{measured.tier}", "references": measured.references, "over_forgetting": alarm})
    row.text("scores.json", json.dumps(measured.to_json(), indent=2) + "\n")


def timed(row: RunLog, prepared: Prepared, name: str, result: str, seconds: float, step: int) -> None:
    """What the run took, also as a share of the retraining's time where that is known, and the flag of one that is too large."""
    path, retrained = prepared.layout.weights("retrained"), None
    if name not in STAGE and path.exists():
        retrained = short(checkpoint.weights_hash(checkpoint.load(path)[0]))
    took = clock.took(prepared.layout, prepared.compute, name, result, seconds, retrained)
    share = took.share_of_retrain
    row.metrics({"seconds": took.seconds, "share_of_retrain": share, "peak_memory": took.peak_bytes}, step=step)
    if share is not None and share > LARGEST_SHARE:
        row.tag("slow", f"{share:.2f} of the retraining's time, over {LARGEST_SHARE}")


def parent(prepared: Prepared, previous: Mapping[str, Any] | None) -> RunLog:
    """The row above the ten of the notebook's chain, or above those of several seeds; the launcher's, where one launched it, else that
    of the command which goes on."""
    config, name = prepared.config, prepared.config.method
    several, params = config.run.seeds > 1, config.resolved(name)
    if several:
        params |= {"recipe": repr(config.recipe())}
        del params["run.seeds"]  # may grow, and a parameter of MLflow can't: it is a tag
    row = RunLog.open(
        config.workspace,
        name=name,
        tags=tags(prepared, name) | ({"seeds": str(config.run.seeds)} if several else {}),
        params=params,
        description=describe(config, name, several),
        previous=previous,
    )
    if several:
        row.text("recipe.txt", "\n".join(map(repr, config.recipe())) + "\n")
        _inputs(row, prepared)
    return row


def _below(parent: Mapping[str, Any] | None) -> dict[str, str]:
    """By which a row is found that stands below this one."""
    return {"lethe.above": parent["row"]} if parent else {}


def below(prepared: Prepared, name: str, recipe: Recipe, parent: Mapping[str, Any], scored: Prepared) -> None:
    """A seed that was there has a row below its method's too: made from its files where it lacks. `scored`: as which it is scored."""
    path = prepared.layout.weights(name)
    tensors, made = checkpoint.load(path)
    known = tags(prepared, name) | _below(parent) | {"start": short(made["original"])}
    known |= {"result": short(checkpoint.weights_hash(tensors))}
    with RunLog.open(
        prepared.config.workspace,
        name=name,
        tags=known,
        params=prepared.config.resolved(name) | {"recipe": repr(recipe)},
        description=describe(prepared.config, name),
        launched=False,
        parent=parent,
        once={key: known[key] for key in ("method", "seed", "result", "lethe.above")},
    ) as row:
        row.text("recipe.txt", "\n".join(map(repr, recipe)) + "\n")
        _inputs(row, prepared)
        last = _epochs(row, prepared, name) or 0
        if prepared.config.run.evaluate:
            finished(row, scored, name, last)


def several(prepared: Prepared, name: str, parent: Mapping[str, Any], weights: Mapping[int, str]) -> None:
    """The row above those of several seeds: its curves are their means, as is what they took; then what is said at the end of any run."""
    config, last = prepared.config, 0
    tables = [read_csv(prepared.layout.epochs(RunId(name, seed))) for seed in weights]
    with RunLog.join(config.workspace, tags={ROW: parent["row"]}) as row:
        for past in zip(*tables, strict=True):
            last = past[0]["step"]
            told = [row_metrics(one) for one in past]
            row.metrics({key: sum(one[key] for one in told) / len(told) for key in told[0] if all(key in one for one in told)}, last)
        result = seeds.result("", seeds.noted(weights))
        row.tags({"result": result, "start": short(checkpoint.metadata(prepared.layout.weights(name))["original"])})
        _took(row, prepared, name, result, weights, last)
        if config.run.evaluate:
            finished(row, prepared, name, last)


def _took(row: RunLog, prepared: Prepared, name: str, result: str, weights: Mapping[int, str], step: int) -> None:
    """Mean over the seeds whose time is known: it stands beside them, on this machine."""
    paths = {seed: prepared.layout.clock(RunId(name, seed)) for seed in weights}
    known = [read_json(path) for path in paths.values() if path.exists()]
    took: Sequence[float] = [one["seconds"] for one in known if one["result"] in {short(hash_) for hash_ in weights.values()}]
    if took:
        timed(row, prepared, name, result, sum(took) / len(took), step)


def references(prepared: Prepared, names: Iterable[str] = ABOUT, rescored: Collection[str] = ()) -> None:
    """Original and retrained have a row in every experiment in which a method runs: made from their files where it lacks.

    A row that was there before its scores (an original that had no retrained model beside it, one that is `rescored`) is told of them."""
    for name in names:
        path = prepared.layout.weights(name)
        older = name in rescored or not results.fresh(prepared, name)
        known = tags(prepared, name) | {"result": results.weights(prepared, name)}
        provenance = {"provenance": checkpoint.metadata(path)["provenance"]} if path.exists() else {}  # its table may be all there is
        params = prepared.config.resolved(name) | provenance
        once = {key: known[key] for key in ("method", "data", "split", "result")}
        about = describe(prepared.config, name)
        with RunLog.open(
            prepared.config.workspace, name=name, tags=known, params=params, description=about, launched=False, once=once
        ) as row:
            last = _epochs(row, prepared, name)
            if last is None:
                last = 0
                measured = results.scores(prepared, name)
                both = {"accuracy": measured.accuracy, "loss": measured.loss}
                row.metrics({f"{split}.{kind}": values[split] for kind, values in both.items() for split in MEASURED}, step=0)
            _inputs(row, prepared)
            finished(row, prepared, name, last)
        if older:
            evaluated(prepared, name)


def _epochs(row: RunLog, prepared: Prepared, name: str) -> int | None:
    """The epoch table on the row; its last step, None where there is none."""
    table = prepared.layout.epochs(name)
    if not table.exists():
        return None
    history = read_csv(table)
    for past in history:
        row.metrics(row_metrics(past), step=past["step"])
    row.file(table)
    return int(history[-1]["step"])


def bank(prepared: Prepared, key: str, previous: Mapping[str, Any] | None) -> RunLog:
    """The row above those of a reference bank; the same one when the bank grows."""
    config = prepared.config
    about = f"**bank {key}**: {ABOUT_BANK}"
    known = tags(prepared, "bank") | {"bank": key}
    row = RunLog.open(config.workspace, name="bank", tags=known, params=config.resolved("retrained"), description=about, previous=previous)
    _inputs(row, prepared)
    return row


def of_bank(prepared: Prepared, made: LogitsTable, parent: Mapping[str, Any], previous: Mapping[str, Any] | None, step: int) -> RunLog:
    """One model of a bank: what its table says of it. Its method is bank/<kind>, so that it is taken for no other retrained model."""
    kind, seed = made.about["kind"], int(made.about["seed"])
    row = RunLog.open(
        prepared.config.workspace,
        name=made.name,
        tags=tags(prepared, str(RunId(kind, chain="bank"))) | {"seed": str(seed), "result": short(made.about["model"])},
        params=prepared.seeded(seed).config.resolved(kind) | {"recipe": made.about["recipe"]},
        description=describe(prepared.config, made.name),
        previous=previous,
        parent=parent,
    )
    accuracy, loss = accuracy_and_loss(made)
    row.metrics({f"{split}.accuracy": value for split, value in accuracy.items()}, step)
    row.metrics({f"{split}.loss": value for split, value in loss.items()}, step)
    row.metrics({"gap": accuracy["retain"] - accuracy["forget"]}, step)
    return row


def export(row: RunLog, prepared: Prepared, network: Module, path: Path) -> None:
    """The result as a logged model, in the form that run.log_model names."""
    shape, info = about_model(prepared)

    def plain() -> Module:
        fresh = model.build(prepared.config.model.architecture, len(prepared.images.classes), 0)
        fresh.load_state_dict(network.state_dict())
        return fresh

    row.model(path, prepared.config.run.log_model, shape=shape, info=info, module=plain)


def about_model(prepared: Prepared) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of one image, and what a person who loads the model alone must know."""
    said = prepared.config
    info = {"architecture": said.model.architecture, "classes": list(prepared.images.classes)}
    shape = tuple(prepared.images.pixels.shape[1:])
    return shape, info | {"mean": list(said.data.mean), "std": list(said.data.std), "input": "pixels / 255, minus mean, by std"}


def evaluated(prepared: Prepared, name: str) -> None:
    """Scores made later join the row of the run that made the result; what it has already is not told again."""
    table = prepared.layout.epochs(name)
    last = read_csv(table)[-1]["step"] if table.exists() else 0
    run = RunId.parse(name)
    sought = {"method": str(run.all_seeds), "result": results.weights(prepared, name)}
    sought |= {} if run.seed is None else {"seed": str(run.seed)}
    with RunLog.join(prepared.config.workspace, tags=sought) as row:
        finished(row, prepared, name, last)
