"""A team's tracking server, on a real PostgreSQL: a search by two workers tells it every epoch, though it is killed on the way; and what a
deletion request left on it is found and erased."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from lethe.tracking.mlflow_store import connect
from support.project import Project, until
from support.searches import SMALL, done, trials
from support.server import Server


@pytest.fixture(scope="module")
def server(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
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


@pytest.mark.slow
def test_erased_from_a_server(server: Server, project: Project) -> None:
    """A registered model and a card with thumbnails, whose files only the server reaches."""
    told, own = {"MLFLOW_TRACKING_URI": server.address}, ("--run.workspace", "ws", "--method", "model_1")
    for name in ("data", "models", "epochs", "logits", "scores"):
        shutil.copytree(project.root / name, project.root / "ws" / name)
    until(server.answers)
    project.ran("unlearn", *own, **told)
    project.ran("report", "card", *own, "--card.thumbnails", "24", **told)
    project.ran("unlearn", "--run.workspace", "ws", "--method", "model_2", "--run.log_model", "safetensors", **told)
    client = connect(server.address)
    everywhere = [each.experiment_id for each in client.search_experiments()]
    (model,) = client.search_logged_models(everywhere, "name = 'model'")
    client.create_registered_model("classifier")
    version = client.create_model_version("classifier", f"models:/{model.model_id}", model_id=model.model_id)
    client.set_registered_model_alias("classifier", "champion", version.version)
    artifacts = server.folder / "artifacts"
    assert len([*artifacts.rglob("model.safetensors")]) == 1 and len([*artifacts.rglob("card/*.html")]) == 1

    server.stop()
    away = project.run("erase", *own, "--yes", **told)
    assert (away.returncode, away.stdout.count("MLflow can't be reached at")) == (1, 1)
    assert "1 places still hold something" in away.stderr
    server.start()
    until(server.answers)
    done = project.ran("erase", *own, "--yes", **told)
    assert "nothing is left in what was searched" in done.stderr and "`mlflow gc` on its machine removes them" in done.stderr
    assert not client.search_model_versions() and not client.search_logged_models(everywhere)
    assert not [*artifacts.rglob("model.safetensors")]
    (page,) = artifacts.rglob("card/*.html")  # as the workspace's: it says what was erased, and shows no image
    assert "What was erased" in page.read_text() and "<img" not in page.read_text()
