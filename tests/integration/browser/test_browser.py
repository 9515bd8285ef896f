"""What a person looks at, in a real browser: the runs' table in MLflow's UI, its charts, the comparison, and a search's pictures.

Chromium is driven over its own debugging pipe: one process for all pages, and each is waited for until it shows what it should."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from support.browser import CHROMIUM, Browser
from support.project import NET, ROOT, Project, Warm, clean, copied

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")]

COLUMNS = ("retain.accuracy", "forget.accuracy", "validation.accuracy", "test.accuracy", "forget.distance", "test.distance")


@dataclass(frozen=True)
class Looked:
    """MLflow's UI on a small project's runs, and a browser before it."""

    project: Project
    browser: Browser
    address: str

    def open(self, page: str) -> Browser:
        self.browser.open(f"{self.address}/#/{page}")
        return self.browser


@pytest.fixture(scope="module")
def looked(built: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    """The command is that of `make ui`, on a free port. While it starts, a method and a search make the rows."""
    project = copied(built, tmp_path_factory.mktemp("looked") / "project", warm)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = re.findall(r"^\t(.* mlflow ui .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = f"exec env {line}".replace("$(CURDIR)", str(project.root)).replace("$(PORT)", str(port))
    path = {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    log = (project.root / "ui.log").open("w")
    ui = subprocess.Popen(["bash", "-c", command], cwd=project.root, env=clean() | path, stdout=log, stderr=log, start_new_session=True)
    browser = Browser(project.root.parent / "chromium")
    try:
        project.ran("unlearn", "--method", "hybrid_4", CURVES="drawn")
        space = "--search.spaces.model_1"
        project.ran("search", "--search.method", "model_1", "--search.trials", "4", f"{space}.epochs.low", "1", f"{space}.epochs.high", "3")
        end = time.monotonic() + NET
        while True:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert ui.poll() is None and time.monotonic() < end, (project.root / "ui.log").read_text()
            time.sleep(0.2)
        yield Looked(project, browser, f"http://127.0.0.1:{port}")
    finally:
        browser.close()
        with suppress(ProcessLookupError):
            os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()
        log.close()


NAMES = ("original", "retrained", "hybrid_4")


def shown(value: float) -> str:
    """As JavaScript writes a number."""
    return str(int(value)) if value == int(value) else repr(value)


def test_the_table_of_runs(looked: Looked) -> None:
    """At the address that every result ends with: rows by name, and the columns that matter with their values."""
    page = looked.open("experiments/0/runs?viewStateShareKey=lethe")
    page.until_said(*NAMES, *COLUMNS)
    rows = {row["name"]: row["metrics"] for row in looked.project.rows()}
    for name in NAMES:
        page.until_said(*(shown(rows[name][column][-1][1]) for column in COLUMNS if column in rows[name]))
    assert "search/model_1" in page.text()


def test_the_charts_of_all_runs(looked: Looked) -> None:
    page = looked.open("experiments/0/runs?compareRunsMode=CHART")
    page.until_said("forget.accuracy", "epoch_seconds", "hybrid_4 (forget.accuracy)")
    page.until("document.querySelectorAll('.js-plotly-plot .scatterlayer .trace path.js-line').length >= 3")


def test_runs_compared(looked: Looked) -> None:
    ids = {row["name"]: row["run_id"] for row in looked.project.rows()}
    asked = json.dumps([ids[name] for name in NAMES])
    page = looked.open(f"compare-runs?runs={quote(asked)}&experiments={quote(json.dumps(['0']))}")
    page.until_said("Comparing 3 Runs", *NAMES, "retain.accuracy")
    page.until("document.querySelector('.js-plotly-plot g.parcoords')?.getBoundingClientRect().width > 300")


@pytest.mark.parametrize(("row", "pictures"), [("hybrid_4", ["curves"]), ("search/model_1", ["front", "importances", "slice.utility"])])
def test_the_pictures_of_a_row(row: str, pictures: list[str], looked: Looked) -> None:
    """The curves of a method; the front of a search, and what Optuna draws of it."""
    (run_id,) = (each["run_id"] for each in looked.project.rows() if each["name"] == row)
    for name in pictures:
        page = looked.open(f"experiments/0/runs/{run_id}/artifacts/{name}.png")
        page.until("[...document.images].some(image => image.complete && image.naturalWidth > 300)")


def test_the_card(looked: Looked) -> None:
    """Its page stands alone: all pictures are in it, and it fits the window."""
    page = Path(looked.project.ran("report", "card", "--method", "hybrid_4").stdout.splitlines()[0])
    looked.browser.open(page.as_uri())
    looked.browser.until_said("hybrid_4")
    looked.browser.until("document.readyState === 'complete'")
    assert looked.browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert looked.browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert looked.browser.evaluate("performance.getEntriesByType('resource').filter(it => !it.name.startsWith('data:')).length") == 0
