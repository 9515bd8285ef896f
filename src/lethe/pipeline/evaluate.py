"""Scores of results that exist: from their logits tables, which are read from the models where they are missing."""

import sys
from collections.abc import Sequence

from lethe._util.errors import RunFailed, UserError
from lethe._util.log import log
from lethe.config.describe import unknown_method
from lethe.config.loader import STAGE, Config
from lethe.evaluation import seed_aggregation
from lethe.pipeline import ledger_events, references, run_logging, shadow_models
from lethe.pipeline.unlearn import print_replications
from lethe.reporting import card_files, console_tables
from lethe.workspace import artifacts, scores
from lethe.workspace.layout import Layout
from lethe.workspace.plan import planned_results
from lethe.workspace.prepare import prepare, remember
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared


def evaluate(config: Config, names: Sequence[str] = (), again: bool = True) -> None:
    """Score results and print them next to both references; the scores are added to the MLflow runs of the results.

    Args:
        config: the configuration.
        names: methods, `original`, `retrained`, or `all` that have a logits table; none: the results of the configured method.
        again: False: only what has no scores yet, or scores of other tables.

    Raises:
        UserError: a name is unknown, a result does not exist, or files in the workspace are of other settings.
        RunFailed: a model that the attacks need could not be trained; what does not need it is scored.
    """
    for name in names:
        if RunId.parse(name).key not in (known := (*config.methods, *STAGE, "all")):
            raise unknown_method(name, known)
    layout = Layout(config.workspace)
    if not names:
        names = [str(run) for run in planned_results(config)]
    elif "all" in names:
        names = [str(run) for run in layout.with_logits() if run.seed is None]
    methods = [name for name in names if name not in STAGE]
    kinds = [kind for kind in STAGE if methods or kind in names]
    given: dict[str, references.Given] = {}

    def needs_weights(drawn: Prepared, kind: str) -> bool:
        return not artifacts.available(drawn, kind) or layout.weights(kind).exists()

    def accept(drawn: Prepared) -> None:
        for name in methods:
            if not layout.exists(name):
                again = repair_command("unlearn", config, method=RunId.parse(name).key)
                raise UserError(f"{layout.weights(name)} does not exist; {again} makes it")
        references.read_given(drawn, [kind for kind in kinds if needs_weights(drawn, kind)], given)

    prepared = prepare(config, accept=accept)
    for name in methods:
        for each in _with_seeds(prepared, name):
            artifacts.logits(prepared, each)
    for kind in kinds:
        if needs_weights(prepared, kind):
            references.weights(prepared, kind, given=given.pop(kind, None))
    failed = _add_shadow_models(prepared, names)
    for name in names:
        scores.scores(prepared, name, recompute=again)
    for name in methods:
        for each in _with_seeds(prepared, name):
            run_logging.add_scores(prepared, each)
    run_logging.log_references(prepared, kinds, rescored=names)
    remember(prepared, "evaluate.")
    ledger_events.record_evaluated(prepared, methods)
    table = [(name, scores.scores(prepared, name)) for name in (*kinds, *methods)]
    print(console_tables.accuracy_table(table, scores.unfit_reference(prepared)))
    print_replications(prepared, methods, again)
    if config.evaluate.swap or config.evaluate.shadows:
        print(console_tables.attack_table([row for row in table if row[0] in names]))
    sys.stdout.flush()
    log(f"compare the runs: {run_logging.where_to_look()}")
    card_files.log_outdated(prepared, methods)
    if failed:
        raise failed


def _add_shadow_models(prepared: Prepared, names: Sequence[str]) -> RunFailed | None:
    """Add the columns of the attacks to the logits tables. Returns the first failure: all else still has scores."""
    for name in names:
        shadow_models.check(prepared, name)
    failed: RunFailed | None = None
    for name in names:
        try:
            shadow_models.add(prepared, name)
        except RunFailed as error:
            failed = failed or RunFailed(f"{name} is scored without evaluate.swap or evaluate.shadows: {error}")
    return failed


def _with_seeds(prepared: Prepared, name: str) -> list[str]:
    """Return the results of each seed, where it represents several, and the result itself.

    Raises:
        UserError: the result of a seed does not exist; the message has the command that makes it.
    """
    run, several = RunId.parse(name), artifacts.seeds_of(prepared, name)
    for seed in several:
        path = prepared.layout.weights(run.with_seed(seed))
        if not prepared.layout.exists(run.with_seed(seed)):
            keys = {"method": name, "run.seed": str(min(several)), "run.seeds": str(len(several))}
            again = repair_command("unlearn", prepared.config, **keys)
            numbers = seed_aggregation.seed_range(sorted(several))
            raise UserError(f"{path} does not exist, and {name} is of seeds {numbers}; {again} makes it")
    return [*(str(run.with_seed(seed)) for seed in several), name]
