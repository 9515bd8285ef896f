"""The newcomer's notebook: it runs top to bottom from nothing, leaves nothing behind but what git ignores, and is committed as it ran.

`python tests/docs/test_notebook.py` runs it and writes it back with its outputs."""

import os
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat
import pytest
from ruamel.yaml import YAML

from support.project import NET

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "newcomer.ipynb"


def executed(root: Path, **demo: Any) -> nbformat.NotebookNode:
    """The notebook, run in `root`/notebooks with nothing there but params.yaml; DVC_ROOT makes `root` the checkout. `demo`: other
    values of params.yaml's section of that name."""
    (root / "notebooks").mkdir()
    shutil.copy(NOTEBOOK, root / "notebooks")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, values in demo.items():
        for key, value in values.items():
            params["demo"][section][key] = value
    yaml.dump(params, root / "params.yaml")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    own = {
        "DVC_ROOT": str(root),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_RUNTIME_DIR": str(root / "jupyter"),
        "IPYTHONDIR": str(root / "ipython"),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where ipywidgets is not there
    }
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "--ExecutePreprocessor.record_timing=False"]
    done = subprocess.run([*command, NOTEBOOK.name], cwd=root / "notebooks", env=clean | own, capture_output=True, text=True, timeout=NET)
    assert done.returncode == 0, done.stderr
    return nbformat.read(root / "notebooks" / NOTEBOOK.name, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(notebook: nbformat.NotebookNode) -> str:
    shown = [output.get("text") or output["data"].get("text/plain", "") for output in outputs(notebook)]
    return "\n".join("".join(part) for part in shown)


@pytest.mark.slow
def test_it_runs_from_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    few = {"model_1": {"epochs": 1}, "hybrid_4": {"epochs": 2, "final_epochs": 1, "repair_every": 0, "batch_size": 16, "lr": 0.02}}
    notebook = executed(tmp_path, pretrain={"epochs": 2, "final_epochs": 1}, retrain={"epochs": 3}, methods=few)
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr" or output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 3
    rows = [line.split()[0] for line in text(notebook).splitlines() if line.strip()]
    assert {"original", "retrained", "model_1", "hybrid_4", "mine"} <= set(rows)
    assert [path.name for path in (tmp_path / "notebooks").iterdir()] == [NOTEBOOK.name]
    ignored = {"demo", "mlruns", "mlflow.db"}
    assert {path.name for path in tmp_path.iterdir()} - {"jupyter", "ipython"} == {"notebooks", "params.yaml"} | ignored
    assert all(any(fnmatch(name, pattern.strip("/")) for pattern in GITIGNORE) for name in ignored)


GITIGNORE = (ROOT / ".gitignore").read_text().split()


def test_it_is_committed_as_it_ran() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "mine" in text(notebook)
    written = NOTEBOOK.read_text()
    assert str(Path.home()) not in text(notebook)
    assert not [word for word in ("/tmp/", "/home/", "/Users/", "Traceback", "Warning", '"stderr"', "iopub") if word in written]
    assert len(written) < 300_000
    assert "execution" not in {key for cell in code for key in cell.metadata}


def test_the_readme_shows_the_numbers_of_the_notebook() -> None:
    """Both ran the settings of `make demo`; the README's table has more methods."""
    notebook, readme = ({line for line in page.splitlines() if "(" in line or line.startswith("retrained ")} for page in _pages())
    rows = [line for line in notebook if line.split()[0] in ("original", "retrained", "model_1", "hybrid_4") and line.count(".") == 5 + 4]
    rows += [line for line in notebook if line.startswith("retrained ") and line.count(".") == 5]
    assert {line.split()[0] for line in rows} == {"original", "retrained", "model_1", "hybrid_4"}
    assert set(rows) <= readme
    words = [line for line in notebook if line.startswith(("model_1: ", "hybrid_4: "))]
    assert len(words) == 2
    assert set(words) <= readme
    advice = [line for page in _pages() for line in page.splitlines() if line.startswith("  To count as retrained, the interval")]
    assert len(advice) == 3 and len({*advice}) == 2  # hybrid_4's on both pages, lethe's in the README


def test_the_readme_shows_every_row_of_the_demo_and_what_its_verdict_is() -> None:
    from lethe.pipeline.stages import DEMO_METHODS

    lines = (ROOT / "README.md").read_text().splitlines()
    heads = {}
    for name in DEMO_METHODS:
        assert [line for line in lines if line.startswith(f"{name} ") and line.count(".") == 5 + 4], name
        (verdict,) = [line for line in lines if line.startswith(f"{name}: ")]
        heads[name] = verdict.removeprefix(f"{name}: ").split(";")[0]
    assert list(heads.values()) == ["remembers", "over-forgets", "cannot tell"]  # one that hardly forgets, one too much, the nearest


def _pages() -> tuple[str, str]:
    return text(nbformat.read(NOTEBOOK, as_version=4)), (ROOT / "README.md").read_text()


def main() -> None:
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # one print, one output
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
