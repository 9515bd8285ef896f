"""A workspace that commit 8948325 made is used as it is: nothing is trained, read or run again (tests/fixtures/make_workspace.py)."""

import json
import re
import struct
import tarfile

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from lethe.workspace import numerics
from support.dvc_checkout import Checkout, stages
from support.project import ROOT, Project, Warm

pytestmark = pytest.mark.slow

ARCHIVE = ROOT / "tests" / "fixtures" / "workspace_8948325.tar.xz"
WORK = re.compile(r"training on|into a logits table|resuming after epoch|unlearning by seed|^phase .*epoch", re.MULTILINE)


@pytest.fixture
def earlier(small: Checkout) -> Checkout:
    """The workspace under today's pipeline."""
    today = {name: (small.root / name).read_text() for name in ("dvc.yaml", "search/dvc.yaml")}
    (small.root / "params.yaml").unlink()
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        archive.extractall(small.root)
    yaml = YAML()
    was = yaml.load((small.root / "dvc.yaml").read_text())
    now = yaml.load(today["dvc.yaml"])
    now["vars"] = was["vars"]
    now["plots"] = was["plots"]
    yaml.dump(now, small.root / "dvc.yaml")
    (small.root / "search" / "dvc.yaml").write_text(today["search/dvc.yaml"])
    small.commit()
    return small


def without_hash(content: bytes) -> bytes:
    """A safetensors file without the hash that it states of itself, which version 8948325 did not write."""
    if content[8:9] != b"{":
        return content
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    header.get("__metadata__", {}).pop("content_sha256", None)
    return json.dumps(header).encode() + content[end:]


def test_dvc_makes_scores_again_and_nothing_else(earlier: Checkout) -> None:
    """The arithmetic of scores and report has changed since; models and logits tables are used as they are."""
    before = earlier.read("models", "logits", "epochs", "bank")
    log = earlier.dvc("repro")
    scores = {
        "evaluate_reference@original",
        "evaluate_reference@retrained",
        "evaluate@hybrid_4",
        "evaluate_chain@as_run",
    }
    assert {"measures", "report", "search"} == set(numerics.raised())
    assert stages(log) == {"fingerprint", "report", *scores}
    # of the chain's folder of tables DVC keeps nothing while its stage runs: they are read again, to the same bytes but for their hash
    assert not WORK.search(re.sub(r"^as_run/.* into a logits table$", "", log, flags=re.MULTILINE)), log
    after = earlier.read("models", "logits", "epochs", "bank")
    assert {name for name in after if after[name] != before.get(name)} <= {name for name in before if name.startswith("logits/as_run/")}
    assert {name: without_hash(content) for name, content in after.items()} == {name: without_hash(each) for name, each in before.items()}
    assert stages(earlier.dvc("repro")) == {"fingerprint"}


def test_no_command_trains_or_reads_again(earlier: Checkout, warm: Warm) -> None:
    project = Project(earlier.root, warm)
    files = {name: content for name, content in project.files().items() if name.startswith(("models/", "logits/", "epochs/", "bank/"))}
    bank = project.ran("bank")
    assert "1 original requested, 1 already trained" in bank.stderr
    assert "2 retrained requested, 2 already trained" in bank.stderr
    search = project.ran("search", "--search.heartbeat", "60", "--search.trials", "1")
    assert numerics.SEARCH > 1 and "resuming" not in search.stderr, (
        "objectives have changed since: another search, and the earlier one stays"
    )
    said = [bank.stderr]
    said.append(project.ran("unlearn", "--method", "model_1", "--run.seeds", "2").stderr)
    said.append(project.ran("evaluate", "--method", "all").stderr)
    said.append(project.ran("evaluate", "--method", "original,retrained").stderr)
    said.append(project.ran("report", "card", "--method", "hybrid_4").stderr)
    said.append(project.ran("report").stderr)
    for text in said:
        assert not WORK.search(text), text
    now = project.files()
    assert {name: now[name] for name in files} == files
    assert project.ran("report", "card", "--list", "train/11").stdout.count("hybrid_4") <= 2


def test_a_comment_runs_nothing_again(earlier: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in earlier.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(earlier.root)
    with Repo(str(earlier.root)) as repo:
        before = set(repo.status())
    assert not {name for name in before if name.startswith(("unlearn", "pretrain", "retrain", "bank", "prepare"))}
    for path in (earlier.root / "src").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    with Repo(str(earlier.root)) as repo:
        assert set(repo.status()) == before
