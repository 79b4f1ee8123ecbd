"""The report and the page of a backtest as people see them: on a phone and a desk, light and dark.

`references/` holds each page as it was looked at, an eighth of the width and height of the screen.
`python -m tests.browser.test_page_layout --screens FOLDER` writes them anew; look at the screens in
FOLDER before they are committed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from beam_pipeline import cli
from beam_pipeline.fleet.output_scan import OutputScan
from beam_pipeline.pages.report import write_report
from beam_pipeline.pages.report.gathering import ReportOptions
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.browser.conftest import chromium
from tests.browser.looks import (
    BROKEN,
    CUT_OFF,
    REFERENCES,
    SIZES,
    TOLERANCE,
    difference,
    reduced,
)
from tests.transforms.archives import seen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWS = [*itertools.product(("report", "backtest"), SIZES, ("light", "dark"))]
NAMES = ("front-door", "car-park", "Warehouse_2.north-side", "hall", "garden", "x" * 64)
STRICTER = "version: 1\ndefaults:\n  objects: {person: {min_score: 0.75}}\n  cooldown: 0s\n"


def fleet(folder: Path, cameras: int) -> Path:
    """Writes an output of so many cameras, with incidents, findings and invalid images."""
    import rules

    names = [NAMES[n] if n < len(NAMES) else f"camera-{n:03}" for n in range(cameras)]
    images = [
        seen(name, f"2026-01-31T{hour:02}:{minute:02}:00Z", *found, sha256=SHA256)
        for number, name in enumerate(names)
        for hour in range(8, 20)
        for minute in (0, 3)
        for found in [
            [("person", 0.6 + hour / 100), ("car", 0.55)] if (hour + number) % 3 == 0 else []
        ]
    ]
    invalid = [
        ("not_jpeg", f"{name}_20260131T100100Z.jpg", "its first bytes are those of a PNG")
        for name in names[:3]
    ]
    write_fleet(folder, images, invalid=invalid)
    text = f"version: 1\ncameras: {{{', '.join(f'{name}: ' for name in [*names, 'roof'])}}}\n"
    ruleset = rules.parse_rules(text, "rules.yaml")
    options = ReportOptions(ruleset=ruleset if cameras else None, missing_ok=True)
    return Path(write_report(OutputScan(str(folder)), options))


def backtest(folder: Path, output: Path) -> Path:
    """Writes the page of a backtest of an output by stricter rules."""
    (folder / "stricter.yaml").write_text(STRICTER)
    before = Path.cwd()
    os.chdir(folder)  # The page names the folder and the file as they are given.
    try:
        words = ["backtest", "--output", output.name, "--rules", "stricter.yaml"]
        assert cli.main([*words, "--html", "backtest.html"]) == 0
    finally:
        os.chdir(before)
    return folder / "backtest.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of six cameras, and the page of its backtest."""
    folder = tmp_path_factory.mktemp("layout")
    return {"report": fleet(folder / "out", 6), "backtest": backtest(folder, folder / "out")}


def opened(browser: Browser, page: Path, size: str, scheme: Any = "light") -> Page:
    width, height = SIZES[size]
    how: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    tab = browser.new_context(**how).new_page()
    tab.goto(page.as_uri())
    return tab


@pytest.mark.parametrize("cameras", [0, 6, 40, 300])
def test_on_a_phone_nothing_is_cut_off_or_broken_for_any_number_of_cameras(
    browser: Browser, tmp_path: Path, cameras: int
) -> None:
    tab = opened(browser, fleet(tmp_path / "out", cameras), "phone")
    assert tab.evaluate("document.documentElement.scrollHeight") <= 7_000
    for _ in range(2):  # As it opens, and with all details open.
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate(CUT_OFF) == []
        assert tab.evaluate(BROKEN) == []
        if cameras > 40:
            break
        tab.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    tab.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_the_page_of_a_backtest_fits_a_phone_and_each_column_has_room(
    browser: Browser, pages: dict[str, Path], size: str
) -> None:
    tab = opened(browser, pages["backtest"], size)
    assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert tab.evaluate(CUT_OFF) == []
    assert tab.evaluate(BROKEN) == []
    widths = tab.evaluate(
        "[...document.querySelectorAll('td:last-child')]"
        ".map((e) => e.getBoundingClientRect().width)"
    )
    assert len(widths) > 6
    assert min(widths) > 140
    tab.context.close()


HAS_HINT = "(element) => getComputedStyle(element, '::before').maxHeight !== '0px'"
IS_WIDER = "(element) => element.scrollWidth > element.clientWidth"


@pytest.mark.parametrize("script", [False, True])
def test_wide_tables_and_the_chart_say_on_a_phone_that_they_can_be_scrolled(
    browser: Browser, pages: dict[str, Path], script: bool
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, java_script_enabled=script
    )
    tab = context.new_page()
    tab.goto(pages["report"].as_uri())
    hints = [tab.locator(f"{section} .wide").first for section in ("#hours", "#chart")]
    for hint in hints:
        shown = hint.evaluate("(element) => getComputedStyle(element, '::before').content")
        assert "scroll sideways" in shown
    of_hours = hints[0]
    of_hours.evaluate("(e) => { e.querySelector('table').style.width = '800px'; }")
    tab.screenshot()  # It draws a frame.
    assert (of_hours.evaluate(HAS_HINT), of_hours.evaluate(IS_WIDER)) == (True, True)
    of_hours.evaluate(
        "(e) => e.querySelectorAll('tr > :nth-child(n+4)').forEach((c) => c.remove())"
    )
    of_hours.evaluate("(e) => { e.querySelector('table').style.width = 'auto'; }")
    tab.screenshot()
    assert (of_hours.evaluate(HAS_HINT), of_hours.evaluate(IS_WIDER)) == (False, False)
    context.close()


def cameras_in(tab: Page, section: str) -> set[str]:
    return set(
        tab.evaluate(
            f"[...document.querySelectorAll('{section} [data-id]')]"
            ".filter((e) => !e.closest('[hidden]')).map((e) => e.dataset.id)"
        )
    )


def test_one_filter_by_camera_holds_for_every_section(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = opened(browser, pages["report"], "desk")
    sections = ("#alerts", "#cameras", "#each", "#hours", "#invalid")
    before = {section: cameras_in(tab, section) for section in sections}
    assert all(len(ids) >= 3 for ids in before.values())
    tab.get_by_label("Filter").fill("car-p")
    for section in sections:
        assert cameras_in(tab, section) == {"car-park"}, section
    assert cameras_in(tab, "#health") <= {"car-park"}
    assert not tab.locator("#chart .whole").is_hidden()
    tab.get_by_label("Filter").fill("no such camera")
    for section in ("#alerts", "#cameras", "#each", "#hours"):
        assert cameras_in(tab, section) == set()
        assert "None that the filter shows." in tab.locator(section).inner_text()
    tab.get_by_label("Filter").fill("")
    assert {section: cameras_in(tab, section) for section in sections} == before
    tab.context.close()


def test_one_filter_by_time_holds_for_every_section(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = opened(browser, pages["report"], "desk")

    def total(name: str) -> str:
        return tab.locator(f"[data-total={name}]").inner_text()

    assert (total("images"), total("incidents")) == ("144", "24")
    tab.get_by_label("from (UTC)").fill("2026-01-31T10:00")
    tab.get_by_label("until (UTC)").fill("2026-01-31T12:00")
    # Two of twelve hours with two images of six cameras; four incidents, of two images each.
    assert (total("images"), total("threat_images")) == ("24", "8")
    assert (total("incidents"), total("invalid")) == ("4", "\u2013")
    times = tab.evaluate(
        "[...document.querySelectorAll('#alerts .incidents > li')].filter((e) => !e.hidden)"
        ".map((e) => e.dataset.from)"
    )
    assert len(times) == 4
    assert all("2026-01-31T10:00:00Z" <= time < "2026-01-31T12:00:00Z" for time in times)
    hours = tab.locator("#hours thead tr:last-child th:not([hidden])").all_text_contents()
    assert hours == ["camera", "10", "11"]
    row = tab.locator("#fleet tbody tr[data-id=garden] td").all_text_contents()
    assert row[:5] == ["4", "2", "50 %", "4", "2"]
    tab.evaluate("document.getElementById('camera:garden').open = true")
    rows = tab.locator("[id='camera:garden'] tbody tr:visible").all_text_contents()
    assert [text[:11] for text in rows] == ["01-31 10:00", "01-31 11:00"]
    tab.get_by_label("from (UTC)").fill("")
    tab.get_by_label("until (UTC)").fill("")
    assert (total("images"), total("incidents"), total("invalid")) == ("144", "24", "3")
    assert tab.locator("#fleet tbody tr[data-id=garden] td").first.inner_text() == "24"
    tab.context.close()


def test_each_camera_has_a_section_with_its_incidents_that_lead_to_the_alerts(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = opened(browser, pages["report"], "phone")
    tab.locator("#fleet").get_by_role("link", name="hall").click()
    section = tab.locator("[id='camera:hall'][open]")
    section.wait_for()  # The page opens it when its address has changed.
    links = section.get_by_role("link")
    assert links.count() == 4
    links.last.click()
    alert = tab.locator("details.alert[open]")
    alert.wait_for()
    assert alert.count() == 1
    assert "hall" in alert.inner_text()
    assert "Further images of this incident" in alert.inner_text()
    assert tab.evaluate("document.querySelector('.more').open")  # It is not among the newest.
    tab.context.close()


# As it was looked at.


def screen(browser: Browser, page: Path, size: str, scheme: str) -> Image.Image:
    tab = opened(browser, page, size, scheme)
    shot = Image.open(io.BytesIO(tab.screenshot()))
    tab.context.close()
    return shot


@pytest.mark.parametrize(("page", "size", "scheme"), VIEWS)
def test_the_pages_look_as_they_were_looked_at(
    browser: Browser, pages: dict[str, Path], page: str, size: str, scheme: str
) -> None:
    now = reduced(screen(browser, pages[page], size, scheme))
    with Image.open(REFERENCES / f"{page}-{size}-{scheme}.png") as kept:
        assert kept.size == now.size
        assert difference(kept.convert("RGB"), now) <= TOLERANCE


@pytest.mark.parametrize(
    "broken",
    [
        ".totals { display: block !important }",
        "body { max-width: 20rem !important }",
        "form.filters { display: none !important }",
        ".incidents img { width: 100% !important; flex: none !important }",
        ":root { --page: #fff !important; --card: #f5f6f8 !important }",
    ],
)
def test_a_broken_page_does_not_look_as_it_was_looked_at(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, broken: str
) -> None:
    text = pages["report"].read_text()
    policy = text[text.index('<meta http-equiv="Content-Security-Policy"') :].split("\n")[0]
    page = tmp_path / "broken.html"
    page.write_text(text.replace(policy, "").replace("</style>", f"{broken}</style>", 1))
    with Image.open(REFERENCES / "report-desk-dark.png") as kept:
        now = reduced(screen(browser, page, "desk", "dark"))
        assert difference(kept.convert("RGB"), now) > TOLERANCE


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser()
    parser.add_argument("--screens", type=Path)
    screens = parser.parse_args().screens
    REFERENCES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = {"report": fleet(folder / "out", 6), "backtest": backtest(folder, folder / "out")}
        for browser in chromium():
            for page, size, scheme in VIEWS:
                shot = screen(browser, made[page], size, scheme)
                reduced(shot).save(REFERENCES / f"{page}-{size}-{scheme}.png", optimize=True)
                if screens is not None:
                    shot.save(screens / f"{page}-{size}-{scheme}.png")


if __name__ == "__main__":
    main()
