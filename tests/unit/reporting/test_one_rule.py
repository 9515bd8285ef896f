"""Report, figures and card hold a number against one and the same range of chance, and have one rule of what discriminates."""

from pathlib import Path

import pytest

from lethe.config import loader as config
from lethe.evaluation import chance
from lethe.evaluation.chance import chance_range, difference
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import discriminates
from lethe.reporting import card_content, report_data, report_page, tables
from lethe.reporting.figure_records import figures
from lethe.workspace import scores
from lethe.workspace.layout import Layout
from support.cards import workspace


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = workspace(tmp_path_factory.mktemp("rule") / "workspace")
    return made


def test_text_page_and_band_have_the_width_of_the_card(home: Path) -> None:
    data, layout = report_data.read(config.load(["--run.workspace", str(home)])), Layout(home)
    results, page = data.results["independent"], report_page.html(data, {})
    for name in results.methods:
        for split in ("forget", "test"):
            known = scores.read(layout.scores(name)).measures[f"accuracy.{split}"]
            assert known.estimate and known.reference
            low, high = chance_range(known.estimate, known.reference)
            assert results.by_chance(name, split) == (low, high)
            assert f"retrained, by chance {max(low, 0):.1f} to {min(high, 100):.1f}" in page
    drawn = [row for row in figures(data)["figure_4"].record if row["panel"] == data.titled(results)]
    (target,) = [row for row in drawn if row["method"] == "retrained"]
    assert (target["forget.low"], target["forget.high"]) == results.by_chance("retrained", "forget")
    lines = card_content.measure_lines({"model": scores.read(layout.scores("original"))}, None)
    (forget,) = [line for line in lines if line["id"] == "accuracy.forget"]
    assert discriminates(results) == forget["apart"] is True


def test_report_and_card_agree_on_what_discriminates(home: Path) -> None:
    layout = Layout(home)
    every = {which: scores.read(layout.scores(run)) for which, run in (("model", "model_1"), ("original", "original"))}
    every["retrained"] = scores.read(layout.scores("retrained"))
    rows = {row["measure"]: row["power"] for row in tables.measures_record(layout) if row["method"] == "model_1" and row["value"] != ""}
    lines = {line["id"]: line["power"] for line in card_content.measure_lines(every, None)}
    assert lines and {id_: rows[id_] for id_ in lines} == lines
    assert {True, False} <= {*lines.values()}


def test_a_difference_leaves_out_0_exactly_outside_of_chance() -> None:
    theirs = chance.accuracy(84.0, 200)
    assert theirs == Estimate(84.0, theirs.low, theirs.high, theirs.interval)
    for percent in range(60, 101):
        ours = chance.accuracy(percent, 200)
        low, high = chance_range(ours, theirs)
        apart = difference([ours], [theirs])
        assert (apart[0] <= 0 <= apart[1]) == (low <= percent <= high)
    assert difference([theirs, theirs], [theirs, theirs])[0] < difference([theirs], [theirs])[0] < 0
