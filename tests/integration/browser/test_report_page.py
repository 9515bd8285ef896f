"""report.html as a browser shows it: alone, at every width, sorted by a click, without JavaScript, and in print."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lethe.config import loader as config
from lethe.reporting.report import report
from support.browser import CHROMIUM, Browser
from support.cards import workspace

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")]

NAMES = "[...document.querySelectorAll('.runs tbody th')].map(cell => cell.textContent)"
NUMBERS = "[...document.querySelectorAll('.runs tbody tr')].map(row => row.children[4].firstChild.textContent)"
HIDDEN = "[...document.querySelectorAll('.more')].map(one => getComputedStyle(one).display)"
FITS = "document.documentElement.scrollWidth <= window.innerWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = workspace(tmp_path_factory.mktemp("report") / "workspace")
    report(config.load(["--run.workspace", str(home)]))
    return home / "report" / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.ask(f"{domain}.enable")
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    yield chromium
    chromium.ask("Emulation.setScriptExecutionDisabled", value=False)
    chromium.ask("Emulation.setEmulatedMedia", media="", features=[])
    chromium.ask("Emulation.clearDeviceMetricsOverride")


def opened(browser: Browser, page: Path) -> Browser:
    browser.open(page.as_uri())
    browser.until(f"location.href === '{page.as_uri()}' && document.readyState === 'complete'")
    return browser


def of(browser: Browser, method: str) -> list[dict[str, Any]]:
    return [event["params"] for event in browser.events if event["method"] == method]


def test_it_asks_nothing_of_the_network_and_has_no_errors(browser: Browser, page: Path) -> None:
    browser.events.clear()
    opened(browser, page)
    browser.until_said("Remembers", "Over-forgets", "All runs")
    asked = {event["request"]["url"] for event in of(browser, "Network.requestWillBeSent")}
    assert asked - {"about:blank"} == {page.as_uri()}
    assert not [*of(browser, "Runtime.exceptionThrown"), *of(browser, "Runtime.consoleAPICalled"), *of(browser, "Log.entryAdded")]


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_follows_the_colours(width: int, scheme: str, browser: Browser, page: Path) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened(browser, page)
    assert browser.evaluate("window.innerWidth") == width
    assert browser.evaluate(FITS)
    cut = browser.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.runs').parentNode)")
    assert cut == (width == 360) == (browser.evaluate("getComputedStyle(document.querySelector('.hint')).display") != "none")
    paper, ink = (
        int(browser.evaluate(f"getComputedStyle(document.body).{name}.match(/\\d+/)[0]")) for name in ("backgroundColor", "color")
    )
    assert (paper < ink) == (scheme == "dark")


def test_a_click_sorts_the_table(browser: Browser, page: Path) -> None:
    opened(browser, page)
    assert browser.evaluate(NAMES) == ["original", "retrained", "Model 1", "Model 2"]
    seen = [float(number) for number in browser.evaluate(NUMBERS)]
    browser.evaluate("document.querySelectorAll('.runs thead button')[4].click()")
    assert [float(number) for number in browser.evaluate(NUMBERS)] == sorted(seen)
    assert browser.evaluate("document.querySelectorAll('.runs thead th')[4].ariaSort") == "ascending"
    browser.evaluate("document.querySelectorAll('.runs thead button')[4].click()")
    assert [float(number) for number in browser.evaluate(NUMBERS)] == sorted(seen, reverse=True)
    browser.evaluate("document.querySelectorAll('.runs thead button')[2].click()")  # those without a number come last, both ways
    assert browser.evaluate(NAMES)[:2] == [
        "Model 2",
        "Model 1",
    ]
    browser.evaluate("document.querySelectorAll('.runs thead button')[2].click()")
    assert browser.evaluate(NAMES)[:2] == ["Model 1", "Model 2"]


def test_intervals_and_chance_are_a_hover_or_a_tick_away_and_in_print(browser: Browser, page: Path) -> None:
    opened(browser, page)
    assert set(browser.evaluate(HIDDEN)) == {"none"}
    spot = browser.evaluate(
        "(() => { const cell = document.querySelectorAll('.runs tbody tr')[2].children[4]; cell.scrollIntoView();"
        " const box = cell.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1])
    browser.until(f"{HIDDEN}.filter(each => each === 'block').length === 1")
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.evaluate("document.querySelector('#intervals').click()")
    assert set(browser.evaluate(HIDDEN)) == {"block"}
    browser.evaluate("document.querySelector('#intervals').click()")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    browser.until(f"new Set({HIDDEN}).size === 1 && {HIDDEN}[0] === 'block'")
    browser.until_said("95 % over ", "retrained ")


def test_without_javascript_all_is_there(browser: Browser, page: Path) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page.as_uri())
    browser.until_said("Remembers", "Over-forgets", "original", "Model 1", "Model 2", "Memory left")
    assert browser.evaluate("document.querySelectorAll('.runs thead button').length") == 0
    assert browser.evaluate("document.querySelectorAll('.plot g').length") == 4
