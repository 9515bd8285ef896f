"""The leaderboard from one command: settings tried, rows run, tables and figures written, nothing repeated."""

import csv
from pathlib import Path

import pytest

from support.project import Project


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_rows_of_several_seeds_with_chosen_settings(project: Project) -> None:
    (project.root / "models" / "retrained.safetensors").unlink()  # so that its work is counted here
    said = project.ran("leaderboard", "--method", "ft", "--share", "0.6", "--run.seeds", "2", "--settings", "2")
    folder = project.root / "results" / "leaderboard"
    assert "ft: chosen of 2 settings" in said.stderr
    rows, (mean,) = table(folder / "leaderboard.csv"), table(folder / "summary.csv")
    assert sorted(row["seed"] for row in rows) == ["0", "1"]
    assert (mean["method"], mean["seeds"], mean["share"]) == ("ft", "2", "0.6")
    assert float(mean["avg_gap.svc"]) == pytest.approx(sum(float(row["avg_gap.svc"]) for row in rows) / 2, abs=1e-3)
    assert float(mean["avg_gap.of_means"]) <= float(mean["avg_gap.svc"])
    assert 0.3 < float(mean["share_of_retrain"]) < 0.9
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("gap.png", "forget_against_test.png"))

    again = project.ran("leaderboard", "--method", "ft", "--share", "0.6", "--run.seeds", "2", "--settings", "2")
    assert "chosen of" not in again.stderr and "unlearning by seed" not in again.stderr
    assert table(folder / "leaderboard.csv") == rows
