"""The Python of the pages runs: the researcher's guide from top to bottom, then the README's example on its models and data; and what
lethe's page has, on random images."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from lethe.testing.small_runs import images, network
from support.project import NET, ROOT, clean

RUN = """
import sys

names = {"__name__": "__main__"}
for name in sys.argv[1:]:
    exec(compile(open(name).read(), name, "exec"), names)
"""
PAGES = ("docs/guides/researcher.md", "README.md")


def blocks(page: str) -> str:
    """The python blocks of a page as one script, each line at the line it has on the page."""
    text = (ROOT / page).read_text()
    code = re.sub(r"^```python\n(.*?)^```$", lambda match: "\0\n" + match[1] + "\0", text, flags=re.DOTALL | re.MULTILINE)
    parts = code.split("\0")
    return "".join(part if n % 2 else "\n" * part.count("\n") for n, part in enumerate(parts))


def test_the_python_of_the_pages_runs(tmp_path: Path) -> None:
    scripts = []
    for page in PAGES:
        path = tmp_path / Path(page).with_suffix(".py").name
        path.write_text(blocks(page))
        assert path.read_text().strip(), page
        scripts.append(path.name)
    (tmp_path / "run.py").write_text(RUN)
    environment = clean() | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "run.py", *scripts], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=NET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nretrained ") == 3
    assert "repair 6 " in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"run.py", *scripts}, "the examples wrote something"


def test_matching_a_retrained_model_as_on_lethes_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers come nearer to those of the model whose file is named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "models").mkdir(parents=True)
    original, retrained, data = network(0), network(5), images()
    save_file(retrained.state_dict(), "demo/models/retrained.safetensors")
    inputs = {split: data.normalised(data.splits[split]) for split in ("retain", "forget")}
    examples = {split: (inputs[split], data.labels_N[data.splits[split]]) for split in inputs}
    names: dict[str, Any] = {"original": original, **examples}
    exec(blocks("docs/lethe.md"), names)
    before, after = ((model.eval()(inputs["forget"]) - retrained(inputs["forget"])).square().mean() for model in (original, names["model"]))
    assert after < 0.8 * before
