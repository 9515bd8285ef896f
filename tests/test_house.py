"""Who may import whom: the house as a test."""

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGE = {path.stem: path for path in sorted((SRC / "unlearning").glob("*.py"))}
STAGES = {path.stem: path for path in sorted(SRC.glob("*.py"))}


def imports(path: Path) -> set[str]:
    """Every module named in an import, at any depth of the file: `unlearning.engine`, `mlflow`."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def own(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("unlearning.") and name.split(".")[1] in PACKAGE}


@pytest.mark.parametrize(
    ("library", "home"), [("mlflow", "delivery"), ("optuna", "search storage"), ("multiprocessing", "spread"), ("ray", "spread")]
)
def test_a_library_is_imported_in_one_file(library: str, home: str) -> None:
    users = {name for name, path in {**PACKAGE, **STAGES}.items() if any(i.split(".")[0] == library for i in imports(path))}
    assert users <= {*home.split()}


def test_one_place_steps_a_model() -> None:
    steppers = {name for name, path in PACKAGE.items() if re.search(r"\.backward\(|optimizer\.step\(", path.read_text())}
    assert steppers == {"engine"}


def test_nothing_imports_a_stage() -> None:
    scripts = set(STAGES) - set(PACKAGE)
    for path in [*PACKAGE.values(), *STAGES.values()]:
        assert not {name for name in imports(path) if name in scripts}, path


VOCABULARY = {"recipe", "order", "schedule", "losses", "select", "edits"}
MEASURES = {"attacks", "case", "distributions", "features", "intervals", "measures", "measuring", "table"}
PURE = {"checkpoint", "data", "model", "metrics", "predict", "quick", "errors", "files", "sources", "splits"} | MEASURES


def test_the_engine_knows_no_method_metric_tracker_or_configuration() -> None:
    assert own(PACKAGE["engine"]) <= VOCABULARY | {"data", "errors"}


def test_the_vocabulary_knows_only_itself() -> None:
    for name in VOCABULARY:
        assert own(PACKAGE[name]) <= VOCABULARY | {"data", "engine", "errors"}, name  # data and engine for type checkers alone
    assert own(PACKAGE["methods"]) <= VOCABULARY


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_pure_part_knows_no_edge(name: str) -> None:
    assert own(PACKAGE[name]) <= PURE | VOCABULARY, name


def test_the_journal_knows_nobody_who_tells_or_sends() -> None:
    assert own(PACKAGE["journal"]) <= {"checkout", "errors", "files"}


def test_the_keys_know_no_file_that_says_them() -> None:
    assert own(PACKAGE["keys"]) <= {"methods", "schedule"}


def test_measures_are_arithmetic_on_tables() -> None:
    """Scores without a model, and a quick start: what takes long to import is imported where it is used."""
    for name in MEASURES:
        assert own(PACKAGE[name]) <= MEASURES | {"checkpoint", "errors", "files", "splits"}, name
        at_top = {module.split(".")[0] for node in ast.parse(PACKAGE[name].read_text()).body for module in imported(node)}
        assert not at_top & {"torch", "sklearn", "scipy", "pandas"}, name


def test_no_file_on_the_way_to_a_step_is_long() -> None:
    for name in ("unlearn", "follow", "engine", "methods", "recipe"):
        assert len(PACKAGE[name].read_text().splitlines()) <= 300, name


def test_every_room_stands_on_the_architecture_page() -> None:
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    rooms = set(re.findall(r"[a-z_]+", " ".join(line for line in page.splitlines() if line.startswith("| `"))))
    assert set(PACKAGE) - {"__init__"} <= rooms
    assert set(STAGES) <= rooms


def test_tests_named_on_the_architecture_page_exist() -> None:
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    for name in re.findall(r"tests/(\w+\.py)", page):
        assert (SRC.parent / "tests" / name).exists(), name
