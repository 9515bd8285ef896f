"""A team's tracking server, on a real PostgreSQL: a search by two workers tells it every epoch, though it is killed on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lethe.tracking.mlflow_store import connect
from support.project import Project, until
from support.searches import SMALL, done, trials
from support.server import Server


@pytest.fixture
def server(database: Any, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, database.url.replace("://", "+psycopg://"))
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_killed_server_has_every_epoch_of_every_trial(server: Server, database: Any, project: Project) -> None:
    told = {"MLFLOW_TRACKING_URI": server.address}
    until(server.answers)
    client = connect(server.address)
    assert not client.search_runs(["0"])
    search = project.start("search", *SMALL, "--search.workers", "2", "--search.trials", "8", **told)
    search.until(done(1))
    until(lambda: client.search_runs(["0"], "tags.trial = '0'"))
    server.stop()
    search.until(done(3))
    assert list(project.root.glob(".lethe/outbox/*/")), "all was sent before it was killed"
    server.start()
    ended = search.wait()
    assert ended.returncode == 0, ended.stderr
    until(server.answers)
    assert project.ran("send", **told).stdout == "Everything is sent\n"
    assert not list(project.root.glob(".lethe/outbox/*/"))
    rows = client.search_runs(["0"])
    assert {row.info.status for row in rows} == {"FINISHED"}
    below = {int(row.data.tags["trial"]): row for row in rows if "trial" in row.data.tags}
    assert len(rows) == len(below) + 1, "and the search's own"
    ran = {trial["number"]: trial["ran"] for trial in trials(project)}
    assert sorted(ran) == sorted(below) == list(range(8))
    for number, row in below.items():
        steps = [point.step for point in client.get_metric_history(row.info.run_id, "search.utility")]
        assert sorted(steps) == list(range(ran[number] + 1))
    for path in [*project.root.rglob("*"), *server.folder.rglob("*")]:
        assert not path.is_file() or database.password.encode() not in path.read_bytes(), path
