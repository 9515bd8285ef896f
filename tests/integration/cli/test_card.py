"""The command that writes a card."""

import json
from pathlib import Path

from support.project import Project


def test_the_command(project: Project) -> None:
    refused = project.run("report", "card", "--method", "model_1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "holds no run of model_1; `python src/unlearn.py --method model_1` creates one" in refused.stderr
    project.ran("unlearn", "--method", "model_1")
    done = project.ran("report", "card", "--method", "model_1")
    path = project.root / "cards" / done.stdout.strip().rpartition("/")[2]
    assert done.stdout == f"{path}\n"
    made = json.loads(path.with_suffix(".json").read_text())
    (row,) = project.rows(method="model_1")
    assert made["reproduce"]["about"]["run"] == row["run_id"]
    assert made["reproduce"]["commands"]["result"] == "python src/unlearn.py --method model_1"  # params.yaml says all of it
    assert "epochs=3" in made["models"]["result"]["recipe"]
    (logged,) = (project.root / "mlruns").rglob(path.name)
    assert logged.read_bytes() == path.read_bytes()
    assert row["run_id"] in str(logged)
    some = (project.root / "data" / "splits" / "forget.csv").read_text().split()[1]
    assert str(path) in project.ran("report", "card", "--list", some).stdout
    none = project.run("report", "card", "--list=test/0")
    assert (none.returncode, none.stdout, none.stderr.count("\n")) == (2, "", 1)


def test_a_card_of_an_earlier_result_is_named(project: Project) -> None:
    """By the command that replaces the result, by verify, and before an erasure takes what a card is made from."""
    method = ("--method", "model_1")
    project.ran("unlearn", *method)
    card = Path(project.ran("report", "card", *method).stdout.strip())
    assert str(card) not in project.ran("unlearn", *method).stderr  # nothing was left to do
    said = "is of an earlier result; `python src/report.py card --method model_1` makes it again"
    assert f"{card} {said}\n" in project.ran("unlearn", *method, "--methods.model_1.epochs", "1").stderr
    data = card.with_suffix(".json")
    assert f"belongs to nothing: {data}: it {said}" in project.ran("verify").stdout
    assert f"{data} {said}, which can't be done after the erasure" in project.ran("erase", *method).stderr
    for path in card.parent.iterdir():
        path.unlink()
    none = "no card of model_1 exists, and after the erasure neither it nor the page for the person can be made; "
    assert f"{none}`python src/report.py card --method model_1` makes it\n" in project.ran("erase", *method).stderr
    project.ran("report", "card", *method)
    assert str(card) not in project.ran("evaluate", *method).stderr
