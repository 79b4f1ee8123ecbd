"""The console in a real browser, on a phone and a desk, as operators use it.

`python -m tests.browser.test_console --screens FOLDER` writes the references anew; look at the
screens in FOLDER before they are committed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from PIL import Image

import rules
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.beam_pipeline.web.serving import (
    PASSWORD,
    RULES,
    Served,
    add_alert,
    served,
    users_file,
    write_shadow,
    write_small_output,
)
from tests.browser.conftest import chromium
from tests.browser.looks import (
    BROKEN,
    CONTRAST,
    CUT_OFF,
    NAMELESS,
    REFERENCES,
    SIZES,
    TOLERANCE,
    difference,
    reduced,
)
from tests.browser.tabs import ALL_DETAILS, WIDTH, Tab
from tests.transforms.archives import seen
from tests.transforms.mail_service import mail_server
from transforms.alerting.alerts import alert_for
from transforms.alerting.mark_links import MarkLink, sign
from transforms.alerting.messages import compose
from transforms.alerting.target_clients import client_for
from transforms.records.times import canonical_time
from transforms.storage.marks import read_marks, standing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
QUIET = "hall_2026-01-31T12-30-00Z"
HOSTILE = '"><img src=x onerror="window.hurt=1"></script><script>window.hurt=1</script>\'`${hurt}'
PAGES = {
    "alerts": "/alerts",
    "alert": f"/alerts/{HALL}",
    "camera": "/cameras/hall",
    "images": "/cameras/hall/images",
    "zones": "/cameras/hall/zones",
    "mask": "/cameras/hall/zones?new=mask",
    "missed": f"/cameras/hall/images/{QUIET}",
    "fleet": "/fleet",
    "health": "/health",
    "no shadow": "/shadow",
    "audit": "/audit",
    "proposals": "/cameras/hall/proposals",
    "changes": "/rules/changes",
}
SHOWN = ("alerts", "alert", "camera")
VIEWS = [*itertools.product(SHOWN, SIZES, ("light", "dark"))]


@contextmanager
def looked_at(folder: Path) -> Iterator[Served]:
    """A console whose pages always look the same."""
    write_small_output(folder / "out")
    (folder / "rules.yaml").write_text(RULES)
    with served(folder / "out", folder / "index", "--rules", folder / "rules.yaml") as here:
        yield here


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console of a small output, which no test changes."""
    with looked_at(tmp_path_factory.mktemp("console")) as here:
        yield here


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Served]:
    """The console of an output of one test, with users."""
    write_small_output(tmp_path / "out")
    users = users_file(tmp_path / "users.json")
    with served(tmp_path / "out", tmp_path / "index", "--users", users) as here:
        yield here


def output_of(here: Served) -> Path:
    return Path(here.prepared.console.output)


def stand(here: Served) -> list[tuple[str, str]]:
    return [(mark.by, mark.mark) for mark in standing(read_marks(str(output_of(here)))[0])]


# Looks


@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_the_screen_and_can_be_read_in_either_scheme(
    browser: Browser, small: Served, size: str
) -> None:
    tab = Tab(browser, small, "/alerts", size)
    for path in PAGES.values():
        tab.page.goto(small.url + path)
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for opened in (False, True):  # As it opens, and with all details open.
                tab.page.evaluate(f"{ALL_DETAILS}.forEach((e) => e.open = {str(opened).lower()})")
                assert tab.page.evaluate(WIDTH) <= SIZES[size][0], path
                assert tab.page.evaluate(CUT_OFF) == [], path
                assert tab.page.evaluate(BROKEN) == [], path
                background, low = tab.page.evaluate(CONTRAST)
                assert (background > 0.5) == (scheme == "light"), path
                assert low == [], path
    assert tab.complaints == []
    assert tab.elsewhere == []
    tab.close()


def test_a_screen_reader_finds_its_way_on_every_page(browser: Browser, small: Served) -> None:
    tab = Tab(browser, small, "/alerts")
    for path in PAGES.values():
        tab.page.goto(small.url + path)
        assert tab.page.evaluate(NAMELESS) == [], path
        assert tab.page.evaluate("document.documentElement.lang") == "en"
        levels = tab.page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3')].map((h) => +h.tagName[1])"
        )
        assert levels.count(1) == 1, path
        assert levels[0] == 1, path
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), path
        doubled = tab.page.evaluate(
            "[...document.querySelectorAll('[id]')].length - "
            "new Set([...document.querySelectorAll('[id]')].map((element) => element.id)).size"
        )
        assert doubled == 0, path
        tab.page.keyboard.press("Tab")
        focused = tab.page.evaluate("document.activeElement.textContent")
        assert focused == "Skip to the content", path
    tab.close()


def test_axe_core_finds_nothing_on_any_page(browser: Browser, small: Served) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # The page's policy refuses the script of axe-core as it refuses any other.
    tab = Tab(browser, small, "/alerts", "phone", bypass_csp=True)
    for path, scheme in zip(PAGES.values(), itertools.cycle(("light", "dark")), strict=False):
        tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.page.goto(small.url + path)
        tab.page.evaluate(f"{ALL_DETAILS}.forEach((e) => e.open = true)")
        found = Axe().run(tab.page).response["violations"]
        wrong = [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found]
        assert wrong == [], path
    tab.close()


SHADOW = "version: 1\ndefaults:\n  objects: {person: {min_score: 0.2}, car: {min_score: 0.65}}\n"


def test_the_differences_of_shadow_rules_can_be_read_on_a_phone_and_a_desk(
    browser: Browser, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    write_small_output(tmp_path / "out")
    write_shadow(tmp_path / "out", RULES)
    assert len(write_shadow(tmp_path / "out", SHADOW)) == 5
    with served(tmp_path / "out", tmp_path / "index") as here:
        for size in SIZES:
            tab = Tab(browser, here, "/shadow", size, bypass_csp=True)
            (link,) = tab.page.query_selector_all("nav a[href='/shadow']")
            assert link.get_attribute("aria-current") == "page"
            for scheme in ("light", "dark"):
                tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                for opened in (False, True):
                    tab.page.evaluate(
                        f"{ALL_DETAILS}.forEach((e) => e.open = {str(opened).lower()})"
                    )
                    assert tab.page.evaluate(WIDTH) <= SIZES[size][0]
                    assert tab.page.evaluate(CUT_OFF) == []
                    assert tab.page.evaluate(CONTRAST)[1] == []
                    assert tab.page.evaluate(NAMELESS) == []
                    found = Axe().run(tab.page).response["violations"]
                    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
            tab.page.evaluate(f"{ALL_DETAILS}.forEach((e) => e.open = false)")
            tab.page.emulate_media(color_scheme="light")
            tab.page.click("text=Why")
            assert "score 0.3" in tab.page.inner_text("#main")
            tab.page.click("#main a.shot")
            assert tab.page.url.endswith("/cameras/hall/images/hall_2026-01-31T12-30-00Z")
            assert tab.complaints == []
            tab.close()


def screen(browser: Browser, here: Served, name: str, size: str, scheme: Any) -> Image.Image:
    tab = Tab(browser, here, PAGES[name], size, color_scheme=scheme)
    # Whoever runs the tests has another name.
    tab.page.evaluate("document.querySelector('.who').textContent = 'anna'")
    # Not by `wait_for_function`, whose code the policy of the page refuses.
    here.until(lambda: tab.page.evaluate("[...document.images].every((image) => image.complete)"))
    shot = Image.open(io.BytesIO(tab.page.screenshot()))
    tab.close()
    return shot


@pytest.mark.parametrize(("name", "size", "scheme"), VIEWS)
def test_the_pages_look_as_they_were_looked_at(
    browser: Browser, small: Served, name: str, size: str, scheme: str
) -> None:
    now = reduced(screen(browser, small, name, size, scheme))
    with Image.open(REFERENCES / f"console-{name}-{size}-{scheme}.png") as kept:
        assert kept.size == now.size
        assert difference(kept.convert("RGB"), now) <= TOLERANCE


# Work


def test_an_alert_arrives_while_the_page_is_open_and_keys_mark_it(
    browser: Browser, changing: Served
) -> None:
    tab = Tab(browser, changing, "/alerts")
    tab.log_in("operator")
    page = tab.page
    page.keyboard.press("j")
    page.keyboard.press("j")
    selected = page.evaluate("document.activeElement.id")
    alert_id = add_alert(output_of(changing), "gate", "2026-01-31T15:00:00Z")
    page.locator(f"#i-{alert_id}").wait_for()
    assert "New: gate" in page.locator("#said").inner_text()
    # It comes first, and takes nobody's place away.
    assert page.locator("#incidents > .card").first.get_attribute("id") == f"i-{alert_id}"
    assert page.evaluate("document.activeElement.id") == selected
    for _ in range(5):
        page.keyboard.press("k")
    assert page.evaluate("document.activeElement.id") == f"i-{alert_id}"
    page.keyboard.press("f")
    chip = page.locator(f"#i-{alert_id} .chip.false")
    chip.wait_for()
    assert chip.inner_text() == "false, by operator"
    assert stand(changing) == [("operator", "false")]
    pressed = page.locator(f"#i-{alert_id} button.false")
    assert pressed.get_attribute("aria-pressed") == "true"
    # The place is kept, so the next key works.
    assert page.evaluate("document.activeElement.closest('.card').id") == f"i-{alert_id}"
    page.keyboard.press("r")
    page.locator(f"#i-{alert_id} .chip.right").wait_for()
    assert stand(changing) == [("operator", "right")]
    page.evaluate("document.activeElement.closest('.card').focus()")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/alerts/{alert_id}")
    page.keyboard.press("u")
    page.get_by_text("Saved. gate: unsure").wait_for()
    assert stand(changing) == [("operator", "unsure")]
    assert tab.complaints == []
    tab.close()


def test_an_alert_arrives_while_the_page_is_open_on_a_phone_and_a_tap_marks_it(
    browser: Browser, changing: Served
) -> None:
    tab = Tab(browser, changing, "/alerts", "phone", has_touch=True, is_mobile=True)
    tab.log_in("operator")
    alert_id = add_alert(output_of(changing), "gate", "2026-01-31T15:00:00Z")
    card = tab.page.locator(f"#i-{alert_id}")
    card.wait_for()
    button = card.get_by_role("button", name="False")
    place = button.bounding_box()
    assert place is not None
    assert min(place["width"], place["height"]) >= 44  # For a finger.
    button.tap()
    card.locator(".chip.false").wait_for()
    assert card.locator(".chip.false").inner_text() == "false, by operator"
    assert stand(changing) == [("operator", "false")]
    assert tab.complaints == []
    tab.close()


def test_the_mail_of_an_alert_leads_to_the_rule_that_silences_the_next_one(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a phone, as somebody would who reads no documentation: two taps mark."""
    monkeypatch.setenv("MARK_KEY", "k" * 32)
    monkeypatch.setenv("MAIL_PASSWORD", "pa55%40word")
    now = canonical_time(datetime.now(timezone.utc).replace(microsecond=0))
    rule_file = tmp_path / "rules.yaml"
    with mail_server() as mails:
        console = 'console: {url: "${CONSOLE_URL}", key: "${MARK_KEY}"}\n'
        rule_file.write_text(f'{RULES}{console}targets: {{mail: {{apprise: "{mails.url}"}}}}\n')
        ruleset = rules.parse_rules(rule_file.read_text(), "rules.yaml")
        output, seen_now = tmp_path / "out", seen("hall", now, ("person", 0.7), sha256=SHA256)
        (judged,) = write_fleet(output, [seen_now], rule_text=rule_file.read_text())
        users = users_file(tmp_path / "users.json")
        words = ("--rules", rule_file, "--users", users)
        with served(output, tmp_path / "index", *words) as here:
            monkeypatch.setenv("CONSOLE_URL", here.url)
            alert = alert_for(judged, str(output), ruleset)
            assert alert is not None
            client = client_for(ruleset.alerting.targets["mail"], os.environ)
            message = compose(alert.body, ruleset, target="mail")
            assert client.send(message).outcome == "delivered"
            page_of_mail = mails.parsed().get_body(("html",))
            assert page_of_mail is not None
            html = page_of_mail.get_content()
            for link in re.findall(r'href="(http[^"]+)"', html):  # As a scanner opens them.
                assert requests.get(link, timeout=20).status_code == 200
            assert stand(here) == []
            tab = Tab(browser, here, "/login", "phone", has_touch=True, is_mobile=True)
            tab.page.goto("about:blank")
            tab.page.set_content(html)
            tab.page.get_by_role("link", name="It is false").tap()
            tab.page.get_by_role("button", name="Yes, it is false").wait_for()
            tab.complaints.clear()  # The picture of a mail is in the mail, where no page finds it.
            tab.page.get_by_role("button", name="Yes, it is false").tap()
            tab.page.get_by_role("heading", name="Marked as false").wait_for()
            assert stand(here) == [("mail (link)", "false")]
            tab.page.get_by_role("link", name="what would silence the next one").tap()
            tab.page.get_by_label("Name").fill("admin")
            tab.page.get_by_label("Password").fill(PASSWORD)
            tab.page.keyboard.press("Enter")
            tab.page.wait_for_url("**/cameras/hall/proposals")
            tab.page.get_by_role("button", name="Apply").first.tap()
            tab.page.wait_for_load_state()
            here.until(lambda: "min_score" in rule_file.read_text().partition("cameras:")[2])
            assert tab.complaints == []
            tab.close()


@pytest.mark.parametrize("size", SIZES)
def test_the_pages_of_a_link_fit_the_screen_and_can_be_read(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    monkeypatch.setenv("MARK_KEY", "k" * 32)
    write_small_output(tmp_path / "out")
    console = 'console: {url: "https://c.example", key: "${MARK_KEY}"}\n'
    (tmp_path / "rules.yaml").write_text(RULES + console)
    words = ("--rules", tmp_path / "rules.yaml", "--users", users_file(tmp_path / "users.json"))
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        used, ask, ended = (
            f"/m/{sign('k' * 32, MarkLink('hall', HALL, mark, 'mail (link)', until))}"
            for mark, until in (("false", 4_000_000_000), ("right", 4_000_000_000), ("right", 5))
        )
        assert here.browser().post(used, {}).status_code == 303
        tab = Tab(browser, here, used, size, bypass_csp=True)
        for path, scheme in itertools.product((used, ask, ended), ("light", "dark")):
            tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            tab.page.goto(here.url + path)
            assert tab.page.evaluate(WIDTH) <= SIZES[size][0], path
            assert tab.page.evaluate(CUT_OFF) == [], path
            assert tab.page.evaluate(BROKEN) == [], path
            assert tab.page.evaluate(NAMELESS) == [], path
            background, low = tab.page.evaluate(CONTRAST)
            assert (background > 0.5) == (scheme == "light"), path
            assert low == [], path
            assert Axe().run(tab.page).response["violations"] == [], path
        tab.close()


def test_letters_in_a_field_mark_nothing(browser: Browser, changing: Served) -> None:
    tab = Tab(browser, changing, "/alerts")
    tab.log_in("operator")
    tab.page.keyboard.press("j")
    tab.page.get_by_label("Camera").fill("")
    tab.page.get_by_label("Camera").press_sequentially("rfujk")
    assert tab.page.get_by_label("Camera").input_value() == "rfujk"
    tab.page.wait_for_timeout(200)
    assert stand(changing) == []
    tab.close()


def test_two_operators_mark_at_once_and_each_sees_the_other(
    browser: Browser, changing: Served
) -> None:
    tabs = [Tab(browser, changing, "/alerts", size) for size in SIZES]
    for tab, name in zip(tabs, ("operator", "admin"), strict=True):
        tab.log_in(name)
    for tab, mark in zip(tabs, ("Right", "False"), strict=True):
        card = tab.page.locator("#incidents > .card").first
        card.get_by_role("button", name=mark).click()
    for tab in tabs:
        tab.page.get_by_text("right, by operator", exact=True).wait_for()
        tab.page.get_by_text("false, by admin", exact=True).wait_for()
        assert tab.complaints == []
    assert sorted(stand(changing)) == [("admin", "false"), ("operator", "right")]
    for tab in tabs:
        tab.close()


def test_without_a_script_marks_are_forms(browser: Browser, changing: Served) -> None:
    tab = Tab(browser, changing, "/alerts", "phone", java_script_enabled=False)
    tab.log_in("operator")
    tab.page.locator(".card").nth(1).get_by_role("button", name="False").click()
    tab.page.wait_for_load_state()
    assert tab.page.locator(".chip.false").inner_text() == "false, by operator"
    assert tab.page.url.endswith("/alerts")
    assert stand(changing) == [("operator", "false")]
    tab.close()


def test_a_missed_threat_is_drawn_on_the_image(browser: Browser, changing: Served) -> None:
    tab = Tab(browser, changing, "/alerts")
    tab.log_in("operator")
    page = tab.page
    page.goto(f"{changing.url}/cameras/hall/images/{QUIET}")
    page.get_by_text("Something was there, and no alert").click()
    page.get_by_label("What was missed").fill("person")
    page.get_by_role("button", name="Draw the box").click()
    place = page.locator(".figure .shot").bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 0.25 * place["width"], place["y"] + 0.5 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + 0.6 * place["height"])
    page.mouse.move(place["x"] + 0.75 * place["width"], place["y"] + 0.9 * place["height"])
    page.mouse.up()
    page.get_by_role("button", name="Mark as missed").click()
    page.get_by_text("missed person").wait_for()
    (mark,) = read_marks(str(output_of(changing)))[0]
    drawn, meant = mark.bboxes[0], (0.25, 0.5, 0.5, 0.4)
    assert all(abs(one - other) < 0.01 for one, other in zip(drawn, meant, strict=True))
    assert tab.complaints == []
    tab.close()


def test_rejected_detections_are_drawn_on_demand(browser: Browser, small: Served) -> None:
    tab = Tab(browser, small, PAGES["alert"])
    rejected = tab.page.locator(".shot .rejected rect")
    assert rejected.count() == 1
    assert not rejected.is_visible()
    tab.page.get_by_label("Show the 1 rejected detection").check()
    assert rejected.is_visible()
    assert "score 0.7, minimum 0.8" in tab.page.locator(".found .rejected").inner_text()
    # The box lies where the threat is: it is drawn over the image, not into it.
    image = tab.page.locator(".figure .shot img").bounding_box()
    box = tab.page.locator(".shot svg > rect").first.bounding_box()
    assert image is not None
    assert box is not None
    assert abs(box["x"] - image["x"] - 0.1 * image["width"]) < 3
    assert abs(box["height"] - 0.4 * image["height"]) < 6
    tab.close()


def test_a_viewer_has_no_buttons_and_keys_do_nothing(browser: Browser, changing: Served) -> None:
    tab = Tab(browser, changing, "/fleet")
    tab.page.get_by_label("Name").fill("viewer")
    tab.page.get_by_label("Password").fill("wrong password")
    tab.page.keyboard.press("Enter")
    tab.page.get_by_text("The name or the password is wrong.").wait_for()
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/fleet")
    tab.page.goto(f"{changing.url}/alerts")
    assert tab.page.locator(".card").count() == 3
    assert tab.page.locator(".say").count() == 0
    tab.page.keyboard.press("j")
    tab.page.keyboard.press("f")
    tab.page.wait_for_timeout(200)
    assert stand(changing) == []
    assert tab.page.get_by_role("link", name="Audit").count() == 0
    tab.page.get_by_role("button", name="Log out").click()
    tab.page.wait_for_url("**/login")
    tab.page.goto(f"{changing.url}/alerts")
    assert "/login" in tab.page.url
    tab.close()


def test_a_page_says_that_the_store_fails_and_recovers(browser: Browser, changing: Served) -> None:
    tab = Tab(browser, changing, "/alerts")
    tab.log_in("operator")
    output = output_of(changing)
    output.rename(output.with_name("away"))
    tab.page.get_by_text("Out of date since").wait_for()
    tab.page.locator(".card").first.get_by_role("button", name="Right").click()
    tab.page.get_by_text("The mark was not saved").wait_for()
    output.with_name("away").rename(output)
    tab.page.get_by_text("Out of date since").wait_for(state="hidden")
    tab.page.locator(".card").first.get_by_role("button", name="Right").click()
    tab.page.get_by_text("right, by operator").wait_for()
    tab.close()


def test_hostile_labels_and_notes_are_text(browser: Browser, tmp_path: Path) -> None:
    label = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    rule_text = f'version: 1\ndefaults:\n  objects: {{person: {{}}, "{label}": {{}}}}\n'
    output = tmp_path / "out"
    images = [seen("hall", "2026-01-31T10:00:00Z", (HOSTILE, 0.9), ("person", 0.2), sha256=SHA256)]
    write_fleet(
        output,
        images,
        rule_text=rule_text,
        targets=lambda _: [{"target": HOSTILE, "outcome": "failed", "detail": HOSTILE}],
        invalid=[("bad_name", f"{HOSTILE.replace('/', '_')}.jpg", HOSTILE)],
    )
    with served(output, tmp_path / "index") as here:
        client = here.browser()
        form = {"token": client.token(), "say": "false", "camera": "hall", "what": HALL,
                "label": HOSTILE, "note": HOSTILE}  # fmt: skip
        assert client.post("/marks", form).status_code == 303
        tab = Tab(browser, here, "/alerts")
        for path in (*PAGES.values(), "/alerts?label=%22%3E%3Cscript%3E"):
            tab.page.goto(here.url + path)
            assert tab.page.evaluate("window.hurt") is None, path
        assert [one for one in tab.complaints if "404" not in one] == []
        assert tab.elsewhere == []
        tab.close()
        tab = Tab(browser, here, f"/alerts/{HALL}")
        assert HOSTILE in tab.page.locator("main").inner_text()
        # The policy holds even where escaping would not.
        tab.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.hurt = 1";
                const picture = document.createElement("img");
                picture.src = "http://127.0.0.1:9/x.png";
                document.body.append(script, picture);
            }"""
        )
        tab.page.wait_for_timeout(200)
        assert tab.page.evaluate("window.hurt") is None
        assert len([one for one in tab.complaints if "Content Security Policy" in one]) >= 2
        tab.close()


def test_the_stream_of_events_holds_no_names(small: Served) -> None:
    with small.browser().get("/live", stream=True) as events:
        line = next(x for x in events.iter_lines(decode_unicode=True) if x.startswith("data: "))
    assert set(json.loads(line.removeprefix("data: "))) == {"version", "stale"}


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser()
    parser.add_argument("--screens", type=Path)
    screens = parser.parse_args().screens
    with tempfile.TemporaryDirectory() as scratch, looked_at(Path(scratch)) as here:
        for browser in chromium():
            for name, size, scheme in VIEWS:
                shot = screen(browser, here, name, size, scheme)
                file = f"console-{name}-{size}-{scheme}.png"
                reduced(shot).save(REFERENCES / file, optimize=True)
                if screens is not None:
                    shot.save(screens / file)


if __name__ == "__main__":
    main()
