"""Fixtures of all layers: a small real project to run the stages in, its interpreter, and a database."""

import gc
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from lethe._util import in_use

pytest.register_assert_rewrite("support")

from support.dvc_checkout import Checkout, checkouts  # noqa: E402
from support.order import LongestFirst, longest_first  # noqa: E402
from support.project import Project, Warm, copied, tool, write_params  # noqa: E402

settings.register_profile("no clock", deadline=None)  # no test asserts a duration
settings.register_profile("fuzz", deadline=None, max_examples=5000)  # make fuzz
settings.load_profile("no clock")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background with Ctrl-C ignored


@pytest.fixture(autouse=True)
def in_no_workspace() -> Iterator[None]:
    """A process holds what it works in until its command ends; a test that calls functions has no such end."""
    yield
    in_use.leave()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Warm]:
    parent = Warm(tmp_path_factory.mktemp("said"), shared)
    yield parent
    parent.close()


@pytest.fixture(scope="session")
def built(shared: Path, warm: Warm) -> Path:
    """Data, original and retrained, and a store without rows: once for all workers."""
    with FileLock(shared / "built.lock"):
        project = Project(shared / "built", warm)
        if not (project.root / "mlflow.db").exists():
            project.root.mkdir(exist_ok=True)
            write_params(project.root / "params.yaml")
            project.ran("prepare")
            shutil.copy(warm.empty_store, shared / "rows.db")
            store = f"sqlite:///{shared}/rows.db"
            for stage in ("pretrain", "retrain"):
                project.ran(stage, MLFLOW_TRACKING_URI=store)
            project.ran("evaluate", "--method", "original", MLFLOW_TRACKING_URI=store)  # against the retrained model: else every test does
            shutil.copy(warm.empty_store, project.root / "mlflow.db.new")
            (project.root / "mlflow.db.new").rename(project.root / "mlflow.db")  # the last: it is all there
    return shared / "built"


@pytest.fixture
def project(built: Path, warm: Warm, tmp_path: Path) -> Project:
    """A copy of one's own, with data, original and retrained."""
    return copied(built, tmp_path / "project", warm)


@pytest.fixture
def bare(built: Path, warm: Warm, tmp_path: Path) -> Project:
    """Nothing but params.yaml and a store without rows."""
    return copied(built, tmp_path / "bare", warm, "data", "models", "epochs", "logits", "scores")


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: make postgres")
    if tool().programs() is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    with tool().server() as server:
        yield server


@pytest.fixture
def small(tmp_path: Path, warm: Warm, built: Path) -> Iterator[Checkout]:
    """A Git and DVC repository, with a store that has its tables."""
    yield from checkouts(tmp_path, warm, built)


# --- layers -----------------------------------------------------------------------------------------------------------


def layer(nodeid: str) -> str:
    """The layer of a test: `unit`, `contract`, `docs`, or `integration/<part>`."""
    parts = nodeid.partition("::")[0].removeprefix("tests/").split("/")[:-1]
    return "/".join(parts[:2] if parts[:1] == ["integration"] else parts[:1])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds each layer took, summed over all workers."""
    seconds: dict[str, float] = defaultdict(float)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            seconds[layer(report.nodeid)] += report.duration
    if seconds:
        parts = ", ".join(f"{name} {value:.0f}" for name, value in sorted(seconds.items()))
        terminalreporter.write_line(f"seconds by layer, summed over workers: {parts}; in all {sum(seconds.values()):.0f}")


def pytest_collection_finish() -> None:
    """Leave what libraries and tests consist of out of every garbage collection to come: a twentieth of the unit layer's time."""
    gc.collect()
    gc.freeze()


# --- several workers ----------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        by_id = {item.nodeid: item for item in items}
        items[:] = [by_id[nodeid] for nodeid in longest_first(by_id)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst:
    config.option.loadscopereorder = False
    return LongestFirst(config, log)
