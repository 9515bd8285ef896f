"""The command that writes the report."""

import shutil

from lethe.evaluation.verdict.accuracies import label
from lethe.recipes.paper_methods import PAPER_METHODS


def line(page, name):
    """The cells of a table's row; original and retrained stand in both tables."""
    (found,) = {text for text in page.decode().splitlines() if text.startswith(f"| {name} |")}
    return [cell.strip() for cell in found.split("|")[1:-1]]


# --- the command --------------------------------------------------------------------------------------------------------


def test_the_stage(project):
    """After retraining and before any method: all ten are not run."""
    done = project.ran("report")
    assert done.stdout.startswith(f"{project.root}/report/report.md\n")
    page = (project.root / "report" / "report.md").read_bytes()
    assert all(line(page, label(name))[5] == "not run" for name in PAPER_METHODS)
    shutil.rmtree(project.root / "scores")
    refused = project.run("report")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
