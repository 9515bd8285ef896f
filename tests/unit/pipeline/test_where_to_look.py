"""The line that leads to the runs leads to the store in use."""

import pytest

from lethe.pipeline.run_logging import where_to_look
from lethe.tracking.outbox import default_store


@pytest.mark.parametrize(
    ("store", "line"),
    [
        (None, "`make ui`, then http://127.0.0.1:5000/#/experiments/0/"),
        ("default", "`make ui`, then "),
        (
            "sqlite:////tmp/own store/mlflow.db",
            "`mlflow ui --backend-store-uri 'sqlite:////tmp/own store/mlflow.db'`, then http://127.0.0.1:5000/#/",
        ),
        ("http://team:5001/", "http://team:5001/#/experiments/0/runs"),
    ],
)
def test_where_to_look(store: str | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    if store:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", default_store() if store == "default" else store)
    assert where_to_look().startswith(line)
