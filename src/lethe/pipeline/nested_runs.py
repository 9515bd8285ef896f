"""Parent MLflow runs and the runs nested in them: the links of a chain, several seeds, the models of a reference bank."""

from collections.abc import Mapping, Sequence
from typing import Any

from lethe._util.files import short
from lethe.engine.epoch_table import read_csv, row_metrics
from lethe.evaluation import seed_aggregation
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import accuracy_and_loss
from lethe.models import checkpoint
from lethe.pipeline.run_logging import closed_on_failure, describe, log_cost, log_epochs, log_inputs, log_scores, parent_tag, tags
from lethe.tracking.mlflow_store import ROW
from lethe.tracking.run_log import RunLog
from lethe.workspace import timing
from lethe.workspace.plan import PlannedRun
from lethe.workspace.pseudonyms import as_logged
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared

ABOUT_BANK = "Originals and retrained models that differ in their seed alone. Every measure compares with them."


def open_parent(prepared: Prepared, runs: Sequence[PlannedRun], previous: Mapping[str, Any] | None) -> RunLog:
    """Open the parent MLflow run of a chain's links or of several seeds.

    Args:
        prepared: the images and splits.
        runs: the links, or one for each seed.
        previous: reference of the parent that an earlier process opened; None: there was none. A launcher's run has precedence.

    Returns:
        The open log, which the caller closes.
    """
    config, name = prepared.config, prepared.config.method
    several, params = runs[0].run.seed is not None, as_logged(config).resolved(name)
    if several:
        params |= {"recipe": repr(config.recipe())}
        del params["run.seeds"]  # it may grow, and a parameter of MLflow is final: it is a tag
    run_log = RunLog.open(
        config.workspace,
        name=name,
        tags=tags(prepared, name) | ({"seeds": str(len(runs))} if several else {}),
        params=params,
        description=describe(config, name, several),
        previous=previous,
    )
    if several:
        with closed_on_failure(run_log):
            run_log.text("recipe.txt", "\n".join(map(repr, config.recipe())) + "\n")
            log_inputs(run_log, prepared)
    return run_log


def log_finished_seed(scored: Prepared, planned: PlannedRun, parent: Mapping[str, Any]) -> None:
    """Make sure that a finished seed has a nested MLflow run: made from its files where it has none.

    Args:
        scored: the images and splits, configured as the seeds are scored.
        planned: the seed's run.
        parent: reference of the parent MLflow run.
    """
    prepared, name, recipe = scored.seeded(planned.seed), str(planned), planned.recipe
    path = prepared.layout.weights(name)
    made = checkpoint.metadata(path)
    known = tags(prepared, name) | parent_tag(parent) | {"start": short(made["original"])}
    known |= {"result": short(checkpoint.model_hash(path))}
    with RunLog.open(
        prepared.config.workspace,
        name=name,
        tags=known,
        params=as_logged(prepared.config).resolved(name) | {"recipe": repr(recipe)},
        description=describe(prepared.config, name),
        launched=False,
        parent=parent,
        once={key: known[key] for key in ("method", "seed", "result", "lethe.above")},
    ) as run_log:
        run_log.text("recipe.txt", "\n".join(map(repr, recipe)) + "\n")
        log_inputs(run_log, prepared)
        last = log_epochs(run_log, prepared, name) or 0
        if prepared.config.run.evaluate:
            log_scores(run_log, scored, name, last)


def log_seeds(prepared: Prepared, name: str, parent: Mapping[str, Any], weights: Mapping[int, str]) -> None:
    """Log the means of several seeds to their parent MLflow run: curves, time, and the final scores.

    Args:
        prepared: the images and splits.
        name: of the method.
        parent: reference of the parent MLflow run.
        weights: hash of the weights by seed.
    """
    config, last = prepared.config, 0
    tables = [read_csv(prepared.layout.epochs(RunId(name, seed))) for seed in weights]
    with RunLog.join(config.workspace, tags={ROW: parent["row"]}) as run_log:
        for past in zip(*tables, strict=True):
            last = past[0]["step"]
            seeds = [row_metrics(one) for one in past]
            run_log.metrics(
                {key: sum(one[key] for one in seeds) / len(seeds) for key in seeds[0] if all(key in one for one in seeds)}, last
            )
        result = seed_aggregation.result("", seed_aggregation.noted(weights))
        run_log.tags({"result": result, "start": short(checkpoint.metadata(prepared.layout.weights(name))["original"])})
        _log_mean_cost(run_log, prepared, name, result, weights, last)
        if config.run.evaluate:
            log_scores(run_log, prepared, name, last)


def _log_mean_cost(run_log: RunLog, prepared: Prepared, name: str, result: str, weights: Mapping[int, str], step: int) -> None:
    """Log the mean cost over the seeds whose time is known: those that this machine ran."""
    took = [one for seed, hash_ in weights.items() if (one := timing.recorded(prepared.layout, RunId(name, seed), hash_))]
    if took:
        seconds = sum(one["seconds"] for one in took) / len(took)
        flops = sum(one["flops"] for one in took) / len(took) if all("flops" in one for one in took) else None
        log_cost(run_log, prepared, name, result, (seconds, flops), step)


def open_bank(prepared: Prepared, key: str, previous: Mapping[str, Any] | None) -> RunLog:
    """Open the parent MLflow run of a reference bank, the same one when the bank grows.

    Args:
        prepared: the images and splits.
        key: of the bank.
        previous: reference of the run that an earlier process opened; None: there was none.

    Returns:
        The open log, which the caller closes.
    """
    config = prepared.config
    about = f"**bank {key}**: {ABOUT_BANK}"
    known = tags(prepared, "bank") | {"bank": key}
    run_log = RunLog.open(
        config.workspace, name="bank", tags=known, params=as_logged(config).resolved("retrained"), description=about, previous=previous
    )
    with closed_on_failure(run_log):
        log_inputs(run_log, prepared)
    return run_log


def open_bank_model(
    prepared: Prepared, made: LogitsTable, parent: Mapping[str, Any], previous: Mapping[str, Any] | None, step: int
) -> RunLog:
    """Open the MLflow run of one model of a bank and log the scores of its logits table.

    Its method tag is bank/<kind>, so that it is not mistaken for the workspace's own reference.

    Args:
        prepared: the images and splits.
        made: the logits table.
        parent: reference of the bank's MLflow run.
        previous: reference of the run that an earlier process opened; None: there was none.
        step: number of the model's last epoch.

    Returns:
        The open log, which the caller closes.
    """
    kind, seed = made.about["kind"], int(made.about["seed"])
    run_log = RunLog.open(
        prepared.config.workspace,
        name=made.name,
        tags=tags(prepared, str(RunId(kind, chain="bank"))) | {"seed": str(seed), "result": short(made.about["model"])},
        params=as_logged(prepared.seeded(seed).config).resolved(kind) | {"recipe": made.about["recipe"]},
        description=describe(prepared.config, made.name),
        previous=previous,
        parent=parent,
    )
    accuracy, loss = accuracy_and_loss(made)
    with closed_on_failure(run_log):
        run_log.metrics({f"{split}.accuracy": value for split, value in accuracy.items()}, step)
        run_log.metrics({f"{split}.loss": value for split, value in loss.items()}, step)
        run_log.metrics({"gap": accuracy["retain"] - accuracy["forget"]}, step)
    return run_log
