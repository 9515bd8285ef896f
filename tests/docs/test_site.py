"""The documentation site builds in strict mode without a network, takes nothing from one, and no link in it is dead."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import lethe
from support.project import NET, ROOT, clean

FETCHED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}


class Addresses(HTMLParser):
    """The links, the fetched files and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if (tag, name) in FETCHED and value:
                self.fetched.append(value)
            if tag == "a" and name == "href" and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=clean() | nowhere, capture_output=True, text=True, timeout=NET)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_internal_link_resolves(site: Path) -> None:
    pages = {path: Addresses(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 15
    for path, page in pages.items():
        for address in page.links + page.fetched:
            parts = urlsplit(address)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(site)} links to {address}"
            anchor = unquote(parts.fragment)
            assert target not in pages or anchor in pages[target].anchors or anchor.startswith("__"), f"{path.relative_to(site)}: {address}"


@pytest.mark.slow
def test_nothing_is_taken_from_the_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not [address for address in Addresses(path).fetched if urlsplit(address).netloc], path
    for path in site.rglob("*.css"):
        assert not re.search(r"""url\(["']?(https?:)?//""", path.read_text()), path


@pytest.mark.slow
def test_the_reference_is_made_from_docstrings(site: Path) -> None:
    anchors = {anchor for path in (site / "reference").glob("*.html") for anchor in Addresses(path).anchors}
    public = {f"{getattr(lethe, name).__module__}.{name}" for name in lethe.__all__ if name != "__version__"}
    assert public <= anchors, "add them to docs/reference"
    assert "Return a copy of a classifier that has unlearned the forget set." in (site / "reference" / "api.html").read_text()
