"""The four diffs of CONTRIBUTING.md, applied to copies of the project, do what the page says."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support.project import ROOT, Warm, clean, write_params

PAGE = ROOT / "CONTRIBUTING.md"


def diff(heading: str) -> str:
    (block,) = re.findall(rf"^## {heading}\n.*?^```diff\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(block)


def apply(text: str, root: Path) -> None:
    """A file begins with `--- a/<path>`, its hunks are parted by `@@`. What a hunk says is there stands in the file once, line by line;
    a hunk that says nothing of the kind goes to the end, and a file that does not exist is created."""
    for part in re.split(r"^--- a/", text, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        path = root / name
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE):
            lines = hunk.splitlines()
            assert {line[:1] for line in lines} <= {" ", "+", "-"}, hunk
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", sign)) for sign in "-+")
            now = path.read_text() if path.exists() else ""
            assert old != new
            assert f"\n{now}".count(f"\n{old}") == 1 if old else now == "" or now.endswith("\n"), f"{name} does not hold, once:\n{old}"
            path.write_text(f"\n{now}".replace(f"\n{old}", f"\n{new}", 1)[1:] if old else now + new)


TYPED = """
import os, runpy, sys
os.dup2(1, 2)
for line in {commands!r}:
    sys.argv = line.split()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("exit code", end.code or 0, flush=True)
"""


@dataclass(frozen=True)
class Copy:
    """What is changed and what tests it."""

    root: Path
    warm: Warm

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def play(self, script: str) -> str:
        """What a text prints in a forked process that imports the copy."""
        file = self.root.parent / "script.py"
        file.write_text(script)
        environment = clean() | {"DVC_ROOT": "", "OMP_NUM_THREADS": "1"}
        done = self.warm.start([str(file)], self.root, environment, [self.root / "src", self.root / "tests"]).wait()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def typed(self, *commands: str) -> str:
        """What `python <command>` prints, one after another in the same interpreter, and its exit code."""
        return self.play(TYPED.format(commands=commands))


@pytest.fixture
def copy(tmp_path: Path, warm: Warm) -> Copy:
    root = tmp_path / "copy"
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "results").mkdir()
    for name in ("params.yaml", "MLproject", "pyproject.toml", "README.md", "results/speed_cpu.json"):
        shutil.copy(ROOT / name, root / name)
    return Copy(root, warm)


def well_formed(root: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *words, "-q", "--no-cache", "src"], cwd=root, check=True)


@pytest.mark.slow
def test_a_new_method(copy: Copy, built: Path) -> None:
    apply(diff("A new method"), copy.root)
    well_formed(copy.root)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_contract.py"]
    command += ["tests/unit/search/test_search.py", "-k", "joint"]
    environment = clean() | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    contract = subprocess.run(command, cwd=copy.root, env=environment, stdout=subprocess.PIPE, text=True).stdout
    assert re.search(r"^1\d passed, 4 skipped", contract, re.MULTILINE), contract  # skipped: it has no plain loop
    shutil.copytree(built, copy.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("params.yaml", ".lethe"))
    write_params(copy / "params.yaml", copy / "params.yaml")
    said = copy.typed("docs/generate.py", "src/unlearn.py --method joint --explain", "src/unlearn.py --method joint", "src/report.py")
    assert said.count("exit code 0\n") == 4, said
    assert "## joint\n" in (copy / "docs" / "methods.md").read_text()
    assert "batch order   8xRF\n" in said
    assert re.search(r"^joint  .*\d", said, re.MULTILINE)
    assert re.search(r"^\| joint \|.*\d \([+-]", (copy / "report" / "report.md").read_text(), re.MULTILINE)


def test_a_new_loss(copy: Copy) -> None:
    apply(diff("A new loss"), copy.root)
    well_formed(copy.root)
    said = copy.play("""
import torch
from lethe.testing import small_runs as contract
from lethe.engine import engine
from lethe.recipes import recipe
from lethe.recipes.losses import TowardsUniform
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Phase, Term

term = Term("forget", loss=TowardsUniform())
steps = (Phase("uniform", 3, (Term("retain"), term), 8, optimizer=SGD(0.9, 0.0)),)
assert eval(repr(steps), recipe.names()) == steps and hash(eval(repr(steps), recipe.names())) == hash(steps)
said = [epoch.losses["forget"] for epoch in engine.run(steps, contract.network(), contract.images()) if epoch.losses]
assert len(said) == 3 and said[-1] < said[0], said
even, sure = torch.zeros(4, 10), 50 * torch.eye(10)[:4]
assert abs(term.loss(even, None, None)) < 1e-6 and term.loss(sure, None, None) > 10
print("trained")
""")
    assert said == "trained\n"


def test_a_new_measure(copy: Copy) -> None:
    apply(diff("A new measure"), copy.root)
    well_formed(copy.root)
    said = copy.play("""
import numpy as np
from lethe.testing.tables import drawn
from lethe.evaluation.score import score_model

table = drawn(1, name="ours")
score = score_model(table, [drawn(100, name="retrained")])
found = score.to_json()["measures"]["confidence.forget"]
assert abs(found["value"] - np.exp(table.log_p[table.rows("forget")]).mean()) < 1e-6 and found["low"] < found["value"] < found["high"]
assert found["reference"]["value"] > 0 and score.metrics()["forget.confidence"] == found["value"]
print("measured")
""")
    assert said == "measured\n"
    assert (
        "| `confidence.forget` | mean probability of the true class"
        in copy.typed("docs/generate.py") + (copy / "docs" / "measures.md").read_text()
    )


def test_a_new_data_source(copy: Copy) -> None:
    apply(diff("A new data source"), copy.root)
    well_formed(copy.root)
    write_params(copy / "params.yaml", copy / "params.yaml")
    draw, arrays = np.random.default_rng(0), copy / "arrays"
    arrays.mkdir()
    for part, n in (("train", 60), ("test", 20)):
        np.savez(arrays / part, images=draw.integers(0, 256, (n, 32, 32, 3), np.uint8), labels=np.arange(n) % 3)
    own = " --data.source own_source:read_arrays --data.root "
    said = copy.typed(f"src/prepare.py{own}arrays", f"src/unlearn.py --explain{own}arrays", f"src/prepare.py{own}nowhere")
    assert "3 classes; retain 18, forget 18, validation 10, test 10" in said
    listed = (copy / "data" / "splits" / "forget.csv").read_text().split()[1:]
    assert listed and all(re.fullmatch(r"train/\d+", id_) for id_ in listed)
    assert "retain 18, forget 18 images" in said
    assert re.search(
        r"^error: data.root is .*nowhere \(.*\); it takes a folder with train.npz and test.npz\nexit code 2$", said, re.MULTILINE
    )


def test_the_page_has_no_other_diff() -> None:
    assert PAGE.read_text().count("```diff\n") == 4
