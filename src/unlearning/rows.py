"""Which MLflow rows there are, and what stands on them: names, tags, parameters, descriptions."""

import importlib.metadata
import inspect
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.nn import Module

from unlearning import checkpoint, clock, model, observers, results, tracking, under_dvc
from unlearning.config import Config
from unlearning.files import short
from unlearning.measures import LARGEST_SHARE
from unlearning.methods import METHODS, as_run
from unlearning.recipe import Recipe
from unlearning.scratch import STAGE
from unlearning.workspace import Prepared

COLOUR = {"original": "#8c8c8c", "retrained": "#111111"}  # else the UI may give both the same
ABOUT = {
    "original": "The model before unlearning, trained on retain and forget.",
    "retrained": "The reference: the same training on retain alone. What perfect unlearning would look like.",
}
READING = (
    "Read every number against the row *retrained*: `<split>.distance` is accuracy minus the retrained model's, and 0 is the aim. "
    "Forget accuracy far *below* retrained is over-forgetting, and shows what was forgotten as surely as remembering does."
)


def opened(
    prepared: Prepared,
    name: str,
    recipe: Recipe,
    start: str,
    resume: observers.Resume,
    *,
    launched: bool,
    parent: Mapping[str, Any] | None = None,
) -> tracking.Row:
    """The row of a run that is starting or going on; noted in the resume state, so that it is found again."""
    config = prepared.config
    row = tracking.Row.open(
        config.workspace,
        name=name,
        tags=tags(prepared, name) | {"start": start},
        params=config.resolved(name) | {"recipe": repr(recipe)},
        description=describe(config, name),
        history=[(past["step"], observers.metrics(past), past["at"]) for past in resume.history],
        previous=resume.row,
        launched=launched,
        parent=parent,
    )
    resume.row = row.reference()
    row.text("recipe.txt", "\n".join(map(repr, recipe)) + "\n")
    _inputs(row, prepared)
    return row


def _inputs(row: tracking.Row, prepared: Prepared) -> None:
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
    compute = prepared.compute
    return (
        {
            "method": name,
            "data": short(prepared.hashes["data"]),
            "split": short(prepared.hashes["split"]),
            "architecture": prepared.config.model.architecture,
            "device": str(compute.device),
            "precision": compute.precision,
        }
        | ({"mlflow.runColor": COLOUR[name]} if name in COLOUR else {})
        | {f"version.{package}": importlib.metadata.version(package) for package in ("torch", "torchvision", "mlflow")}
        | under_dvc.tags()
    )


def where_to_look() -> str:
    """The command that opens the runs, and the address under which their table shows the columns that matter."""
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or ("" if os.environ.get("MLFLOW_EXPERIMENT_NAME") else "0")
    page = f"experiments/{experiment}/runs?viewStateShareKey=lethe" if experiment else "experiments"
    return f"`make ui`, then http://127.0.0.1:5000/#/{page}"


def describe(config: Config, name: str) -> str:
    """Two lines on what the row is, and how to read it."""
    function = as_run if name == "as_run" else METHODS.get(config.like.get(name, name).removeprefix("as_run/"))
    about = inspect.getdoc(function) if function else ABOUT[name]
    return f"**{name}**: {about}\n\n{READING}"


def finished(row: tracking.Row, prepared: Prepared, name: str, step: int) -> None:
    """What is said once, at the end: test accuracy and loss, every measure whose tier is met, and distances to the retrained model
    where there is one; how many retrained models that took; the alarm; and the score file, which has the intervals."""
    measured = results.scores(prepared, name)
    apart = {}
    if name != "original" and results.there(prepared, "retrained"):
        apart = results.distances(measured, results.scores(prepared, "retrained"))
    row.metrics(results.final(measured) | apart, step=step)
    alarm = (results.over_forgotten(measured) or "no") if measured["references"] else None
    row.tags({"tier": f"T{measured['tier']}", "references": measured["references"], "over_forgetting": alarm})
    row.text("scores.json", json.dumps(measured, indent=2) + "\n")


def timed(row: tracking.Row, prepared: Prepared, name: str, result: str, seconds: float, step: int) -> None:
    """What the run took, also as a share of the retraining's time where that is known, and the flag of one that is too large."""
    path, retrained = prepared.config.workspace / "models" / "retrained.safetensors", None
    if name not in STAGE and path.exists():
        retrained = short(checkpoint.weights_hash(checkpoint.load(path)[0]))
    took = clock.took(prepared.config.workspace, prepared.compute, name, result, seconds, retrained)
    share = took.share_of_retrain
    row.metrics({"seconds": took.seconds, "share_of_retrain": share, "peak_memory": took.peak_bytes}, step=step)
    if share is not None and share > LARGEST_SHARE:
        row.tag("slow", f"{share:.2f} of the retraining's time, over {LARGEST_SHARE}")


def parent(prepared: Prepared, previous: Mapping[str, Any] | None) -> tracking.Row:
    """The row above the ten of the notebook's chain; the launcher's, where one launched it, else that of the chain which goes on."""
    config = prepared.config
    return tracking.Row.open(
        config.workspace,
        name=config.method,
        tags=tags(prepared, config.method),
        params=config.resolved(config.method),
        description=describe(config, config.method),
        previous=previous,
    )


def references(prepared: Prepared, names: Iterable[str] = ABOUT, rescored: Collection[str] = ()) -> None:
    """Original and retrained have a row in every experiment in which a method runs: made from their files where it lacks.

    A row that was there before its scores (an original that had no retrained model beside it, one that is `rescored`) is told of them."""
    for name in names:
        path = prepared.config.workspace / "models" / f"{name}.safetensors"
        older = name in rescored or not results.fresh(prepared, name)
        known = tags(prepared, name) | {"result": results.weights(prepared, name)}
        provenance = {"provenance": checkpoint.metadata(path)["provenance"]} if path.exists() else {}  # its table may be all there is
        params = prepared.config.resolved(name) | provenance
        once = {key: known[key] for key in ("method", "data", "split", "result")}
        about = describe(prepared.config, name)
        with tracking.Row.open(
            prepared.config.workspace, name=name, tags=known, params=params, description=about, launched=False, once=once
        ) as row:
            last = 0
            table = prepared.config.workspace / "epochs" / f"{name}.csv"
            if table.exists():
                for past in observers.read_csv(table):
                    last = past["step"]
                    row.metrics(observers.metrics(past), step=last)
                row.file(table)
            else:
                measured = results.scores(prepared, name)
                row.metrics(
                    {f"{split}.{kind}": measured[kind][split] for kind in ("accuracy", "loss") for split in observers.MEASURED}, step=0
                )
            _inputs(row, prepared)
            finished(row, prepared, name, last)
        if older:
            evaluated(prepared, name)


def export(row: tracking.Row, prepared: Prepared, network: Module, path: Path) -> None:
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
    table = prepared.config.workspace / "epochs" / f"{name}.csv"
    last = observers.read_csv(table)[-1]["step"] if table.exists() else 0
    with tracking.Row.join(prepared.config.workspace, tags={"method": name, "result": results.weights(prepared, name)}) as row:
        finished(row, prepared, name, last)
