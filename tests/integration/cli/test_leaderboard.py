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


def test_rows_in_parallel_are_the_rows_one_after_another(project: Project) -> None:
    """In processes of their own; the first row alone, where a reference has no scores yet."""
    words = ["leaderboard", "--method", "ft,not,l1_sparse", "--share", "0.6"]
    (project.root / "scores" / "retrained.json").unlink(missing_ok=True)
    said = project.ran(*words, "--run.workers", "2")
    found = table(project.root / "results" / "leaderboard" / "leaderboard.csv")
    assert sorted(row["method"] for row in found) == ["ft", "l1_sparse", "not"]
    assert all(f"{row['method']}_at_60: " in said.stderr for row in found)
    assert [len(project.rows(method=f"{row['method']}_at_60")) for row in found] == [1, 1, 1]
    assert [len(project.rows(method=name)) for name in ("original", "retrained")] == [1, 1]

    path = project.root / "models" / "l1_sparse_at_60.safetensors"
    weights = path.read_bytes()
    path.unlink()
    project.ran(*words)
    assert path.read_bytes() == weights

    (before,) = (row for row in found if row["method"] == "l1_sparse")
    project.ran("leaderboard", "--method", "l1_sparse", "--share", "0.6", "--run.seeds", "2")
    rows = table(project.root / "results" / "leaderboard" / "leaderboard.csv")
    after = {row["seed"]: row for row in rows if row["method"] == "l1_sparse"}
    assert after["1"]["seconds"] and after["0"]["seconds"], "a second seed loses the first one's time"
    assert after["0"]["share_of_retrain"] == before["share_of_retrain"]
