"""The MLflow runs of a workspace: their names, tags, parameters, descriptions and final metrics."""

import importlib.metadata
import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch.nn import Module

from lethe._util import dvc_stage
from lethe._util.checkout import CHECKOUT
from lethe._util.files import short
from lethe._util.log import log
from lethe._util.redact import clean
from lethe.config.loader import STAGE, Config
from lethe.data.splits import SPLITS
from lethe.engine.epoch_table import MEASURED, read_csv, row_metrics
from lethe.engine.resume import Resume
from lethe.evaluation import seed_aggregation
from lethe.evaluation.measures import LARGEST_SHARE
from lethe.evaluation.score import Score
from lethe.evaluation.uncertainty import margin_of_error
from lethe.evaluation.verdict.words import REFERENCE_UNFIT
from lethe.models import architectures, checkpoint
from lethe.pipeline.cost import retraining_work
from lethe.recipes.registry import find_method
from lethe.tracking.logged_runs import experiment
from lethe.tracking.outbox import default_store, destination
from lethe.tracking.run_log import RunLog
from lethe.workspace import artifacts, scores, timing
from lethe.workspace.plan import PlannedRun
from lethe.workspace.pseudonyms import as_logged, pseudonyms
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

COLOUR = {"original": "#8c8c8c", "retrained": "#111111"}  # the UI could give both the same
ABOUT = {
    "original": "The model before unlearning, trained on retain and forget.",
    "retrained": "The reference: the same training on retain alone, the result that perfect unlearning would have.",
}
READING = (
    "Compare every number with the run *retrained*: `<split>.distance` is accuracy minus the retrained model's, and the target is 0. "
    "Forget accuracy far *below* retrained is over-forgetting, which reveals what was forgotten just as remembering does."
)


def open_run(
    prepared: Prepared,
    planned: PlannedRun,
    start: str,
    resume: Resume,
    *,
    launched: bool,
    parent: Mapping[str, Any] | None = None,
) -> RunLog:
    """Open the MLflow run of a run that starts or resumes. The resume state keeps its reference, so that it is found again.

    Args:
        prepared: the images and splits, configured for the run's seed.
        planned: the run.
        start: short hash of the weights it starts from.
        resume: its history so far, which is sent where it is missing.
        launched: whether the MLflow run that a launcher made, if one did, is this run's.
        parent: reference of the parent MLflow run; None: it has none.

    Returns:
        The open log, which the caller closes.
    """
    config, name, recipe = prepared.config, str(planned), planned.recipe
    run_log = RunLog.open(
        config.workspace,
        name=name,
        tags=tags(prepared, name) | {"start": start} | parent_tag(parent),
        params=as_logged(config).resolved(name) | {"recipe": repr(recipe)},
        description=describe(config, name),
        history=[(past["step"], row_metrics(past), past["at"]) for past in resume.history],
        previous=resume.row,
        launched=launched,
        parent=parent,
    )
    with closed_on_failure(run_log):
        resume.row = run_log.reference()
        run_log.text("recipe.txt", "\n".join(map(repr, recipe)) + "\n")
        log_inputs(run_log, prepared)
    return run_log


@contextmanager
def closed_on_failure(run_log: RunLog) -> Iterator[None]:
    """Close a log if what is logged first fails: the caller, who closes it otherwise, does not have it yet, and it would go on sending.

    Args:
        run_log: just opened.
    """
    with ExitStack() as stack:
        stack.push(run_log)
        yield
        stack.pop_all()


def log_inputs(run_log: RunLog, prepared: Prepared) -> None:
    """Log the resolved configuration, as an artifact, and the dataset with the numbers of images of its splits.

    Args:
        run_log: the MLflow run.
        prepared: the images and splits.

    Raises:
        RunFailed: the disk refuses the record; the message names the file.
    """
    data = prepared.config.data
    run_log.text("params.resolved.json", as_logged(prepared.config).as_json())
    run_log.dataset(
        name=data.source,
        digest=short(prepared.hashes["data"]),
        source=str(data.root or data.source),
        shape=prepared.images.pixels.shape[1:],
        classes=prepared.images.classes,
        profile={name: len(index) for name, index in prepared.splits.items()},
    )


def tags(prepared: Prepared, name: str) -> dict[str, str]:
    """Return the tags that make runs comparable (equal `data`, `split` and `original`) and show where they ran.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        Tag -> text: the method, a short hash of the images, one of the splits under the workspace's secret, architecture, device,
        precision, versions of libraries; where there is one, the seed, the reference's colour, and DVC's stage and experiment.

    Raises:
        UserError: the name is not one of a run, or this machine does not have run.device.
    """
    compute, run = prepared.compute, RunId.parse(name)
    return (
        {
            "method": str(run.all_seeds),
            "data": short(prepared.hashes["data"]),
            "split": short(_split(prepared)),
            "architecture": prepared.config.model.architecture,
            "device": str(compute.device),
            "precision": compute.precision,
            "workspace": prepared.config.workspace_name or ".",
        }
        | ({"seed": str(run.seed)} if run.seed is not None else {})
        | ({"mlflow.runColor": COLOUR[name]} if name in COLOUR else {})
        | {f"version.{package}": importlib.metadata.version(package) for package in ("torch", "torchvision", "mlflow")}
        | dvc_stage.tags()
    )


def _split(prepared: Prepared) -> str:
    """The hash of the splits as it leaves the workspace: of ids alone, it would show by trying which ones are to be forgotten."""
    return pseudonyms(prepared.config).of_hash(prepared.hashes["split"])


def where_to_look() -> str:
    """Return the command that opens the UI of the store in use, and the address of the runs' table with the columns that matter."""
    known = experiment()
    page = f"experiments/{known}/runs?viewStateShareKey=lethe" if known else "experiments"
    store = destination()["uri"] or default_store()
    if store.startswith(("http://", "https://")):
        return f"{store.rstrip('/')}/#/{page}"
    own = f"{'make' if CHECKOUT else 'lethe'} ui"
    command = own if store == clean(default_store()) else f"mlflow ui --backend-store-uri {shlex.quote(store)}"
    return f"`{command}`, then http://127.0.0.1:5000/#/{page}"


def describe(config: Config, name: str, several: bool = False) -> str:
    """Return a description of a run: what it is, and how to read its numbers.

    Args:
        config: the configuration.
        name: the run.
        several: it represents several seeds, run.seeds of them.

    Returns:
        Markdown.

    Raises:
        UserError: the name is not one of a run, or its method does not exist.
    """
    run = RunId.parse(name)
    name, seed = str(run.all_seeds), run.seed
    base = config.like.get(run.method, run.method)
    about = ABOUT[name] if name in ABOUT else find_method(base).description
    which = f", seed {seed}" if seed is not None else f", mean over {config.run.seeds} seeds" if several else ""
    return f"**{name}**{which}: {about}\n\n{READING}{_sampled(config.run.evaluate_retain)}"


def _sampled(retain: int | None) -> str:
    """What a run's retain metrics mean where they are measured on a sample of `retain` images during a phase."""
    if retain is None:
        return ""
    low, high = (f"±{margin_of_error((percent, retain)):.1f}" for percent in (90.0, 99.0))
    return (
        f"\n\nBefore the last epoch of a phase, `retain.accuracy`, `retain.loss` and `gap` are of the same {retain:,} retain images "
        f"(run.evaluate_retain), or of all if there are fewer: at 90 % the accuracy's 95 % interval is {low} points, at 99 % {high}. The "
        "start and the last epoch of a phase are of all."
    )


def log_scores(run_log: RunLog, prepared: Prepared, name: str, step: int) -> None:
    """Log the final scores: test accuracy and loss, every measure that has enough reference models, the distances to the retrained
    model, the over-forgetting flag, and the score file, which has the intervals.

    Args:
        run_log: the MLflow run.
        prepared: the images and splits, configured as the scores are computed.
        name: of the result.
        step: number of its last epoch.
    """
    measured = scores.scores(prepared, name)
    retrained = name != "original" and artifacts.available(prepared, "retrained")
    _log_score(run_log, measured, scores.scores(prepared, "retrained") if retrained else None, step)


def _log_score(run_log: RunLog, measured: Score, retrained: Score | None, step: int) -> None:
    apart = measured.distances(retrained) if retrained else {}
    estimates = {split: got.estimate for split in SPLITS if (got := measured.measures.get(f"accuracy.{split}"))}
    halves = {f"{split}.accuracy.half_width": seed_aggregation.half_width(estimates.get(split)) for split in SPLITS}
    run_log.metrics(measured.metrics() | apart | halves, step=step)
    alarm = (measured.over_forgetting or "no") if measured.references else None
    run_log.tags({"tier": f"T{measured.tier}", "references": measured.references, "over_forgetting": alarm})
    if measured.unfit:
        run_log.tags({"verdict": REFERENCE_UNFIT, REFERENCE_UNFIT: measured.unfit})
    elif measured.judged:
        run_log.tag("verdict", measured.judged.word)
    run_log.text("scores.json", json.dumps(measured.to_json(), indent=2) + "\n")


def log_cost(run_log: RunLog, prepared: Prepared, name: str, result: str, took: tuple[float, float | None], step: int) -> None:
    """Log the time, work and memory of a run; where there is a retrained model also the share of its work, with a flag if that is large.

    Args:
        run_log: the MLflow run.
        prepared: the images and splits.
        name: of the result.
        result: short hash of its weights.
        took: seconds, and floating-point operations or None, of its optimizer steps and edits.
        step: number of its last epoch.
    """
    retraining = None
    if name not in STAGE and took[1] is not None and prepared.layout.weights("retrained").exists():
        images = len(prepared.splits["retain"]), len(prepared.splits["forget"]), len(prepared.images.classes)
        retraining = retraining_work(prepared.config, images)
    cost = timing.record_cost(prepared.layout, prepared.compute, name, result, *took, retraining)
    share = cost.share_of_retrain
    run_log.metrics({"seconds": cost.seconds, "flops": cost.flops, "share_of_retrain": share, "peak_memory": cost.peak_bytes}, step=step)
    if share is not None and share > LARGEST_SHARE:
        run_log.tag("slow", f"{share:.2f} of the retraining's work, over {LARGEST_SHARE}")
    if cost.flops is not None:
        beside = f", {share:.2f} of the work of retraining" if share is not None else ""
        log(f"{name}: {cost.flops:.3g} floating-point operations{beside}, in {cost.seconds:.1f} seconds")


def parent_tag(parent: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the tag by which a nested run is found; its name is that of earlier versions."""
    return {"lethe.above": parent["row"]} if parent else {}


def log_references(prepared: Prepared, names: Iterable[str] = ABOUT, rescored: Collection[str] = ()) -> None:
    """Make sure that the references have an MLflow run in the experiment of the method: made from their files where they have none.

    Args:
        prepared: the images and splits.
        names: original, retrained.
        rescored: names whose scores are new. An existing run gets them, as it does where its score file is out of date.
    """
    for name in names:
        path = prepared.layout.weights(name)
        older = name in rescored or not scores.is_current(prepared, name)
        known = tags(prepared, name) | {"result": artifacts.result_hash(prepared, name)}
        provenance = {"provenance": checkpoint.metadata(path)["provenance"]} if path.exists() else {}  # its table may be all there is
        params = as_logged(prepared.config).resolved(name) | provenance
        once = {key: known[key] for key in ("method", "data", "split", "result")}
        about = describe(prepared.config, name)
        with RunLog.open(
            prepared.config.workspace, name=name, tags=known, params=params, description=about, launched=False, once=once
        ) as run_log:
            last = log_epochs(run_log, prepared, name)
            if last is None:
                last = 0
                measured = scores.scores(prepared, name)
                both = {"accuracy": measured.accuracy, "loss": measured.loss}
                run_log.metrics({f"{split}.{kind}": values[split] for kind, values in both.items() for split in MEASURED}, step=0)
            log_inputs(run_log, prepared)
            log_scores(run_log, prepared, name, last)
        if older:
            add_scores(prepared, name)


def log_epochs(run_log: RunLog, prepared: Prepared, name: str) -> int | None:
    """Log the epoch table: each row's metrics, and the file as an artifact.

    Args:
        run_log: the MLflow run.
        prepared: the images and splits.
        name: the run whose table it is.

    Returns:
        Its last step; None: there is no table.

    Raises:
        RunFailed: the disk refuses the record; the message names the file.
    """
    table = prepared.layout.epochs(name)
    if not table.exists():
        return None
    history = read_csv(table)
    for past in history:
        run_log.metrics(row_metrics(past), step=past["step"])
    run_log.file(table)
    return int(history[-1]["step"])


def log_model(run_log: RunLog, prepared: Prepared, path: Path) -> None:
    """Log the result as a model, in the format of run.log_model; with run.register_as also as the next version in the registry.

    Args:
        run_log: the MLflow run.
        prepared: the images and splits.
        path: the weights.
    """
    shape, info = about_model(prepared)

    def plain() -> Module:
        fresh = architectures.build(prepared.config.model.architecture, len(prepared.images.classes), 0, drawn=False)
        fresh.load_state_dict(checkpoint.load(path)[0])
        return fresh

    replaced = {"split": _split(prepared)}
    run = prepared.config.run
    registered = (run.register_as, run.register_alias or "") if run.register_as else None
    run_log.model(path, run.log_model, shape=shape, info=info, module=plain, replaced=replaced, registered=registered)


def about_model(prepared: Prepared) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the shape of one image [C, H, W], and what a person who loads the model by itself must know."""
    config = prepared.config
    info = {"architecture": config.model.architecture, "classes": list(prepared.images.classes)}
    shape = tuple(prepared.images.pixels.shape[1:])
    return shape, info | {"mean": list(config.data.mean), "std": list(config.data.std), "input": "pixels / 255, minus mean, by std"}


def add_scores(prepared: Prepared, name: str) -> None:
    """Add scores that were computed later to the MLflow run that made the result.

    The run receives only what it does not have. Without such a run the scores are dropped, and that is logged.

    Args:
        prepared: the images and splits.
        name: of the result.

    Raises:
        UserError: the result can't be scored, as `scores.scores`.
        RunFailed: the disk refuses the record; the message names the file.
    """
    last, sought = _made_by(prepared, name)
    with RunLog.join(prepared.config.workspace, tags=sought) as run_log:
        log_scores(run_log, prepared, name, last)


def add_score_from_another(prepared: Prepared, other: Prepared, name: str, score: Score) -> None:
    """Add the score of a run from a further original to its MLflow run, as `add_scores` does.

    Args:
        prepared: the workspace, whose retrained model it is compared with.
        other: the folder of the further original.
        name: of the result.
        score: its score.

    Raises:
        UserError: as `add_scores`.
        RunFailed: as `add_scores`.
    """
    last, sought = _made_by(other, name)
    with RunLog.join(other.config.workspace, tags=sought) as run_log:
        _log_score(run_log, score, scores.scores(prepared, "retrained") if artifacts.available(prepared, "retrained") else None, last)


def _made_by(prepared: Prepared, name: str) -> tuple[int, dict[str, str]]:
    """The last step of a result's run, and the tags by which its MLflow run is found."""
    table = prepared.layout.epochs(name)
    run = RunId.parse(name)
    sought = {"method": str(run.all_seeds), "result": artifacts.result_hash(prepared, name)}
    return read_csv(table)[-1]["step"] if table.exists() else 0, sought | ({} if run.seed is None else {"seed": str(run.seed)})
