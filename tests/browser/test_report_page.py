"""The report's page in a real browser: Debian's Chromium, without a window."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import ReportOptions
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.browser.looks import CONTRAST, NAMELESS
from tests.transforms.archives import seen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = '"><img src=x onerror="window.hurt=1"></script><script>window.hurt=1</script>\'`${hurt}'
THREATS = {"gate-2": 1, "gate-10": 3, "hall": 7, "yard": 0}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small fleet whose names and labels are hostile; one camera sends nothing."""
    import rules

    folder = tmp_path_factory.mktemp("browser")
    images = [
        seen(camera, f"2026-01-31T{10 + number}:00:00Z", *found, sha256=SHA256)
        for camera, threats in THREATS.items()
        for number in range(8)
        for found in [[("person", 0.9)] if number < threats else []]
    ]
    images.append(seen("hall", "2026-01-31T20:00:00Z", (HOSTILE, 0.9), sha256=SHA256))
    label = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    rule_text = f'version: 1\ndefaults:\n  objects: {{person: {{}}, "{label}": {{}}}}\n'
    named = HOSTILE.replace("/", "_")
    write_fleet(
        folder,
        images,
        rule_text=rule_text,
        targets=lambda _: [{"target": HOSTILE, "outcome": "failed", "detail": HOSTILE}],
        invalid=[("bad_name", f"{named}.jpg", HOSTILE)],
    )
    roof = rules.parse_rules("version: 1\ncameras: {roof: {objects: {person: {}}}}\n", "rules.yaml")
    return Path(write_report(OutputScan(str(folder)), ReportOptions(ruleset=roof)))


class Opened:
    """The page in a tab, and all that it has asked for or complained of."""

    def __init__(self, browser: Browser, file: Path, **how: Any) -> None:
        self.tab: Page = browser.new_context(**how).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.refused: list[tuple[str, str | None]] = []
        self.tab.on("console", lambda said: self.complaints.append(said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on(
            "requestfailed", lambda request: self.refused.append((request.url, request.failure))
        )
        self.tab.goto(file.as_uri())

    def ids(self) -> list[str]:
        """The cameras of the rows that are seen, in order."""
        heads = self.tab.locator("#fleet tbody tr:not([hidden]) th")
        return heads.all_text_contents()

    def computed(self, script: str) -> Any:
        return self.tab.evaluate(script)


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    page = Opened(browser, report)
    yield page
    page.tab.context.close()


def test_it_loads_without_a_complaint_and_asks_for_nothing_and_runs_no_foreign_script(
    opened: Opened, report: Path
) -> None:
    assert opened.complaints == []
    assert [request for request in opened.requests if not request.startswith("data:")] == [
        report.as_uri()
    ]
    assert opened.computed("window.hurt") is None
    assert opened.computed("document.scripts.length") == 1
    shown = opened.computed(
        "[...document.images].map((element) => element.complete && element.naturalWidth > 0)"
    )
    assert len(shown) == 1 + 12
    assert all(shown)
    assert HOSTILE in opened.tab.locator("#alerts").inner_text()
    if folder := os.environ.get("SCREENSHOTS"):
        opened.tab.screenshot(path=f"{folder}/report.png", full_page=True)


def test_nothing_that_gets_into_the_page_can_run_or_reach_out(opened: Opened) -> None:
    """The policy holds even where escaping would not."""
    opened.computed(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hurt = 1";
            const picture = document.createElement("img");
            picture.src = "http://127.0.0.1:9/x.png";
            document.body.append(script, picture);
            const text = "<img src='data:,' onerror='window.hurt = 1'>";
            document.body.insertAdjacentHTML("beforeend", text);
        }"""
    )
    opened.tab.wait_for_timeout(200)
    assert opened.computed("window.hurt") is None
    assert (
        len(
            [complaint for complaint in opened.complaints if "Content Security Policy" in complaint]
        )
        >= 2
    )
    assert opened.refused == [("http://127.0.0.1:9/x.png", "csp")]


def test_the_table_sorts_by_numbers_and_names_and_says_so(opened: Opened) -> None:
    head = opened.tab.get_by_role("columnheader", name="threats", exact=True)
    head.get_by_role("button").click()
    assert opened.ids() == ["hall", "gate-10", "gate-2", "roof", "yard"]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Enter")
    assert opened.ids() == ["roof", "yard", "gate-2", "gate-10", "hall"]
    assert head.get_attribute("aria-sort") == "ascending"
    opened.tab.get_by_role("button", name="camera").click()
    assert opened.ids() == ["gate-2", "gate-10", "hall", "roof", "yard"]
    assert opened.tab.locator("[aria-sort]").count() == 1


def test_the_table_filters_by_name_and_by_what_is_wrong(opened: Opened) -> None:
    box = opened.tab.get_by_label("Filter")
    box.fill("GATE")
    assert opened.ids() == ["gate-10", "gate-2"]
    assert opened.tab.get_by_role("status").inner_text() == "2 of 5 cameras"
    box.fill("never sent")
    assert opened.ids() == ["roof"]
    box.fill("")
    opened.tab.get_by_label("only with findings").check()
    assert "roof" in opened.ids()
    assert "gate-2" not in opened.ids()


def test_an_alert_opens_by_keyboard_and_tells_why(opened: Opened) -> None:
    alert = opened.tab.locator("details.alert").nth(1)
    why = alert.get_by_text("a threat of severity alert, rule defaults.objects.person")
    assert not why.is_visible()
    alert.locator("summary").press("Enter")
    assert why.is_visible()


def test_all_is_open_on_paper(opened: Opened) -> None:
    opened.computed("dispatchEvent(new Event('beforeprint'))")
    assert opened.computed("document.querySelectorAll('details:not([open])').length") == 0
    opened.tab.emulate_media(media="print")
    assert not opened.tab.get_by_label("Filter").is_visible()
    opened.computed("dispatchEvent(new Event('afterprint'))")
    assert opened.computed("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_either_scheme(
    browser: Browser, report: Path, width: int, scheme: Any
) -> None:
    page = Opened(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.computed("for (const element of document.querySelectorAll('details')) element.open = true")
    assert page.computed("document.documentElement.scrollWidth") <= width
    background, low = page.computed(CONTRAST)
    assert (background > 0.5) == (scheme == "light")
    assert low == []
    page.tab.context.close()


def test_a_screen_reader_finds_its_way(opened: Opened) -> None:
    nameless = opened.computed(NAMELESS)
    assert nameless == []
    assert opened.computed("document.documentElement.lang") == "en"
    levels = opened.computed("[...document.querySelectorAll('h1,h2,h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    doubled = opened.computed(
        "[...document.querySelectorAll('[id]')].length - "
        "new Set([...document.querySelectorAll('[id]')].map((element) => element.id)).size"
    )
    assert doubled == 0
    opened.tab.keyboard.press("Tab")
    assert opened.computed("document.activeElement.textContent") == "Skip to the alerts"


def test_a_link_of_a_message_opens_its_alert(browser: Browser, report: Path) -> None:
    anchor = "hall_20260131T120000Z"
    tab = Opened(browser, report).tab
    assert tab.evaluate("document.querySelectorAll('details.alert[open]').length") == 0
    tab.goto(f"{report.as_uri()}#{anchor}")
    assert tab.evaluate("[...document.querySelectorAll('details.alert[open]')].map(e => e.id)") == [
        anchor
    ]
    top = tab.evaluate(f"document.getElementById('{anchor}').getBoundingClientRect().top")
    assert -1 < top < tab.evaluate("innerHeight")
    fresh = Opened(browser, report)
    fresh.tab.goto("about:blank")
    fresh.tab.goto(f"{report.as_uri()}#{anchor}")
    assert fresh.tab.evaluate(f"document.getElementById('{anchor}').open")
    fresh.tab.goto(f"{report.as_uri()}#%E0%A4%A")
    assert fresh.complaints == []
