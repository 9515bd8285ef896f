"""Unlearning, from a configuration to a table of results. Missing references are trained first; files of other settings are refused."""

import sys
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch.nn import Module

from lethe._util import memory
from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.engine import engine
from lethe.evaluation.reference import TrainedModel
from lethe.models import architectures, device
from lethe.pipeline import ledger_events, reference_sample, references, run_logging
from lethe.pipeline.chain import one_after_another
from lethe.pipeline.multi_seed import unlearn_seeds
from lethe.pipeline.runner import start
from lethe.recipes.blocks import resolve
from lethe.recipes.held_out import for_selection
from lethe.recipes.recipe import Phase, Recipe
from lethe.recipes.trainable import Layers, Stages, UnknownLayer
from lethe.reporting import card_files, console_tables
from lethe.tracking.sender import send
from lethe.workspace import copies, replication, scores, signing
from lethe.workspace.plan import PlannedRun, plan, planned_results
from lethe.workspace.prepare import prepare, remember
from lethe.workspace.workspace import Prepared


def unlearn(
    config: Config, beside: tuple[str, ...] = (), show: bool = True, accept: Callable[[Prepared], None] = lambda drawn: None
) -> Prepared:
    """Unlearn by the configured method: one run, one for each seed, or a chain. Prints the scores next to those of both references.

    Those of a single run are printed before its model is exported and figures are drawn, which takes seconds.

    Args:
        config: the configuration.
        beside: names of other results of the workspace, printed before the method's.
        show: whether scores are printed.
        accept: is called before anything is written, as that of `prepare`.

    Returns:
        The images and splits.

    Raises:
        UserError: the configuration does not fit the data or the network, or files in the workspace were made with other settings.
        RunFailed: a run diverged, or another process is running it.
    """
    show = show and config.run.evaluate
    if key := config.card.signing_key:  # the ledger is signed at the end, when a wrong one would be too late
        signing.private_key(config.path(key))
    runs = plan(config)
    prepared, later = _prepare(config, runs, accept)
    further, rescored = replication.further(prepared), list[str]()

    def scored() -> None:
        if show and not further:
            rescored.extend(name for name in run_logging.ABOUT if not scores.is_current(prepared, name))
            print_scores(prepared, beside)

    shown = _run(prepared, runs, scored, later) and not further
    for other in further:
        _run_from_another(prepared, other)
    ledger_events.record_unlearned(prepared)
    if config.run.evaluate:
        run_logging.log_references(prepared, rescored=rescored)
        remember(prepared, "evaluate.")
        ledger_events.record_evaluated(prepared, map(str, planned_results(config)))
    if show and not shown:
        print_scores(prepared, beside)
    card_files.log_outdated(prepared, map(str, planned_results(config)))
    send([config.workspace])  # records of a process that was killed after the result was complete
    return prepared


def _run(
    prepared: Prepared,
    runs: tuple[PlannedRun, ...],
    scored: Callable[[], None] = lambda: None,
    later: Callable[[], None] | None = None,
) -> bool:
    """Run what is not finished: one run, one for each seed, or a chain; `later` is called after the first epoch of a single run. Returns
    whether `scored` was called, between the scores and the export of the last run: not where nothing was left to do, nor for several
    seeds."""
    called = False
    if runs[0].run.seed is None:
        with one_after_another(prepared, runs) as group:
            for planned in group.missing():
                with start(prepared, planned, parent=group.parent, later=later) as run:
                    for epoch in engine.run(planned.recipe, run.network, run.data, run.options, state=run.state):
                        run.record(epoch)
                    run.finish()
                    if planned == runs[-1]:
                        scored()
                        called = True
                    run.export()
    else:
        unlearn_seeds(prepared, runs)
    return called


def _run_from_another(prepared: Prepared, other: Prepared) -> None:
    """Train a further original where it is missing, and run the method from it."""
    log(f"{prepared.config.method}: from the original of seed {other.config.run.seed}, in {other.layout.root}")
    replication.share_secret(prepared, other)
    references.weights(other, "original")
    _run(other, plan(other.config))


def _prepare(
    config: Config, runs: tuple[PlannedRun, ...], accept_too: Callable[[Prepared], None]
) -> tuple[Prepared, Callable[[], None] | None]:
    """Check the recipes, read the images and splits, train or load the references. Returns also what is left for after the first epoch: to
    read the references that a sample leaves no doubt of; None where all are read."""
    device.resolve(config.run)
    recipes, network = check_recipes(config)
    _log_layers(config, recipes, network)
    needed = references.needed(config)
    references.check_models(config, *needed)
    given: dict[str, references.Given] = {}
    known: dict[str, TrainedModel] = {}  # what a sample shows of a model before files are written is not read again after it

    def accept(drawn: Prepared) -> None:
        for recipe in recipes:
            check(drawn, recipe)
        accept_too(drawn)
        references.check_standing(drawn, *needed)
        references.read_given(drawn, needed, given, sample=reference_sample.for_run(drawn, runs, known))

    prepared = prepare(config, accept=accept, next_request=True)
    copies.counts(prepared)
    ledger_events.record_received(prepared)
    sample = reference_sample.for_run(prepared, runs, known)
    for kind in needed:
        references.weights(prepared, kind, sample=sample, given=given.pop(kind, None))
    if not config.run.evaluate:  # nothing here needs the retrained model
        return prepared, None
    if sample and not all(reference_sample.is_read(prepared, kind) for kind in STAGE) and sample.leaves_no_doubt():
        return prepared, partial(_read_references, prepared, sampled=True)
    _read_references(prepared)
    return prepared, None


def _read_references(prepared: Prepared, sampled: bool = False) -> None:
    for kind in STAGE:
        references.read_in_full(prepared, kind)
    references.judge(prepared, sampled)
    memory.give_back()


def check_recipes(config: Config) -> tuple[tuple[Recipe, ...], Module]:
    """Check, before any data is downloaded or written, that the network has the modules that the method names.

    Args:
        config: the configuration.

    Returns:
        The recipes, and the network they were checked on.

    Raises:
        UserError: a module name matches nothing; the message names the key.
    """
    network = architectures.build(config.model.architecture, 2, 0, drawn=False)
    recipes = tuple(dict.fromkeys(planned.recipe for planned in plan(config)))
    for recipe in recipes:
        _check_layers(config, recipe, network)
    return recipes, network


def print_scores(prepared: Prepared, beside: tuple[str, ...]) -> None:
    """Print the table of results on stdout, the next command on stderr.

    Args:
        prepared: the images and splits, configured for the method.
        beside: names of other results of the workspace, printed before the method's.
    """
    names = ["original", "retrained", *beside, *map(str, planned_results(prepared.config))]
    print(console_tables.accuracy_table([(name, scores.scores(prepared, name)) for name in names], scores.unfit_reference(prepared)))
    print_replications(prepared, names[2:])
    sys.stdout.flush()
    log(f"compare the runs: {run_logging.where_to_look()}")


def print_replications(prepared: Prepared, names: Iterable[str], recompute: bool = False) -> None:
    """Score and print the runs of methods from several originals, of those that have any; their MLflow runs get the scores.

    Args:
        prepared: the workspace.
        names: of the methods.
        recompute: score them again.
    """
    scored = partial(run_logging.add_score_from_another, prepared)
    for name in names:
        if found := replication.replicated(prepared, name, recompute, scored):
            print(console_tables.replication_lines(name, found))


def check(prepared: Prepared, recipe: Recipe) -> None:
    """Check a recipe against the data and the network.

    Args:
        prepared: the images and splits.
        recipe: of the configured method.

    Raises:
        UserError: a batch is larger than the retain split, or a module name matches nothing; the message names the key. Or no image of
            validation is left to measure the result by.
    """
    check_batches(prepared.config, recipe, len(prepared.splits["retain"]))
    validation, labels = (torch.from_numpy(each) for each in (prepared.splits["validation"], prepared.images.labels))
    for_selection(recipe, {"validation": validation}, labels)
    _check_layers(prepared.config, recipe, prepared.bare_network())


def check_batches(config: Config, recipe: Recipe, retain: int) -> None:
    """Check that each batch fits into the retain split.

    Args:
        config: names the method.
        recipe: of the method.
        retain: number of retain images.

    Raises:
        UserError: a batch is larger; the message names the key.
    """
    for phase in recipe:
        if isinstance(phase, Phase) and phase.batch_size > retain:
            fits = 2 ** max(0, (retain // 3).bit_length() - 1)  # several steps an epoch
            raise UserError(
                f"methods.{config.method}.batch_size is {phase.batch_size}; it takes at most the {retain} retain images, "
                f"e.g. --methods.{config.method}.batch_size {fits}"
            )


def _log_layers(config: Config, recipes: tuple[Recipe, ...], network: Module) -> None:
    """Log which modules the names of roles stand for in this network, and ResNet's names in another one."""
    selects = [phase.trains for recipe in recipes for phase in recipe if isinstance(phase, Phase)]
    layers = [each for select in selects for each in ([one for _, one in select.stages] if isinstance(select, Stages) else [select])]
    names = dict.fromkeys(name for each in layers if isinstance(each, Layers) for name in each.names)
    parts = [f"{name} is {' '.join(found)}" for name in names if (found := resolve(network, name)) != (name,)]
    if parts:
        log(f"methods.{config.method}, in {config.model.architecture}: {'; '.join(parts)}")


def _check_layers(config: Config, recipe: Recipe, network: Module) -> None:
    for phase in recipe:
        chosen = [partial(phase.trains, progress=t) for t in (0.0, 1.0)] if isinstance(phase, Phase) else [getattr(phase, "writes", None)]
        for names in filter(None, chosen):
            try:
                names(network)
            except UnknownLayer as error:
                arguments = config.methods[config.method].model_dump()
                named = [word for word in ("trains", "unfreeze", "negate", "reinit") if error.layer in arguments.get(word, ())]
                raise UserError(f"methods.{config.method}.{named[0] if named else 'trains'}: {error}") from None
