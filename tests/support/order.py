"""In which order several workers take tests: the longest first, so that they end together."""

from collections.abc import Iterable

from xdist.scheduler.loadscope import LoadScopeScheduling

# Tests that a worker takes one by one, in seconds of a core; all others are taken by file, for what they share
ALONE = {
    "docs/test_contributing.py::test_a_new_method": 30,
    "docs/test_notebook.py::test_it_runs_from_nothing_and_leaves_nothing": 40,
    "docs/test_readme.py::test_a_section_can_be_typed": 25,
    "integration/cli/test_bank.py::test_it_grows_is_kept_and_gone_on_with": 10,
    "integration/cli/test_bank.py::test_the_full_demo_from_bank_to_report": 30,
    "integration/cli/test_cli.py::test_a_workspace_says_what_it_was_made_with": 15,
    "integration/cli/test_cli.py::test_equal_seeds_are_equal_bytes_in_another_interpreter": 15,
    "integration/cli/test_shadow_models.py::test_a_real_run_has_the_second_side": 12,
    "integration/cli/test_shadow_models.py::test_shadows_learn_and_forget_their_own_halves": 40,
    "integration/dvc/test_dvc.py::test_a_killed_dvc_is_gone_on_with": 20,
    "integration/dvc/test_dvc.py::test_an_edit_runs_what_it_touches_and_nothing_else": 30,
    "integration/dvc/test_dvc.py::test_made_versioned_shared_and_experimented_with": 60,
    "integration/dvc/test_earlier_workspace.py::test_no_command_trains_or_reads_again": 25,
}
FILES = {
    "integration/ray/test_ray.py": 100,
    "integration/wheel/test_wheel.py": 60,
    "integration/search/test_survival.py": 60,
    "integration/search/test_search.py": 60,
    "integration/mlflow/test_launch.py": 50,
    "integration/mlflow/test_tracking.py": 40,
    "integration/mlflow/test_team.py": 40,
    "integration/browser/test_browser.py": 40,
    "integration/cli/test_cli.py": 40,
    "integration/cli/test_resume.py": 30,
    "contract/test_contract.py": 40,
    "contract/test_golden.py": 20,
    "unit/engine/test_frozen_prefix.py": 20,
}


def scope(nodeid: str) -> str:
    """What a worker takes at once: a test, or a file."""
    nodeid = nodeid.removeprefix("tests/")
    return nodeid if nodeid.partition("[")[0] in ALONE else nodeid.partition("::")[0]


def longest_first(nodeids: Iterable[str]) -> list[str]:
    """Those of one scope stay together, in their order."""
    scopes: dict[str, list[str]] = {}
    for nodeid in nodeids:
        scopes.setdefault(scope(nodeid), []).append(nodeid)
    seconds = {**ALONE, **FILES}
    ordered = sorted(scopes, key=lambda name: -seconds.get(name.partition("[")[0], len(scopes[name]) / 10))
    return [nodeid for name in ordered for nodeid in scopes[name]]


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A worker that has nothing more to do takes the longest of what is left."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)
