"""Several originals: a method runs from each, nothing is run twice, and tables and card say what their intervals are about."""

import json

import numpy as np

from lethe.evaluation import logits_table
from support.project import Project

ASKED = ("unlearn", "--method", "model_1", "--run.seeds", "2", "--run.originals", "2")


def test_two_originals_with_two_seeds_each(project: Project) -> None:
    said = project.ran(*ASKED)
    other = project.root / "originals" / "1"
    names = [project.root / "logits" / f"model_1.seed{seed}.safetensors" for seed in (0, 1)]
    names += [other / "logits" / f"model_1.seed{seed}.safetensors" for seed in (1, 2)]
    tables = [logits_table.read(path) for path in names]
    forget = [float(table.percent_correct[table.rows("forget")].mean()) for table in tables]
    found = json.loads((project.root / "originals" / "model_1.json").read_text())
    assert found["originals"] == {"0": [0, 1], "1": [1, 2]} and found["judged"]["models"] == 4
    entry, means = found["measures"]["accuracy.forget"], np.reshape(forget, (2, 2)).mean(axis=1)
    assert abs(entry["value"] - np.mean(forget)) < 1e-5
    within = np.reshape(forget, (2, 2)).var(axis=1, ddof=1).mean()
    assert abs(entry["variance"]["unlearn"] - within) < 1e-4
    assert abs(entry["variance"]["train"] - max(0.0, means.var(ddof=1) - within / 2)) < 1e-4
    assert "all unlearned from one original" in said.stdout
    assert "model_1, 2 originals x 2 seeds: mean ± half the 95 % interval (Student's t over originals)" in said.stdout
    assert not (other / "data").exists() and (other / ".lethe" / "secret").read_bytes() == (project.root / ".lethe" / "secret").read_bytes()
    rows = {row["tags"].get("seed"): row for row in project.rows() if row["tags"]["workspace"] == "originals/1"}
    assert {"1", "2"} <= rows.keys()
    for seed, value in zip(("1", "2"), forget[2:], strict=True):  # unlearned from the further original
        ((_, distance),) = rows[seed]["metrics"]["forget.distance"]
        reference = logits_table.read(project.root / "logits" / "retrained.safetensors")
        assert abs(distance - value + float(reference.percent_correct[reference.rows("forget")].mean())) < 1e-4
        assert rows[seed]["tags"]["verdict"] and len(rows[seed]["metrics"]["mia.svc"]) == 1

    project.ran("report")
    page = (project.root / "report" / "report.md").read_text()
    assert "| Model 1 | 2 originals x 2 seeds | forget |" in page and "all unlearned from one original" in page
    html = (project.root / "report" / "report.html").read_text()
    assert "95 % over seeds from one original" in html and "95 % over images" in html and "2 originals x 2 seeds" in html
    project.ran("report", "card", "--method", "model_1")
    (card,) = (project.root / "cards").glob("model_1-*.md")
    assert "The method was also run from other originals (2 originals x 2 seeds)" in card.read_text()


def test_runs_of_other_settings_are_not_averaged(project: Project) -> None:
    """Of a method whose learning rate has changed since, and of originals that were trained otherwise."""
    asked, counted = ("unlearn", "--method", "model_1"), "2 originals x 1 seed:"
    path, other = project.root / "originals" / "model_1.json", "results of other settings are left out: originals/1 (its recipe)"
    assert counted in project.ran(*asked, "--run.originals", "2").stdout
    before = path.read_bytes()
    done = project.ran(*asked, "--methods.model_1.lr", "0.4")
    assert "originals" not in done.stdout and f"model_1: {other}" in done.stderr
    assert path.read_bytes() == before  # it is of the runs that were, and nothing reads it
    project.ran("report")
    project.ran("report", "card", "--method", "model_1")
    (card,) = (project.root / "cards").glob("model_1-*.md")
    assert "run from other originals" not in card.read_text()
    assert not (project.root / "report" / "originals.csv").exists()

    third = project.ran(*asked, "--methods.model_1.lr", "0.4", "--run.originals", "2")  # made again by the present recipe
    assert counted in third.stdout and other not in third.stderr and path.read_bytes() != before
