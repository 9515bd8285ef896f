"""The Python of the pages runs: the researcher's guide from top to bottom, then the README's example on its models and data."""

import re
import subprocess
import sys
from pathlib import Path

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
