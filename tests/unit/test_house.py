"""The structure, beyond what import-linter holds (pyproject.toml, `make lint`)."""

import ast
import re
import sys
from pathlib import Path

import grimp

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "lethe"
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = {path.stem: path for path in sorted(SRC.glob("*.py"))}


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def test_one_place_steps_a_model() -> None:
    steppers = {path.relative_to(PACKAGE) for path in MODULES if re.search(r"\.backward\(|optimizer\.step\(", path.read_text())}
    assert steppers == {Path("engine/engine.py")}


def test_nothing_imports_a_stage() -> None:
    for path in [*MODULES, *STAGES.values()]:
        names = {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}
        assert not names & {*STAGES}, path


def test_importing_a_quick_room_takes_no_slow_library() -> None:
    """--help, fingerprint and scores from tables start at once: what takes long to import is imported where it is used."""
    for room in ("_util", "recipes", "config", "evaluation", "tracking", "parallel", "reporting", "cli"):
        for path in (PACKAGE / room).glob("*.py"):
            if path.stem in ("inference", "metrics", "outputs"):
                continue
            at_top = {module.split(".")[0] for node in ast.parse(path.read_text()).body for module in imported(node)}
            assert not at_top & {"torch", "torchvision", "sklearn", "scipy", "pandas", "mlflow", "optuna", "matplotlib"}, path


def test_no_module_shadows_the_standard_library() -> None:
    assert not {path.stem for path in MODULES} & sys.stdlib_module_names - {"__init__"}


def test_no_module_is_long() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: number for name, number in lines.items() if number > 400}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph("lethe", cache_dir=None)
    for module in graph.modules:
        for name in graph.find_modules_directly_imported_by(module):
            assert module not in graph.find_upstream_modules(name), f"{module} imports {name}, which imports it"


def test_every_room_is_on_the_architecture_page() -> None:
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("__pycache__",)}
    assert rooms == set(re.findall(r"^\| `lethe/(\w+)` ", page, re.MULTILINE))
    assert set(STAGES) <= set(re.findall(r"\w+", next(line for line in page.splitlines() if line.startswith("| `src/*.py`"))))


def test_tests_named_on_the_architecture_page_exist() -> None:
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    for name in re.findall(r"tests/([\w/]+\.py)", page):
        assert (SRC.parent / "tests" / name).exists(), name


def test_every_locked_dependency_has_hashes() -> None:
    for path in sorted(SRC.parent.glob("requirements*.txt")):
        pinned = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).strip())
        assert pinned and all(re.match(r"[\w.\[\],-]+==\S+", one) and "--hash=sha256:" in one for one in pinned), path.name
