"""Each idea has one owner: nothing outside of it spells a path of a workspace or takes a run's name apart."""

import re

from support.project import ROOT

SOURCES = {str(path.relative_to(ROOT / "src")): path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py"))}
FOLDERS = "models logits epochs scores bank others cards report recipes search data splits locks resume clock downloads trials"
# An outbox of tracking has folders of its own; the search room names its files in the folder that it is given
OWN_FOLDERS = {"lethe/tracking/outbox.py": "models", "lethe/tracking/run_log.py": "models"}


def found(pattern: str, *owners: str) -> list[str]:
    return [
        f"{name}: {line.strip()}"
        for name, text in SOURCES.items()
        if name not in owners
        for line in text.splitlines()
        if re.search(pattern, line) and not any(f'"{folder}"' in line for folder in OWN_FOLDERS.get(name, "").split())
    ]


def test_one_place_knows_the_files_of_a_workspace():
    folder = "|".join(FOLDERS.split())
    literal = (
        rf"""/ f?["']({folder})["'/]|Path\(["']({folder})["'/]|["'/]\.lethe\b|\b(workspace|root|home) / f?["'].*\.(safetensors|csv)\b"""
    )
    assert found(literal, "lethe/workspace/layout.py", "lethe/_util/files.py", "lethe/_util/manifest.py") == []


def test_one_place_spells_and_parses_run_names():
    owner = "lethe/workspace/run_names.py"
    assert found(r"""name\.r?partition\(["']/["']\)|name\.r?split\(["']/""", owner, "lethe/engine/run_state.py") == []
    assert found(r"""as_run/|f["'][^"']*\.seed\{|f["'](bank|search)/\{|\.seed\(\?P""", owner) == []


def test_ci_runs_what_is_slow_too():
    """`make test` leaves it out; the two commands have every test between them."""
    makefile, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/run"))
    assert set(re.findall(r"^\tpython -m pytest -n 2(.*)$", makefile, re.MULTILINE)) == {' -m "not slow"', " -m slow", ""}
    assert {"make test", "make test-slow"} <= {line.partition("  #")[0] for line in ci.splitlines()}
