"""Pages, help and comments use the field's words: none of those below, each of which has a plain one."""

import re

import pytest

from support.project import ROOT

# anew: again; beside: next to, compared with; behind: after; climb: gradient ascent; yardstick: baseline; mend: repair
WORDS = re.compile(
    r"\b(anew|beside|behind|climbs?|yardstick|glance|mend(s|ed)?|stands? (in|under|on|there|below)|lies? in)\b", re.IGNORECASE
)
KEYS = re.compile(r"\bbeside:|item\.beside")  # of dvc.yaml
FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "params.yaml", "MLproject", "conda.yaml", "dvc.yaml", "search/dvc.yaml", "Makefile")
PAGES = [
    *FILES,
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")) if path.name not in ("log.md", "keys.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_plain_words(page: str) -> None:
    prose = re.sub(r"^```diff\n.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if WORDS.search(line) and not KEYS.search(line)] == []
