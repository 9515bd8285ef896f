"""The stages that are a few calls: prepare, pretrain, retrain, demo."""

from dataclasses import replace
from functools import partial

from lethe._util import dvc_stage
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data import splits
from lethe.pipeline import references
from lethe.pipeline.bank_training import train_bank
from lethe.pipeline.evaluate import evaluate
from lethe.pipeline.unlearn import unlearn
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.reporting import console_tables
from lethe.reporting.report import report
from lethe.tracking.sender import send
from lethe.workspace import copies, scores
from lethe.workspace import prepare as preparation
from lethe.workspace.layout import Layout
from lethe.workspace.plan import planned_results

# What the demo shows next to the configured method: one that hardly forgets, one that goes too far, and the one to use
DEMO_METHODS = ("model_1", "lethe_too_strong", "lethe")
BANK_SEEDS = ("hybrid_4", "model_1")  # by as many seeds as the bank has retrained models; the other methods by run.seeds


def prepare(config: Config) -> None:
    """Write images, labels, ids and the four splits to data/ in the workspace, and print their sizes."""
    forget = Layout(config.workspace).splits / "forget.csv"
    before = (splits.count(forget.parent, "forget"), forget.read_bytes()) if forget.exists() else (0, b"")
    closed = bool(before[1]) and not before[0]
    prepared = preparation.prepare(config, replace=True)
    if before[0] and before[1] != forget.read_bytes() and prepared.layout.weights("original").exists():
        log(f"the request before, of {before[0]:,} images, is replaced: those that are not in the new one are retain images again")
    if closed and len(prepared.splits["forget"]):
        log(f"the request before was erased; the next one, of {len(prepared.splits['forget']):,} images, begins")
    copies.counts(prepared)
    counts = ", ".join(f"{name} {len(index):,}" for name, index in prepared.splits.items())
    print(f"{prepared.layout.data}: {len(prepared.images.classes)} classes; {counts}")


def pretrain(config: Config) -> None:
    """Train the original on retain and forget, or take it from pretrain.checkpoint; print its scores."""
    _reference(config, "original")


def retrain(config: Config) -> None:
    """Train the reference on retain alone, or take it from retrain.checkpoint; print its scores."""
    _reference(config, "retrained")


def _reference(config: Config, kind: str) -> None:
    references.check_models(config, kind, replace=True)
    given: dict[str, references.Given] = {}
    prepared = preparation.prepare(config, accept=partial(references.read_given, kinds=(kind,), into=given, replace=True))
    references.weights(prepared, kind, replace=True, launched=True, given=given.pop(kind, None))
    send([config.workspace])  # what MLflow did not take when it was trained
    if kind == "retrained" or dvc_stage.active():  # DVC may train the original after the retrained model
        references.judge(prepared)
    print(console_tables.accuracy_table([(kind, scores.scores(prepared, kind))]))


def demo(config: Config) -> None:
    """Unlearn by the configured method and by DEMO_METHODS, and print one table with the verdicts; score the configured method again
    where the attacks by models on other requests are asked for."""
    planned = [replace(config, method=method) for method in demo_methods(config)]
    for each in planned[:-1]:
        unlearn(each, show=False)
    unlearn(planned[-1], beside=tuple(str(run) for each in planned[:-1] for run in planned_results(each)))
    if config.evaluate.swap or config.evaluate.shadows:
        evaluate(config, ["original", config.method])


def demo_methods(config: Config) -> list[str]:
    """Names of the methods that the demo runs, in its order.

    Args:
        config: the configuration; a params.yaml of an earlier version lacks methods that are sections of the present one.
    """
    names = dict.fromkeys((DEMO_METHODS[0], config.method, *DEMO_METHODS[1:]))
    return [name for name in names if name in config.methods]


def full_demo(config: Config) -> None:
    """Run the report's ten methods by several seeds, train the bank, score all of it against the bank, and write the report.

    Finished runs are kept."""
    for method in PAPER_METHODS:
        seeds = config.retrain.seeds if method in BANK_SEEDS else config.run.seeds
        unlearn(replace(config, method=method, run=config.run.model_copy(update={"seeds": seeds, "evaluate": False})))
    train_bank(config)
    evaluate(config, ["original", "retrained", *PAPER_METHODS], again=False)
    report(config)
