"""Zones and masks drawn on an image in a real browser: by mouse, touch, pen and keyboard.

`python -m tests.browser.test_zones --screens FOLDER` writes the references anew; look at the
screens in FOLDER before they are committed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import rules
from beam_pipeline.web.pages import zones
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.beam_pipeline.web.serving import Served, served
from tests.browser.conftest import chromium
from tests.browser.looks import (
    BROKEN,
    CONTRAST,
    CUT_OFF,
    REFERENCES,
    TOLERANCE,
    difference,
    reduced,
)
from tests.browser.tabs import Tab
from tests.transforms.archives import seen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Point = tuple[float, float]
RULES = """\
version: 1
defaults:
  objects: {person: {min_score: 0.5}, car: {min_score: 0.5}}
  cooldown: 0s
cameras:
  hall:   # by the door
    zones:
      drive: {polygon: [[0.05, 0.2], [0.95, 0.2], [0.95, 0.98], [0.05, 0.98]]}
    mask:
      sky: {polygon: [[0, 0], [1, 0], [1, 0.12], [0, 0.15]], objects: [car]}
"""
SHAPE = ((0.2, 0.5), (0.55, 0.45), (0.5, 0.9), (0.15, 0.85))
VIEWS = [*itertools.product(("phone", "desk"), ("light", "dark"))]
ALERTS = [f"2026-01-31T{hour:02d}:00:00Z" for hour in range(8, 16)]
LEFT, RIGHT = (0.2, 0.3, 0.2, 0.4), (0.7, 0.3, 0.2, 0.4)


@contextmanager
def consoled(folder: Path) -> Iterator[Served]:
    """A console of a camera with five alerts on the left and three on the right."""
    boxes = [LEFT] * 5 + [RIGHT] * 3
    write_fleet(
        folder / "out",
        [seen("hall", time, ("person", 0.9), bbox=box, sha256=SHA256)
         for time, box in zip(ALERTS, boxes, strict=True)],
        rule_text=RULES,
    )  # fmt: skip
    (folder / "rules.yaml").write_text(RULES)
    with served(folder / "out", folder / "index", "--rules", folder / "rules.yaml") as here:
        yield here


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Served]:
    with consoled(tmp_path) as here:
        yield here


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One whose rule file no test changes."""
    with consoled(tmp_path_factory.mktemp("zones")) as here:
        yield here


def polygon_in_file(here: Served, section: str, name: str) -> tuple[Point, ...] | None:
    path = here.prepared.console.rules_file.path
    assert path is not None
    camera = rules.load_rules(path).for_camera("hall")
    return (camera.zones if section == "zones" else camera.masks)[name].polygon


def is_near(one: Sequence[Point] | None, other: Sequence[Point], tolerance: float = 0.01) -> bool:
    """Whether two polygons have the same corners, each to 1 % of the image."""
    return one is not None and len(one) == len(other) and all(
        abs(a - b) <= tolerance
        for pair in zip(one, other, strict=True)
        for a, b in zip(*pair, strict=True)
    )  # fmt: skip


class Surface:
    """The image of a page, by fractions."""

    def __init__(self, page: Page) -> None:
        page.locator("#drawing").scroll_into_view_if_needed()
        box = page.locator("#drawing").bounding_box()
        assert box is not None
        self._box = box

    def at(self, point: Point) -> Point:
        box = self._box
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]


def result(page: Page, says: str) -> str:
    page.locator("#result", has_text=says).wait_for()
    return page.locator("#result").inner_text()


def save(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Save").click()
    tab.page.get_by_text("Saved. A stream judges by it").wait_for()
    assert tab.complaints == []
    assert tab.elsewhere == []


def test_a_mask_is_drawn_by_mouse_counted_and_saved(browser: Browser, hall: Served) -> None:
    tab = Tab(browser, hall, "/cameras/hall")
    page = tab.page
    page.get_by_role("link", name="Zones and masks").click()
    page.get_by_role("link", name="New mask").click()
    image = Surface(page)
    for point in SHAPE:
        page.mouse.click(*image.at(point))
    assert "5 would not have been sent (0 marked false, 0 right, 5 neither)" in result(
        page, "5 wou"
    )
    assert page.locator("#inside").get_attribute("d") == "M0.3 0.7h0" * 5
    assert page.locator("#outside").get_attribute("d") == "M0.8 0.7h0" * 3
    # A corner is dragged, and the numbers follow.
    page.mouse.move(*image.at((0.555, 0.455)))
    page.mouse.down()
    page.mouse.move(*image.at((0.7, 0.3)), steps=4)
    page.mouse.move(*image.at((0.955, 0.455)), steps=4)
    page.mouse.up()
    page.mouse.move(*image.at((0.5, 0.9)))
    page.mouse.down()
    page.mouse.move(*image.at((0.95, 0.9)), steps=4)
    page.mouse.up()
    result(page, "8 would not have been sent")
    # A corner on an edge belongs into it.
    page.mouse.click(*image.at((0.575, 0.475)))
    moved = ((0.2, 0.5), (0.575, 0.475), (0.95, 0.45), (0.95, 0.9), (0.15, 0.85))
    page.get_by_label("Name").fill("tree")
    page.get_by_text("+      tree: {polygon: [[0.2").wait_for()
    save(tab)
    assert is_near(polygon_in_file(hall, "mask", "tree"), moved)
    tab.close()


def touch(page: Page, *places: Point) -> None:
    """A finger goes down at the first place, over the others, and up at the last."""
    fingers = page.context.new_cdp_session(page)
    for kind, place in zip(["touchStart", *["touchMove"] * len(places[1:])], places, strict=True):
        points = [{"x": place[0], "y": place[1], "id": 1}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    fingers.detach()


def test_a_zone_is_drawn_by_touch_on_a_phone(browser: Browser, hall: Served) -> None:
    tab = Tab(browser, hall, "/cameras/hall/zones?new=zones", "phone", has_touch=True,
              is_mobile=True)  # fmt: skip
    page = tab.page
    image = Surface(page)
    page.evaluate(
        "addEventListener('pointerdown', (event) => { window.kinds = "
        "[...(window.kinds ?? []), event.pointerType]; })"
    )
    for point in SHAPE[:2]:
        touch(page, image.at(point))
    # Down at one place, up at another: the corner is where the finger was lifted.
    touch(page, image.at((0.6, 0.6)), image.at((0.7, 0.7)), image.at(SHAPE[2]))
    touch(page, image.at(SHAPE[3]))
    said = result(page, "would not have been sent")
    assert "Of 8 alerts, 0 would not" in said  # Another zone has all of them.
    # A corner is dragged by more than its own size, and the page does not scroll meanwhile.
    before = page.evaluate("scrollY")
    touch(page, image.at(SHAPE[0]), image.at((0.15, 0.4)), image.at((0.1, 0.3)))
    assert page.evaluate("scrollY") == before
    assert page.evaluate("window.kinds") == ["touch"] * 5
    page.get_by_label("Name").fill("walk")
    page.get_by_label("only these").check()
    page.get_by_label("person").check()
    page.get_by_text("walk: {polygon: [[0.1").wait_for()
    save(tab)
    assert is_near(polygon_in_file(hall, "zones", "walk"), ((0.1, 0.3), *SHAPE[1:]))
    assert "objects: {person: {}}" in Path(str(hall.prepared.console.rules_file.path)).read_text()
    tab.close()


def test_a_corner_is_placed_by_pen(browser: Browser, kept: Served) -> None:
    tab = Tab(browser, kept, "/cameras/hall/zones?new=mask")
    page, image = tab.page, Surface(tab.page)
    page.evaluate(
        "addEventListener('pointerdown', (event) => { window.kind = event.pointerType; })"
    )
    pen = page.context.new_cdp_session(page)
    for kind, point in (("mousePressed", (0.3, 0.3)), ("mouseMoved", (0.4, 0.5)),
                        ("mouseReleased", (0.4, 0.5))):  # fmt: skip
        x, y = image.at(point)
        pen.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left",
                 "buttons": 1, "clickCount": 1, "pointerType": "pen"})  # fmt: skip
    assert page.evaluate("window.kind") == "pen"
    numbers = page.locator("#numbers").input_value().split(", ")
    assert is_near([(float(numbers[0]), float(numbers[1]))], [(0.4, 0.5)])
    tab.close()


def test_a_second_finger_moves_nothing(browser: Browser, kept: Served) -> None:
    tab = Tab(browser, kept, "/cameras/hall/zones?new=mask", "phone", has_touch=True)
    page, image = tab.page, Surface(tab.page)
    fingers = page.context.new_cdp_session(page)
    (ax, ay), (bx, by) = image.at((0.3, 0.3)), image.at((0.8, 0.8))
    one, other = {"x": ax, "y": ay, "id": 1}, {"x": bx, "y": by, "id": 2}
    for kind, points in (
        ("touchStart", [one]), ("touchStart", [one, other]),
        ("touchMove", [one, {**other, "x": bx - 40}]), ("touchEnd", []),
    ):  # fmt: skip
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert page.locator(".corner").count() == 1
    numbers = page.locator("#numbers").input_value().split(", ")
    assert is_near([(float(numbers[0]), float(numbers[1]))], [(0.3, 0.3)])
    tab.close()


def test_a_zone_is_drawn_and_moved_by_keyboard(browser: Browser, hall: Served) -> None:
    tab = Tab(browser, hall, "/cameras/hall/zones?zones=drive")
    page = tab.page
    corners = page.locator(".corner")
    assert corners.count() == 4
    names = [corner.get_attribute("aria-label") for corner in corners.all()]
    assert names[2] == "corner 3, 95 % from the left, 98 % from the top"
    corners.first.focus()
    page.keyboard.press("ArrowDown")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate("document.activeElement.ariaLabel") == (
        "corner 1, 5 % from the left, 21 % from the top"
    )
    assert "corner 1, 5 % from the left, 21 %" in page.locator("#said").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("Delete")
    assert corners.count() == 3
    assert page.evaluate("document.activeElement.ariaLabel").startswith("corner 2, 95 %")
    for _ in range(200):  # It does not leave the image.
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Add a corner").press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == (
        "corner 3, 53 % from the left, 98 % from the top"
    )
    page.locator("#result li").first.wait_for()
    save(tab)
    moved = ((0.053, 0.21), (1, 0.98), (0.525, 0.98), (0.05, 0.98))
    assert is_near(polygon_in_file(hall, "zones", "drive"), moved, 0.0001)
    tab.close()


def test_a_new_area_can_be_drawn_by_keyboard_alone(browser: Browser, kept: Served) -> None:
    tab = Tab(browser, kept, "/cameras/hall/zones?new=mask")
    add = tab.page.get_by_role("button", name="Add a corner")
    for number in range(1, 4):
        add.press("Enter")
        assert tab.page.evaluate("document.activeElement.ariaLabel").startswith(f"corner {number},")
    result(tab.page, "would not have been sent")
    tab.page.get_by_role("button", name="Start again").press("Enter")
    assert tab.page.locator(".corner").count() == 0
    assert tab.page.locator("#result").inner_text() == ""
    tab.close()


def test_a_polygon_that_crosses_itself_is_said_and_the_last_answer_counts(
    browser: Browser, kept: Served
) -> None:
    tab = Tab(browser, kept, "/cameras/hall/zones?new=mask")
    page, asked = tab.page, []
    page.on("request", lambda request: asked.append(request.url) if "/try" in request.url else None)
    image = Surface(page)
    for point in ((0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)):
        page.mouse.click(*image.at(point))
    assert "crosses or touches itself at [0.5" in result(page, "crosses")
    assert page.locator("#diff").is_hidden()
    # While a corner is dragged, it is not asked with each step.
    page.mouse.move(*image.at((0.1, 0.9)))
    page.mouse.down()
    page.mouse.move(*image.at((0.6, 0.05)), steps=40)
    page.mouse.up()
    assert "3 would not" in result(page, "Of 8 alerts")
    assert len(asked) <= 6
    # Numbers that are typed are drawn.
    page.get_by_text("Corners as numbers").click()
    page.locator("#numbers").fill("0,0 1,0 1,1 0,1")
    result(page, "8 would not have been sent")
    assert page.locator(".corner").count() == 4
    page.locator("#numbers").fill("0,0 1,0 1,1 0,")
    assert page.locator(".corner").count() == 4
    assert tab.complaints == []
    tab.close()


def test_a_question_is_given_up_when_the_polygon_changes(
    browser: Browser, kept: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[bool] = []
    attempt = zones._attempt

    def slow(console: Any, area: Any, days: int, is_over: threading.Event) -> Any:
        if len(area.polygon) == 3:
            given_up.append(is_over.wait(20))
        return attempt(console, area, days, is_over)

    monkeypatch.setattr(zones, "_attempt", slow)
    tab = Tab(browser, kept, "/cameras/hall/zones?new=mask")
    image = Surface(tab.page)
    for point in SHAPE[:3]:
        tab.page.mouse.click(*image.at(point))
    kept.until(lambda: kept.prepared.console.trials_at_work == 1)
    tab.page.mouse.click(*image.at(SHAPE[3]))
    result(tab.page, "5 would not have been sent")
    kept.until(lambda: given_up == [True])
    assert tab.complaints == []
    tab.close()


def test_without_a_script_corners_are_numbers(browser: Browser, hall: Served) -> None:
    tab = Tab(browser, hall, "/cameras/hall/zones?new=mask", "phone", java_script_enabled=False)
    page = tab.page
    assert not page.locator("#tools").is_visible()
    page.get_by_text("Corners as numbers").click()
    page.locator("#numbers").fill("0.2, 0.5\n0.55, 0.45\n0.5, 0.9\n0.15, 0.85")
    page.get_by_role("button", name="Count what it would change").click()
    page.get_by_text("5 would not have been sent").wait_for()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved. A stream judges by it").wait_for()
    assert polygon_in_file(hall, "mask", "mask-1") == SHAPE
    tab.close()


def test_axe_core_finds_nothing_while_it_is_drawn(browser: Browser, kept: Served) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for scheme, size in (("light", "phone"), ("dark", "desk")):
        tab = Tab(browser, kept, "/cameras/hall/zones?new=mask", size, bypass_csp=True,
                  color_scheme=scheme)  # fmt: skip
        draw(tab.page)
        tab.page.evaluate("document.querySelectorAll('details').forEach((e) => e.open = true)")
        found = Axe().run(tab.page).response["violations"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == []
        assert tab.page.evaluate(CUT_OFF) == []
        assert tab.page.evaluate(BROKEN) == []
        assert tab.page.evaluate(CONTRAST)[1] == []
        tab.close()


def draw(page: Page) -> None:
    image = Surface(page)
    for point in SHAPE:
        page.mouse.click(*image.at(point))
    result(page, "5 would not have been sent")


def screen(browser: Browser, here: Served, size: str, scheme: Any) -> Image.Image:
    tab = Tab(browser, here, "/cameras/hall/zones?new=mask", size, color_scheme=scheme)
    # Whoever runs the tests has another name.
    tab.page.evaluate("document.querySelector('.who').textContent = 'anna'")
    here.until(lambda: tab.page.evaluate("[...document.images].every((image) => image.complete)"))
    draw(tab.page)
    tab.page.evaluate("scrollTo(0, 0)")
    shot = Image.open(io.BytesIO(tab.page.screenshot()))
    tab.close()
    return shot


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_drawing_looks_as_it_was_looked_at(
    browser: Browser, kept: Served, size: str, scheme: str
) -> None:
    now = reduced(screen(browser, kept, size, scheme))
    with Image.open(REFERENCES / f"zones-{size}-{scheme}.png") as reference:
        assert reference.size == now.size
        assert difference(reference.convert("RGB"), now) <= TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--screens", type=Path)
    screens = parser.parse_args().screens
    with tempfile.TemporaryDirectory() as scratch, consoled(Path(scratch)) as here:
        for browser in chromium():
            for size, scheme in VIEWS:
                shot = screen(browser, here, size, scheme)
                reduced(shot).save(REFERENCES / f"zones-{size}-{scheme}.png", optimize=True)
                if screens is not None:
                    shot.save(screens / f"zones-{size}-{scheme}.png")


if __name__ == "__main__":
    main()
