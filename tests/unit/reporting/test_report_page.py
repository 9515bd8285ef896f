"""report.html: what is on it, and that nothing on it can be taken for markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from lethe.config import loader as config
from lethe.evaluation.score import accuracy_and_loss
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.words import OVER_FORGETS, REMEMBERS, WORDS
from lethe.plots.svg_scatter import FONT, HEIGHT, LETTER, WIDTH, Plane
from lethe.reporting import report_data, report_page
from lethe.testing.tables import bank
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId
from support.cards import workspace


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> report_data.ReportData:
    home: Path = workspace(tmp_path_factory.mktemp("page") / "workspace")
    return report_data.read(config.load(["--run.workspace", str(home)]))


class Texts(HTMLParser):
    """The texts and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def text(self) -> str:
        return " ".join(self.texts)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_verdicts_come_first_then_the_figure_then_the_table(data: report_data.ReportData) -> None:
    page = report_page.html(data, {})
    places = [page.index(text) for text in ("Remembers", "Over-forgets", "What there is to forget", "<svg viewBox", "<tbody>")]
    assert places == sorted(places)
    texts = Texts(page).texts
    results = data.results["independent"]
    for name, row in results.accuracies.items():
        assert all(f"{value:.2f}" in texts for value in row.values()), name
    assert {verdict.word for verdict in results.verdicts.values()} >= {REMEMBERS, OVER_FORGETS}


def test_no_number_is_minus_zero(data: report_data.ReportData) -> None:
    own = data.results["independent"]
    none_left = {name: replace(verdict, memory_left=Estimate(-0.2, -0.4, 20.0)) for name, verdict in own.verdicts.items()}
    page = report_page.html(replace(data, results={**data.results, "independent": replace(own, verdicts=none_left)}), {})
    assert "(memory left 0 % of the original's, 95 % interval 0 to 20" in Texts(page).text()
    assert not re.search(r"[^\w.]-0(\.0*)?(?![\d.])", Texts(page).text())


def test_it_loads_nothing(data: report_data.ReportData) -> None:
    page = report_page.html(data, {})
    assert not re.search(r"""<link|<img|@import|src\s*=|url\(""", page)
    assert {attributes["href"] for tag, attributes in Texts(page).tags if "href" in attributes} == {"report.md", "measures.csv"}


def test_names_are_text(data: report_data.ReportData) -> None:
    bad = "<script>alert(1)</script>&\"'"
    own = data.results["independent"]
    accuracies = {(name if name != "model_1" else bad): row for name, row in own.accuracies.items()}
    verdicts = {(name if name != "model_1" else bad): verdict for name, verdict in own.verdicts.items()}
    changed = replace(own, accuracies=accuracies, verdicts=verdicts)
    odd = replace(data, results={**data.results, "independent": changed}, images=bad, source=bad, layout=_Layout(data.layout.root))
    page = report_page.html(odd, {bad: f"https://host/{bad}"})
    parsed = Texts(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert page.count("alert(1)") == page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;")
    assert page.count("alert(1)") >= 6
    assert {"href": f"https://host/{bad}"} in [attributes for tag, attributes in parsed.tags if tag == "a"]


class _Layout(Layout):
    """One score file for every run."""

    def scores(self, run: RunId | str) -> Path:
        return super().scores("model_1")


def test_the_cloud_has_every_retrained_model(data: report_data.ReportData) -> None:
    models = [accuracy_and_loss(table)[0] for table in bank(8)]
    page = report_page.html(replace(data, retrained=models), {})
    assert page.count('class="cloud"') == 8
    for row in models:
        assert f"retrained: forget {row['forget']:.2f}, test {row['test']:.2f}" in page
    assert "8 retrained models that differ in their seed alone" in page


def test_runs_are_linked_where_their_address_is_known(data: report_data.ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    page = report_page.html(data, {"model_1": "http://127.0.0.1:5000/#/experiments/0/runs/1"})
    assert '<a href="http://127.0.0.1:5000/#/experiments/0/runs/1">Model 1</a>' in page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert report_page.run_links(["model_1"]) == {}


def test_an_unfit_reference_gives_no_verdict_and_no_target(data: report_data.ReportData) -> None:
    own = replace(data.results["independent"], unfit="the retrained model is no reference: <why>", verdicts={}, alarms={})
    page = report_page.html(replace(data, results={**data.results, "independent": own}), {})
    assert "No verdict: the retrained model is no reference: &lt;why&gt;." in page
    assert 'class="target"' not in page
    assert 'class="cloud"' not in page
    assert not any(f"<b>{heading}</b>" in page for heading, _ in WORDS.values())


POINTS = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=14)


@given(POINTS)
def test_points_and_labels_stay_inside_and_ticks_are_percent(points: list[tuple[float, float]]) -> None:
    plane = Plane.around(points)
    for place in plane.places(points, ["Hybrid-4"] * len(points)):
        assert 0 < place.x < WIDTH
        assert 0 < place.y < HEIGHT
        assert 0 < place.text_y < HEIGHT
    for ticks in (plane.x_ticks(), plane.y_ticks()):
        assert ticks == sorted(set(ticks))
        assert all(0 <= tick <= 100 for tick in ticks)
        assert len(ticks) <= 6
    assert [plane.x(x) for x, _ in sorted(points)] == sorted(plane.x(x) for x, _ in points)


def test_labels_of_points_in_one_place_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in 80 + rng.normal(0, 2, (6, 2))] + [(20.0, 20.0)]
    places = Plane.around(points).places(points, ["Model 1"] * len(points))
    width = LETTER * len("Model 1")
    starts = {"start": 0.0, "middle": width / 2, "end": width}
    boxes = [(place.text_x - starts[place.anchor], place.text_y) for place in places]
    for one, other in combinations(boxes, 2):
        assert abs(one[0] - other[0]) >= width - 1 or abs(one[1] - other[1]) >= FONT - 1
