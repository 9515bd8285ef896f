"""A card as a browser prints it."""

import re
import shutil
import subprocess

import pytest

from lethe.evaluation.score import score_model
from lethe.reporting import card_page as cardpage
from lethe.testing.tables import bank, drawn
from lethe.workspace import ledger
from support.cards import changed, logged, workspace, written
from support.project import NET


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return workspace(tmp_path_factory.mktemp("card") / "workspace")


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    return logged(made, tmp_path, monkeypatch)


# --- in a browser -------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_it_prints_on_two_pages(home, tmp_path):
    made, *_ = written(home)
    scores = score_model(drawn(1, 1.0), bank(8), drawn(50, 3.0)).to_json()["measures"]  # more measures than most cards have
    many = [changed(made["measures"][0], ("id",), id_) | {"about": id_.partition(".")[0]} for id_, got in scores.items() if "value" in got]
    line = {"store": "workspace", "step": "delete", "date": "2026-11-28", "places": 5, "bytes": 1}
    events = [{"event": event, "at": "2026-11-28T22:31:03+00:00", "by": "root"} for event in ledger.EVENTS[:5]]
    erasure = {"method": "model_1", "places": [line] * 4, "left": 0, "unreached": 3, "remains": [], "derived": [], "events": events}
    for name, one in {"few": made, "many": made | {"measures": many, "missing": {}}, "erased": made | {"erasure": erasure}}.items():
        page, pdf = tmp_path / f"{name}.html", tmp_path / f"{name}.pdf"
        page.write_text(cardpage.html(one))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--no-pdf-header-footer"]
        subprocess.run(["chromium", *flags, f"--print-to-pdf={pdf}", page.as_uri()], check=True, capture_output=True, timeout=NET)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) == 2, name
