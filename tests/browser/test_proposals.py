"""Proposals in a real browser: from an alert to the rule that silences it, and back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rules
from tests.beam_pipeline.web.marked_output import RULES, SHOWN, write_marked_output
from tests.beam_pipeline.web.serving import Served, served, users_file
from tests.browser.looks import BROKEN, CONTRAST, CUT_OFF, NAMELESS, SIZES
from tests.browser.tabs import ALL_DETAILS, WIDTH, Tab
from transforms.storage.marks import read_marks

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGE = "/cameras/hall/proposals"


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Served]:
    """The console of an output whose last alert is unmarked, with users and a rule file."""
    write_marked_output(tmp_path / "out", [*SHOWN[:3], (*SHOWN[3][:3], None), *SHOWN[4:]])
    (tmp_path / "rules.yaml").write_text(RULES)
    users = users_file(tmp_path / "users.json")
    options = ("--rules", tmp_path / "rules.yaml", "--users", users)
    with served(tmp_path / "out", tmp_path / "index", *options) as here:
        yield here


def test_from_an_alert_to_the_rule_that_silences_it_and_back_in_taps(
    browser: Browser, changing: Served, tmp_path: Path
) -> None:
    """On a phone, by touch: false, what would have silenced it, apply, undo."""
    alert_id = rules.alert_id("hall", SHOWN[3][0], "alert")
    tab = Tab(browser, changing, f"/alerts/{alert_id}", "phone", has_touch=True)
    tab.log_in("admin")
    page = tab.page
    link = page.get_by_role("link", name="What would have silenced it?")
    assert not link.is_visible()
    page.get_by_role("button", name="False").tap()
    link.tap()
    page.wait_for_url(f"**{PAGE}")
    assert ("admin", "false") in [
        (mark.by, mark.mark) for mark in read_marks(str(tmp_path / "out"))[0]
    ]
    first = page.locator(".proposal").first
    assert first.locator("h2").inner_text() == "Ignore person in this place"
    assert "4 of 4 false alerts gone" in first.inner_text()
    assert "4 of 4 right ones kept" in first.inner_text()
    first.get_by_text("The change of the rule file").tap()
    assert "+    mask:" in first.locator("pre").inner_text()
    first.get_by_role("button", name="Apply").tap()
    page.get_by_text("There is nothing to propose").wait_for()
    assert "marked-1" in (tmp_path / "rules.yaml").read_text()
    assert "# as measured" in (tmp_path / "rules.yaml").read_text()
    page.get_by_role("button", name="Undo").tap()
    page.locator(".proposal").first.wait_for()
    assert (tmp_path / "rules.yaml").read_text() == RULES
    assert tab.complaints == []
    assert tab.elsewhere == []
    tab.close()


def test_the_place_of_a_mask_is_drawn_where_the_false_boxes_are(
    browser: Browser, changing: Served
) -> None:
    tab = Tab(browser, changing, PAGE)
    tab.page.get_by_label("Name").fill("viewer")
    tab.page.get_by_label("Password").fill("correct horse battery")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**{PAGE}")
    first = tab.page.locator(".proposal").first
    shot = first.locator(".strip img").first
    changing.until(lambda: shot.evaluate("(image) => image.complete && image.naturalWidth > 0"))
    image = shot.bounding_box()
    place = first.locator("polygon").first.bounding_box()
    assert image is not None
    assert place is not None
    for begin, size, centre in (("x", "width", 0.2), ("y", "height", 0.3)):
        at = place[begin] + place[size] / 2 - image[begin]  # type: ignore[literal-required]
        assert abs(at - centre * image[size]) < 2  # type: ignore[literal-required]
    assert tab.page.get_by_role("button", name="Apply").count() == 0  # Of a viewer.
    assert tab.page.get_by_text("An admin can apply one of them here.").is_visible()
    tab.close()


def test_the_pages_fit_the_screen_and_axe_core_finds_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    write_marked_output(tmp_path / "out")
    (tmp_path / "rules.yaml").write_text(RULES)
    options = ("--rules", tmp_path / "rules.yaml")
    with served(tmp_path / "out", tmp_path / "index", *options) as here:
        for size, scheme in itertools.product(SIZES, ("light", "dark")):
            tab = Tab(browser, here, PAGE, size, bypass_csp=True, color_scheme=scheme)

            def look(tab: Tab = tab, size: str = size) -> None:
                page = tab.page
                for is_open in (False, True):
                    page.evaluate(f"{ALL_DETAILS}.forEach((e) => e.open = {str(is_open).lower()})")
                    assert page.evaluate(WIDTH) <= SIZES[size][0], page.url
                    # What is beyond a strip of pictures or a text that is scrolled is no fault.
                    cut = [one for one in page.evaluate(CUT_OFF) if "strip" not in one]
                    assert [one for one in cut if not is_in_strip(tab, one)] == [], page.url
                    assert page.evaluate(BROKEN) == [], page.url
                    assert page.evaluate(CONTRAST)[1] == [], page.url
                assert page.evaluate(NAMELESS) == [], page.url
                found = Axe().run(page).response["violations"]
                wrong = [(one["id"], one["nodes"][0]["html"]) for one in found]
                assert wrong == [], page.url

            look()
            button = tab.page.locator(".proposal").first.get_by_role("button")
            button.click()
            tab.page.get_by_role("button", name="Undo").wait_for()
            look()
            tab.page.get_by_role("link", name="All changes").click()
            tab.page.wait_for_url("**/rules/changes")
            look()
            tab.page.locator("td a").first.click()
            tab.page.get_by_role("button", name="Put it back").wait_for()
            look()
            tab.page.get_by_role("button", name="Put it back").click()
            tab.page.wait_for_url("**/rules/changes")
            assert (tmp_path / "rules.yaml").read_text() == RULES
            tab.close()


def is_in_strip(tab: Tab, html: str) -> bool:
    """Whether a part of the page is among pictures that are scrolled sideways."""
    return bool(
        tab.page.evaluate(
            "(html) => [...document.querySelectorAll('.strip *, pre *')].some("
            "(element) => element.outerHTML.startsWith(html))",
            html,
        )
    )
