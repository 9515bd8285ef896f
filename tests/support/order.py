"""In which order several workers take tests: the longest first, so that they end together."""

from collections.abc import Iterable
from typing import Any

from xdist.scheduler.loadscope import LoadScopeScheduling

# Tests that a worker takes one by one, in seconds of processor time that they took; all others are taken by file
ALONE = {
    "docs/test_contributing.py::test_a_new_method": 15,
    "docs/test_notebook.py::test_it_runs_from_nothing_and_leaves_nothing": 16,
    "docs/test_readme.py::test_a_section_can_be_typed": 25,
    "integration/cli/test_bank.py::test_the_full_demo_from_bank_to_report": 17,
    "integration/cli/test_cli.py::test_equal_seeds_are_equal_bytes_in_another_interpreter": 12,
    "integration/cli/test_cli.py::test_the_chain": 8,
    "integration/cli/test_cli.py::test_the_demo": 13,
    "integration/cli/test_erase.py::test_erased_and_the_next_request": 10,
    "integration/cli/test_originals.py::test_two_originals_with_two_seeds_each": 6,
    "integration/cli/test_seeds.py::test_at_once_they_are_what_they_are_one_by_one": 6,
    "integration/cli/test_shadow_models.py::test_a_real_run_has_the_second_side": 7,
    "integration/cli/test_shadow_models.py::test_shadows_learn_and_forget_their_own_halves": 16,
    "integration/dvc/test_dvc.py::test_a_killed_dvc_is_gone_on_with": 17,
    "integration/dvc/test_dvc.py::test_an_edit_runs_what_it_touches_and_nothing_else": 24,
    "integration/dvc/test_dvc.py::test_made_versioned_and_shared": 45,
}
FILES = {
    "contract/test_contract.py": 50,
    "contract/test_field_methods.py": 12,
    "contract/test_golden.py": 7,
    "integration/browser/test_browser.py": 32,
    "integration/browser/test_report_page.py": 10,
    "integration/cli/test_bank.py": 10,
    "integration/cli/test_cli.py": 52,
    "integration/cli/test_data.py": 13,
    "integration/cli/test_erase.py": 15,
    "integration/cli/test_given_checkpoint.py": 13,
    "integration/cli/test_resume.py": 45,
    "integration/cli/test_seeds.py": 25,
    "integration/cli/test_settings.py": 11,
    "integration/dvc/test_dvc.py": 16,
    "integration/dvc/test_earlier_workspace.py": 30,
    "integration/mlflow/test_launch.py": 12,
    "integration/mlflow/test_team.py": 22,
    "integration/mlflow/test_tracking.py": 25,
    "integration/parallel/test_pool.py": 7,
    "integration/ray/test_ray.py": 81,
    "integration/search/test_search.py": 45,
    "integration/search/test_survival.py": 45,
    "integration/wheel/test_wheel.py": 45,
    "unit/config/test_config.py": 11,
    "unit/engine/test_frozen_prefix.py": 9,
    "unit/evaluation/test_intervals.py": 9,
    "unit/evaluation/test_measures.py": 12,
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

    def remove_node(self, node: Any) -> str | None:
        """Give what a worker left undone to the others, but for the test in which it died.

        xdist 3.8 also hands out what that worker had finished, for which the others wait without an end (its issues 1323 and 1378), and
        runs the test that ended the worker in one after the other (1371)."""
        left = {name: unit for name, unit in self.assigned_work[node].items() if not all(unit.values())}
        self.assigned_work[node] = {}
        super().remove_node(node)
        if not left:
            return None
        unit = next(iter(left.values()))
        fatal: str = next(test for test, done in unit.items() if not done)
        unit[fatal] = True
        self.workqueue.update({name: unit for name, unit in left.items() if not all(unit.values())})
        for other in self.nodes:
            self._reschedule(other)
        return fatal

    def schedule(self) -> None:
        late = self.collection is not None  # a worker takes the place of another: it waits for a second unit or for the end (1327)
        super().schedule()
        if late:
            super().schedule()
