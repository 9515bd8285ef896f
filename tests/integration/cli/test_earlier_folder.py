"""A workspace, bank, search and store that commit 3f4407e made open as they are (tests/fixtures/make_folder.py)."""

import re
import sqlite3
import tarfile
from pathlib import Path

import pytest

from support.project import ROOT, Project, Warm

pytestmark = pytest.mark.slow

ARCHIVE = ROOT / "tests" / "fixtures" / "folder_3f4407e.tar.xz"
TRAINED = re.compile(r"training on|into a logits table|resuming after epoch|^phase .*epoch", re.MULTILINE)


@pytest.fixture
def earlier(tmp_path: Path, warm: Warm) -> Project:
    root = tmp_path / "project"
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        archive.extractall(root)
    with sqlite3.connect(root / "mlflow.db") as store:
        store.execute("update experiments set artifact_location = ? || '/' || artifact_location", [str(root)])
        store.execute("update runs set artifact_uri = ? || '/' || artifact_uri", [str(root)])
    return Project(root, warm)


def test_everything_opens_and_nothing_is_trained_again(earlier: Project) -> None:
    before = {name: content for name, content in earlier.files().items() if "/models/" in name or "/bank/" in name}
    runs = len(earlier.rows("work"))
    assert runs > 3
    said = [
        earlier.ran("verify").stderr,
        earlier.ran("ledger", "verify").stderr,
        earlier.ran("bank").stderr,
        earlier.ran("unlearn", "--method", "model_1", "--run.seeds", "2").stderr,
        earlier.ran("evaluate", "--method", "all").stderr,
        earlier.ran("search", "--search.trials", "2").stderr,
        earlier.ran("report", "card", "--method", "hybrid_4").stderr,
    ]
    for text in said:
        assert not TRAINED.search(text), text
    now = earlier.files()
    assert {name: now[name] for name in before} == before
    assert len(earlier.rows("work")) >= runs


def test_what_a_later_version_wrote_is_refused_in_one_line(earlier: Project) -> None:
    ledger = earlier.root / "work" / "ledger.jsonl"
    first = ledger.read_text()
    for name, content in (("settings.yaml", "format: 2\n"), ("data/train.json", '{"format": 2}')):
        path = earlier.root / "work" / name
        path.write_text(content)
        done = earlier.run("unlearn", "--method", "hybrid_4")
        *progress, error = done.stderr.splitlines()
        assert (done.returncode, progress) in ((2, []), (2, ["reading digits images"])), done.stderr
        assert error.endswith("has format 2, of a later version of Lethe; this one reads up to format 1")
        path.unlink()
    assert ledger.read_text() == first
