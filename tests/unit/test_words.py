"""Words that prose in the sources, the README and the docs does not use, and what it says instead."""

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

from support.project import ROOT

# Extend it as more of them are gone
INSTEAD = {
    "aims": "targets",
    "are told": "are logged, are given",
    "at hand": "that is given",
    "can not": "cannot",
    "climb": "gradient ascent",
    "climbs": "gradient ascent",
    "everybody": "all, every",
    "glance": "evaluate_sample",
    "going on behind": "resuming after",
    "is told": "is logged, is given",
    "lies in": "is stored in",
    "mended": "repaired",
    "naught": "zero",
    "stands beside": "is next to",
    "stands on": "is in",
    "thereof": "its, of it",
    "therein": "in it",
    "whence": "from where",
    "who stops": "an interrupt",
    "yardstick": "baseline",
}
NAMES = {"BadInput": "UserError", "TooFew": "InsufficientData", "Refs": "References"}


def prose(path: Path) -> str:
    """Comments and strings of a Python file; all else as it is, without what is typed."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return "\n".join(token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type in kinds)


def pages() -> list[Path]:
    documents = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md"]  # the log keeps what it said
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.jinja"), *documents]
    return sorted([*files, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "params.yaml", "Makefile", "dvc.yaml"))])


@cache
def all_prose() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): prose(path) for path in pages()}


@pytest.mark.parametrize("word", INSTEAD)
def test_prose_says_the_fields_word(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b".replace(" ", r"\s+"), re.IGNORECASE)
    found = [f"{name}: {match[0]}" for name, text in all_prose().items() for match in pattern.finditer(text)]
    assert not found, f"say: {INSTEAD[word]}"


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_before_is_left(name: str) -> None:
    pattern = re.compile(rf"\b{name}\b")
    found = [str(path.relative_to(ROOT)) for path in pages() if pattern.search(path.read_text(encoding="utf-8"))]
    assert not found, f"it is called {NAMES[name]} now"
