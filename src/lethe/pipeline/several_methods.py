"""Several methods in one command: each its own run, one table."""

from collections.abc import Sequence

from lethe._util.errors import RunFailed
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.pipeline.unlearn import check_batches, check_recipes, print_scores, unlearn
from lethe.tracking import outbox
from lethe.workspace.plan import each_method, planned_results
from lethe.workspace.workspace import Prepared


def unlearn_each(config: Config, names: Sequence[str]) -> None:
    """Unlearn by several methods, one after another, and print their scores in one table.

    A method that fails does not stop the others.

    Args:
        config: the configuration.
        names: as `each_method` takes them.

    Raises:
        UserError: as `unlearn.unlearn`, of any of the methods before the first of them runs.
        RunFailed: of the first method that failed, after all have run.
    """
    configs = each_method(config, names)
    recipes = [check_recipes(one)[0] for one in configs]

    def accept(drawn: Prepared) -> None:
        for one, own in zip(configs, recipes, strict=True):
            for recipe in own:
                check_batches(one, recipe, len(drawn.splits["retain"]))

    failed: RunFailed | None = None
    done: list[Prepared] = []
    for one in configs:
        try:
            done.append(unlearn(one, show=False, accept=accept))
        except RunFailed as error:
            log(f"{one.method} failed: {error}")
            failed = failed or error
        outbox.release_launchers_run()
    if done and config.run.evaluate:
        *others, last = done
        print_scores(last, tuple(str(run) for each in others for run in planned_results(each.config)))
    if failed:
        raise failed
