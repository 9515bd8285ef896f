"""Which runs a configuration asks for: one, one for each seed, the links of a chain."""

import re

from lethe.config.loader import Config, load
from lethe.workspace.plan import ORIGINAL, PlannedRun, plan, plan_reference, planned_results
from lethe.workspace.run_names import RunId
from support.project import ROOT


def configured(*words: str) -> Config:
    return load(words, params=ROOT / "params.yaml")


def test_one_run_starts_from_the_original() -> None:
    config = configured("--method", "model_1", "--run.seed", "7")
    assert plan(config) == (PlannedRun(RunId("model_1"), config.recipe(), 7, ORIGINAL),)
    assert planned_results(config) == (RunId("model_1"),)


def test_several_seeds_are_as_many_runs_and_one_result() -> None:
    config = configured("--method", "hybrid_4", "--run.seed", "2", "--run.seeds", "3")
    runs = plan(config)
    assert [str(planned) for planned in runs] == ["hybrid_4.seed2", "hybrid_4.seed3", "hybrid_4.seed4"]
    assert [planned.seed for planned in runs] == [2, 3, 4]
    assert {(planned.recipe, planned.parent) for planned in runs} == {(config.recipe(), ORIGINAL)}
    assert planned_results(config) == (RunId("hybrid_4"),)


def test_each_link_of_a_chain_starts_from_the_one_before() -> None:
    config = configured("--method", "as_run")
    runs = plan(config)
    assert [planned.parent for planned in runs] == [ORIGINAL, *(planned.run for planned in runs[:-1])]
    assert {planned.run.method: planned.recipe for planned in runs} == config.chain_recipes()
    assert {planned.run.chain for planned in runs} == {"as_run"} and {planned.run.seed for planned in runs} == {None}
    assert planned_results(config) == tuple(planned.run for planned in runs)


def test_a_reference_starts_from_random_weights() -> None:
    config = configured("--run.seed", "3")
    for kind in ("original", "retrained"):
        assert plan_reference(config, kind, config.reference_recipe(kind)) == PlannedRun(
            RunId(kind), config.reference_recipe(kind), 3, None
        )


def test_only_the_plan_asks_whether_there_are_several() -> None:
    """Beside the configuration, which refuses several seeds of a chain."""
    for path in (ROOT / "src" / "lethe").rglob("*.py"):
        if path.parent.name != "config" and path.name != "plan.py":
            assert not re.search(r"config\.chain\b|run\.seeds [><=]|chain_recipes\(", path.read_text()), path
