"""Zones and masks that are drawn in the console, by a real server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

import rules
from beam_pipeline.evaluation.areas import DrawnArea
from beam_pipeline.web.output import trials
from beam_pipeline.web.output.audit import read_entries
from beam_pipeline.web.output.trials import Trials, read_images
from beam_pipeline.web.pages import zones
from tests.beam_pipeline.fleets import SHA256, write_fleet
from tests.beam_pipeline.web.serving import Browser, Served, served, users_file
from tests.search import search
from tests.transforms.archives import seen, write_output
from transforms.records.times import canonical_time, parse_time
from transforms.storage import stores
from transforms.storage.archive import open_archive
from transforms.storage.packed_output import write_file
from transforms.storage.packed_rows import PackedRow

RULES = """\
version: 1
defaults:
  objects: {person: {min_score: 0.5}, car: {min_score: 0.5}}   # as measured
  cooldown: 0s
profiles:
  out:
    mask:
      sky: {polygon: [[0, 0], [1, 0], [1, 0.1], [0, 0.1]], objects: [car]}
cameras:
  # by the door
  hall:
    profile: out
    zones:
      # the drive
      drive: {polygon: [[0, 0.2], [1, 0.2], [1, 1], [0, 1]]} # measured
"""
LEFT, RIGHT = (0.1, 0.3, 0.2, 0.4), (0.7, 0.3, 0.2, 0.4)
"""Boxes that stand at 0.2 and at 0.8 from the left, and at 0.7 from the top."""
FORM = {
    "section": "mask", "name": "bay", "is_new": "1", "about": "all", "anchor": "bottom_center",
    "days": "7", "corners": "0,0 1,0 1,1",
}  # fmt: skip
HALF = "0, 0.5\n0.5, 0.5\n0.5, 1\n0, 1"
TIMES = [f"2026-01-{day:02d}T10:00:00Z" for day in (2, 20, 28, 29, 30, 31)]


def write_hall(output: Path) -> None:
    """Six alerts on the left in a month, and one on the right."""
    images = [seen("hall", time, ("person", 0.9), bbox=LEFT, sha256=SHA256) for time in TIMES]
    images.append(seen("hall", "2026-01-31T11:00:00Z", ("car", 0.9), bbox=RIGHT, sha256=SHA256))
    images.append(seen("gate", "2026-01-31T11:00:00Z", ("person", 0.9), sha256=SHA256))
    write_fleet(output, images, rule_text=RULES)


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Served]:
    write_hall(tmp_path / "out")
    (tmp_path / "rules.yaml").write_text(RULES)
    words = ("--rules", tmp_path / "rules.yaml", "--users", users_file(tmp_path / "users.json"))
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        yield here


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console that needs no log-in, whose rule file no test changes."""
    folder = tmp_path_factory.mktemp("zones")
    write_hall(folder / "out")
    (folder / "rules.yaml").write_text(RULES)
    with served(folder / "out", folder / "index", "--rules", folder / "rules.yaml") as here:
        yield here


def rule_file(here: Served) -> Path:
    assert here.prepared.console.rules_file.path is not None
    return Path(here.prepared.console.rules_file.path)


def form_of(browser: Browser, address: str, **fields: str) -> dict[str, str]:
    """The form of the page, filled in."""
    page = browser.get(address).text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    return {**hidden, "name": "bay", "about": "all", "anchor": "bottom_center", "days": "7",
            "corners": HALF, **fields}  # fmt: skip


def post(browser: Browser, what: str, address: str, **fields: str) -> requests.Response:
    return browser.post(f"/cameras/hall/zones{what}", form_of(browser, address, **fields))


def tried(browser: Browser, address: str = "/cameras/hall/zones?new=mask", **fields: str) -> Any:
    form = form_of(browser, address, **fields)
    answer = browser.post("/cameras/hall/zones/try", form, headers={"X-Console": "1"})
    assert answer.status_code == 200, answer.text
    return answer.json()


# What it would have changed


def test_a_try_counts_alerts_by_their_marks_and_shows_the_yaml(shared: Served) -> None:
    browser = shared.browser()
    for day, mark in (("31", "right"), ("30", "false"), ("29", "false")):
        alert_id = rules.alert_id("hall", f"2026-01-{day}T10:00:00Z", "alert")
        browser.mark(mark, "hall", alert_id)
    said = tried(browser)
    assert said["problem"] is None
    assert said["lines"] == [
        "It LOSES 1 alert marked as right.",
        "Of 5 alerts, 4 would not have been sent (2 marked false, 1 right, 1 neither); 0 more "
        "would have been.",
        "Of 5 threats, 4 lie in it, by its anchor.",
        "Judged: 5 images of the 7 days until 2026-01-31 11:00 UTC, by the rules as they are and "
        "with this change.",
    ]
    assert said["dots"] == [[0.8, 0.7, False], *[[0.2, 0.7, True]] * 4]
    assert said["diff"].splitlines()[3:] == [
        "     zones:",
        "       # the drive",
        "       drive: {polygon: [[0, 0.2], [1, 0.2], [1, 1], [0, 1]]} # measured",
        "+    mask:",
        "+      bay: {polygon: [[0, 0.5], [0.5, 0.5], [0.5, 1], [0, 1]]}",
    ]
    month = tried(browser, days="30")
    assert month["lines"][1].startswith("Of 7 alerts, 6 would not have been sent")
    day = tried(browser, days="1", **{"about": "some", "label:car": "on"})
    assert day["lines"] == [
        "Of 2 alerts, 0 would not have been sent; 0 more would have been.",
        "Of 1 threat, 0 lie in it, by its anchor.",
        "Judged: 2 images of the day until 2026-01-31 11:00 UTC, by the rules as they are and "
        "with this change.",
    ]
    # A box is judged by its anchor.
    high = "0, 0.4\n0.5, 0.4\n0.5, 0.6\n0, 0.6"
    assert "4 lie in it" in tried(browser, corners=high, anchor="center")["lines"][2]
    assert "0 lie in it" in tried(browser, corners=high)["lines"][1]
    # A quarter of the height of each box.
    part = {"anchor": "overlap"}
    part["corners"] = "0, 0.6\n0.5, 0.6\n0.5, 0.7\n0, 0.7"
    assert "4 lie in it" in tried(browser, min_overlap="0.25", **part)["lines"][2]
    assert "0 lie in it" in tried(browser, min_overlap="0.26", **part)["lines"][1]


def test_a_zone_that_is_moved_loses_and_gains_alerts(shared: Served) -> None:
    said = tried(shared.browser(), "/cameras/hall/zones?zones=drive", name="drive",
                 corners="0.5,0.2 1,0.2 1,1 0.5,1")  # fmt: skip
    assert "4 would not have been sent" in "".join(said["lines"])
    assert "+      drive: {polygon: [[0.5, 0.2], [1, 0.2], [1, 1], [0.5, 1]]} # measured" in (
        said["diff"].splitlines()
    )


def test_an_area_that_can_not_be_is_said_while_it_is_drawn(shared: Served) -> None:
    browser = shared.browser()
    for fields, says in (
        ({"corners": "0,0 1,1 1,0 0,1"}, "crosses or touches itself at [0.5, 0.5]"),
        ({"corners": "0,0 1,1"}, "must be at least 3, the corners of an area"),
        ({"corners": "0,0 0.5,0.5 1,1"}, "all points lie on one line"),
        ({"corners": "0,0 2,0 1,1"}, "lies outside the frame"),
        ({"corners": "0,0 1e999,0 1,1"}, "lies outside the frame"),
        ({"name": "sky"}, "There is a mask sky already"),
        ({"name": ""}, "Give the mask a name"),
        ({"about": "some"}, "Choose the labels"),
        ({"about": "some", "label:cow": "on"}, "name no label cow"),
        ({"min_overlap": "7", "anchor": "overlap"}, "from 0.0001 to 1"),
        ({"is_new": "0"}, "There is no mask bay any more"),
    ):
        said = tried(browser, **fields)
        assert says in said["problem"], fields
        assert said["diff"] is None
        # Without a script, the page says it, and keeps what was filled in.
        page = post(browser, "/try", "/cameras/hall/zones?new=mask", **fields)
        assert page.status_code == 422
        assert fields.get("corners", HALF) in page.text
    # All labels can't be had where a profile leaves some out.
    said = tried(browser, "/cameras/hall/zones?mask=sky", name="sky", corners=HALF)
    assert "one camera can't leave them out" in said["problem"]


def test_without_a_script_the_form_counts_too(shared: Served) -> None:
    page = post(shared.browser(), "/try", "/cameras/hall/zones?new=mask", why="a tree")
    assert page.status_code == 200
    assert "4 would not have been sent" in page.text
    assert "bay: {polygon: [[0, 0.5]" in page.text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"corners": "0,0 nan,0 1,1"}, "no pair of numbers"),
        ({"corners": "0,0 inf,0 1,1"}, "no pair of numbers"),
        ({"corners": "0,0 Infinity,0 1,1"}, "no pair of numbers"),
        ({"corners": "0,0 1_0,0 1,1"}, "no pair of numbers"),
        ({"corners": "0,0 \u0661,0 1,1"}, "no pair of numbers"),
        ({"corners": "0,0 1,0 1"}, "one number only"),
        ({"corners": "'; DROP TABLE"}, "no pair of numbers"),
        ({"corners": "0,0 " * 101}, "101 corners"),
        ({"corners": "0.123456789,0.123456789 " * 1000}, "too long"),
        ({"corners": "0" * 70_000}, "The form is too large"),
        ({"min_overlap": "nan"}, "no number such as 0.5"),
        ({"anchor": "everywhere"}, "does not say what is drawn"),
        ({"section": "rules"}, "does not say what is drawn"),
        ({"days": "100000"}, "does not say what is drawn"),
        ({"days": "7.0"}, "does not say what is drawn"),
        ({"token": "0" * 64}, "not sent from a page"),
        ({f"label:{n}": "on" for n in range(400)}, "can't be read"),
    ],
)
def test_a_hostile_form_is_refused(shared: Served, fields: dict[str, str], says: str) -> None:
    browser = shared.browser()
    for what in ("/try", ""):
        answer = browser.post(
            f"/cameras/hall/zones{what}",
            form_of(browser, "/cameras/hall/zones?new=mask", **fields),
            headers={"X-Console": "1"},
        )
        assert 400 <= answer.status_code < 500
        assert says in answer.json()["said"]
    assert rule_file(shared).read_text() == RULES


@pytest.mark.search
@search(25)
@given(
    st.dictionaries(
        st.sampled_from(["corners", "name", "anchor", "section", "days", "about", "min_overlap",
                         "is_new", "label:car", "do", "expected"]),
        st.text(max_size=40) | st.sampled_from(["zones", "some", "overlap", "0,0 1,0 1,1", "7"]),
    )
)  # fmt: skip
def test_no_form_makes_the_console_fail(shared: Served, fields: dict[str, str]) -> None:
    browser = shared.browser()
    form = {**FORM, "token": browser.token(), **fields}
    answer = browser.post("/cameras/hall/zones/try", form, headers={"X-Console": "1"})
    assert answer.status_code in (200, 400)
    assert browser.post("/cameras/hall/zones/try", form).status_code in (200, 400, 422)
    form["expected"] = "another version"
    assert browser.post("/cameras/hall/zones", form).status_code in (400, 409)
    assert rule_file(shared).read_text() == RULES


def test_no_address_makes_the_page_fail(shared: Served) -> None:
    browser = shared.browser()
    for query in (
        "new=x", "zones=no+such", "mask=%00", "at=x", "at=0001-01-01T00:00", "said=x",
        "at=2026-01-31T10:30", "zones=drive&mask=sky&new=mask", "zones=" + "x" * 3000,
    ):  # fmt: skip
        assert browser.get(f"/cameras/hall/zones?{query}").status_code == 200, query
    for camera in ("no-such", "..%2F..%2Fetc", "%00", "a%20b", "x" * 65):
        assert browser.get(f"/cameras/{camera}/zones").status_code == 404, camera
        form = form_of(browser, "/cameras/hall/zones?new=mask")
        for what in ("/try", ""):
            assert browser.post(f"/cameras/{camera}/zones{what}", form).status_code == 404, camera


def test_the_page_shows_the_areas_and_an_image_of_the_time(shared: Served) -> None:
    browser = shared.browser()
    page = browser.get("/cameras/hall/zones").text
    assert 'points="0,0.2 1,0.2 1,1 0,1" data-name="drive"' in page
    assert "inherited from <bdi>profiles.out.mask.sky</bdi>" in page
    assert page.count("inherited") == 1
    assert "/images/hall/hall_2026-01-31T11-00-00Z?size=full" in page
    page = browser.get("/cameras/hall/zones?at=2026-01-31T10:59").text
    assert "/images/hall/hall_2026-01-31T10-00-00Z?size=full" in page
    assert (
        "There is no image of 2026-01-27"
        in browser.get("/cameras/hall/zones?at=2026-01-27T10:59").text
    )
    assert 'href="/cameras/hall/zones"' in browser.get("/cameras/hall").text
    # Only what is the camera's own can be removed.
    assert "Remove this zone" in browser.get("/cameras/hall/zones?zones=drive").text
    assert "Remove this mask" not in browser.get("/cameras/hall/zones?mask=sky").text
    gate = browser.get("/cameras/gate/zones").text
    assert "This camera has none" in gate


# Saving


def test_an_admin_saves_changes_and_removes_areas(hall: Served) -> None:
    browser = hall.logged_in("admin")
    answer = post(browser, "", "/cameras/hall/zones?new=mask", why="a tree",
                  **{"about": "some", "label:car": "on"})  # fmt: skip
    assert answer.headers["location"] == "/cameras/hall/zones?said=saved"
    saved = rule_file(hall).read_text()
    line = "      bay: {polygon: [[0, 0.5], [0.5, 0.5], [0.5, 1], [0, 1]], objects: [car]}\n"
    assert saved == f"{RULES}    mask:\n{line}"
    page = browser.get(answer.headers["location"]).text
    assert "Saved. A stream judges by it" in page
    assert 'data-name="bay"' in page
    entry = read_entries(hall.prepared.console.output, 5)[0]
    assert (entry["by"], entry["about"]["why"]) == ("admin", "a tree")
    assert "cameras.hall.mask.bay" in entry["about"]["what"]
    answer = post(browser, "", "/cameras/hall/zones?zones=drive", name="drive",
                  corners="0 0.25  1 0.25  1 1  0 1")  # fmt: skip
    assert answer.status_code == 303
    moved = saved.replace("[[0, 0.2], [1, 0.2],", "[[0, 0.25], [1, 0.25],")
    assert rule_file(hall).read_text() == moved
    answer = post(browser, "", "/cameras/hall/zones?mask=bay", name="bay", do="remove")
    assert answer.headers["location"] == "/cameras/hall/zones?said=removed"
    assert rule_file(hall).read_text() == moved.partition("    mask:\n      bay")[0]
    assert read_entries(hall.prepared.console.output, 5)[0]["about"]["what"] == (
        "cameras.hall.mask.bay is removed"
    )


@given(x=st.floats(0.001, 0.4), y=st.floats(0.001, 0.4))
@example(x=0.010054, y=0.25)
@search(100)
def test_corners_that_nobody_moves_stay_as_they_are(x: float, y: float) -> None:
    polygon = ((x, y), (1.0, 0.0), (1.0, 1.0))
    text = (
        f"version: 1\ncameras: {{hall: {{mask: {{bay: {{polygon: {[*map(list, polygon)]}}}}}}}}}\n"
    )
    camera = rules.parse_rules(text.encode(), "rules.yaml").for_camera("hall")
    fields = zones.AreaFields.of_area(camera.masks["bay"])
    assert fields.drawn("hall", camera).settings(camera) == ()


def test_who_may_not_save_sees_no_button_and_is_refused(hall: Served) -> None:
    operator, viewer = hall.logged_in("operator"), hall.logged_in("viewer")
    page = operator.get("/cameras/hall/zones?new=mask").text
    assert 'value="save"' not in page
    assert "An admin can save it" in page
    assert post(operator, "", "/cameras/hall/zones?new=mask").status_code == 403
    assert tried(operator)["problem"] is None
    page = viewer.get("/cameras/hall/zones?new=mask").text
    assert 'id="area"' not in page
    assert "New zone" not in page
    assert 'data-name="drive"' in page
    assert rule_file(hall).read_text() == RULES


def test_a_rule_file_that_was_edited_meanwhile_stays(hall: Served) -> None:
    browser = hall.logged_in("admin")
    form = form_of(browser, "/cameras/hall/zones?new=mask")
    edited = RULES.replace("as measured", "as edited")
    rule_file(hall).write_text(edited)
    answer = browser.post("/cameras/hall/zones", form)
    assert answer.status_code == 409
    assert "was changed since the page was made" in answer.text
    assert HALF in answer.text
    assert rule_file(hall).read_text() == edited
    # A page shows the version for which it is made, however new that is.
    edited = edited.replace("[[0, 0.2], [1, 0.2],", "[[0, 0.3], [1, 0.3],")
    rule_file(hall).write_text(edited)
    assert "\n1, 0.3\n" in browser.get("/cameras/hall/zones?zones=drive").text
    rule_file(hall).write_text("version: 1\ncameras: [")
    answer = post(browser, "", "/cameras/hall/zones?new=mask")
    assert answer.status_code == 409
    assert "rules.yaml" in answer.text
    assert rule_file(hall).read_text() == "version: 1\ncameras: ["


def test_a_rule_file_that_can_not_be_written_is_given_as_a_diff(
    hall: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("beam_pipeline.web.output.rule_changes.replace_rules", refuse)
    answer = post(hall.logged_in("admin"), "", "/cameras/hall/zones?new=mask")
    assert answer.status_code == 409
    assert "can&#39;t be written from here (Operation not permitted)" in answer.text
    assert "+      bay: {polygon: [[0, 0.5]" in answer.text


def test_strict_rules_that_do_not_name_the_camera_are_said(tmp_path: Path) -> None:
    write_hall(tmp_path / "out")
    (tmp_path / "rules.yaml").write_text(
        RULES.replace("version: 1\n", "version: 1\nstrict_ids: true\n")
    )
    with served(tmp_path / "out", tmp_path / "index", "--rules", tmp_path / "rules.yaml") as here:
        browser = here.browser()
        page = browser.get("/cameras/gate/zones?new=zones").text
        assert "The rules are strict and do not name this camera" in page
        assert 'id="area"' not in page
        form = form_of(browser, "/cameras/hall/zones?new=zones")
        for what in ("/try", ""):
            assert browser.post(f"/cameras/gate/zones{what}", form).status_code == 409


# Bounds


def test_of_many_images_the_newest_are_judged(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST_IMAGES", 3)
    monkeypatch.setattr(zones, "MOST_IMAGES", 3)
    monkeypatch.setattr(shared.prepared.console, "trials", Trials(shared.prepared.console.output))
    lines = tried(shared.browser())["lines"]
    assert "Of 3 alerts, 2 would not have been sent" in "".join(lines)
    assert lines[-1] == "There are more images; only the newest 3 were judged."


def test_a_large_rule_file_is_not_written_anew_with_each_try(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zones, "_LARGE_FILE", 100)
    assert tried(shared.browser())["diff"] == (
        "cameras.hall.mask.bay: {polygon: [[0, 0.5], [0.5, 0.5], [0.5, 1], [0, 1]]}\n"
    )


def test_further_tries_read_nothing(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = trials.read_images

    def counting(output: str, camera: str, *how: Any) -> Any:
        asked.append(camera)
        return real(output, camera, *how)

    monkeypatch.setattr(trials, "read_images", counting)
    monkeypatch.setattr(shared.prepared.console, "trials", Trials(shared.prepared.console.output))
    for corners in (HALF, HALF.replace("0.5", "0.6"), HALF.replace("0.5", "0.7")):
        tried(shared.browser(), corners=corners)
    assert asked == ["hall"]
    tried(shared.browser(), days="30")
    assert asked == ["hall"] * 2


def test_a_camera_is_read_once_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    write_hall(tmp_path / "out")
    ruleset = rules.parse_rules(RULES.encode(), "rules.yaml")
    kept, goes_on, reads = Trials(str(tmp_path / "out")), threading.Event(), []

    def attempt(camera: str, newest: str) -> int:
        def find_newest() -> Any:
            reads.append(camera)
            assert camera == "gate" or goes_on.wait(20)
            return parse_time(newest)

        area = DrawnArea(camera, "mask", "bay", ((0, 0), (1, 0), (1, 1), (0, 1)))
        return kept.attempt(
            area, ruleset, area.applied(ruleset), {}, days=30, find_newest=find_newest,
            is_wanted=lambda: True,
        ).trial.lost  # fmt: skip

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(attempt, "hall", "2026-01-31T11:00:00Z") for _ in range(2)]
        assert attempt("gate", "2026-01-31T11:00:00Z") == 1
        assert not any(one.done() for one in waiting)
        goes_on.set()
        assert [one.result(20) for one in waiting] == [7, 7]
    assert sorted(reads) == ["gate", "hall"]


def test_who_does_not_wait_stops_the_work_and_too_many_are_refused(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, running = shared.prepared.console, threading.Event()
    ended: list[bool] = []

    def slow(_: object, __: object, ___: object, is_over: threading.Event) -> Any:
        running.set()
        ended.append(is_over.wait(20))
        return zones._Outcome()

    monkeypatch.setattr(zones, "_attempt", slow)
    monkeypatch.setattr(zones, "_MOST_WAITING", 2)
    browser = shared.browser()
    form = form_of(browser, "/cameras/hall/zones?new=mask")

    def give_up() -> None:
        with pytest.raises(requests.exceptions.ReadTimeout):
            shared.browser().post("/cameras/hall/zones/try", form, timeout=1)

    people = [threading.Thread(target=give_up) for _ in range(2)]
    for person in people:
        person.start()
    shared.until(lambda: console.trials_at_work == 2)
    began = time.monotonic()
    answer = browser.post("/cameras/hall/zones/try", form, headers={"X-Console": "1"})
    assert answer.status_code == 503
    assert "Too many people are drawing" in answer.json()["said"]
    assert browser.get("/healthz").status_code == 200  # The other pages go on.
    assert time.monotonic() - began < 1
    for person in people:
        person.join()
    shared.until(lambda: console.trials_at_work == 0)
    assert ended == [True, True]


def test_a_store_that_fails_is_said(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no route to the store")

    monkeypatch.setattr(trials, "record_names", fail)
    monkeypatch.setattr(shared.prepared.console, "trials", Trials(shared.prepared.console.output))
    browser = shared.browser()
    form = form_of(browser, "/cameras/hall/zones?new=mask")
    answer = browser.post("/cameras/hall/zones/try", form, headers={"X-Console": "1"})
    assert answer.status_code == 503
    assert answer.json()["said"] == "The images can't be read now (ConnectionError). Try again."


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_images_are_those_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_packed: bool
) -> None:
    times = ["2026-01-30T23:59:59.9Z", "2026-01-31T00:00:00Z", "2026-01-31T10:00:00Z"]
    times = [canonical_time(parse_time(text)) for text in times]
    images = [seen("hall", time, ("person", 0.9), ("dog", 0.9), sha256=SHA256) for time in times]
    images.append(seen("hall", "2026-01-31T11:00:00Z", ("car", 0.9), file="hall_1769857200.jpg"))
    output = str(tmp_path / "out")
    judged = write_output(output, images)
    if is_packed:
        for one in judged[:2]:
            for uri in (stores.final_uri, stores.detections_uri):
                Path(uri(output, "hall", one.image.stem)).unlink()
        packed = [PackedRow(one.image, dict(one.verdict.to_json()), 0, False) for one in judged[:2]]
        write_file(stores.packed_folder(output), None, packed)
    (Path(stores.final_folder(output, "hall")) / "hall_20260131T105959Z.json").write_text("{")
    period = parse_time("2026-01-30T00:00:00Z"), parse_time("2026-01-31T11:00:00Z")
    found = read_images(output, "hall", *period, frozenset({"person", "car"}))
    archived = [one.image.for_rules() for one in open_archive(output).images("hall")]
    assert [one.timestamp for one in found.images] == [one.timestamp for one in archived]
    assert [tuple(one for one in image.detections if one.label != "dog") for image in archived] == [
        image.detections for image in found.images
    ]
    assert (found.is_cut, found.unread) == (False, 1)
    for most in (1, 2, 4, 5):
        monkeypatch.setattr(trials, "MOST_IMAGES", most)
        cut = read_images(output, "hall", *period, frozenset({"person", "car"}))
        # One record of the five can't be read; it is the second newest.
        assert list(cut.images) == list(found.images)[-max(most - 1, 1) :]
        assert (cut.is_cut, cut.unread) == (most < 5, int(most > 1))
    later = read_images(output, "hall", parse_time("2026-01-31T00:00:00.000001Z"),
                        parse_time("2026-01-31T10:00:00Z"), frozenset())  # fmt: skip
    assert [one.timestamp for one in later.images] == times[2:]


def test_of_too_many_images_the_first_are_only_looked_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = RULES.replace("cooldown: 0s", "cooldown: 30m")
    times = [f"2026-01-31T{minute}:00Z" for minute in ("10:00", "10:20", "10:25", "11:00")]
    write_output(tmp_path / "out", [seen("hall", time, ("person", 0.9)) for time in times], text)
    ruleset = rules.parse_rules(text.encode(), "rules.yaml")
    area = DrawnArea("hall", "mask", "bay", ((0, 0), (1, 0), (1, 1), (0, 1)))

    def counted() -> tuple[int, int, int]:
        trial = Trials(str(tmp_path / "out")).attempt(
            area, ruleset, area.applied(ruleset), {}, days=1,
            find_newest=lambda: parse_time(times[-1]), is_wanted=lambda: True,
        ).trial  # fmt: skip
        return trial.images, trial.alerts, trial.lost

    assert counted() == (4, 2, 2)
    # The image of 10:20 has no alert, which the one of 10:00 shows.
    monkeypatch.setattr(trials, "MOST_IMAGES", 3)
    assert counted() == (1, 1, 1)
    monkeypatch.setattr(trials, "MOST_IMAGES", 1)
    assert counted() == (0, 0, 0)


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_no_capture_time_is_too_early_or_too_late(tmp_path: Path, year: int) -> None:
    newest = parse_time(f"{year:04d}-01-01T00:00:00Z")
    if year == 9999:
        newest += timedelta(days=365) - timedelta(microseconds=1)
    output = tmp_path / "out"
    write_output(output, [seen("hall", canonical_time(newest), ("person", 0.9))], RULES)
    ruleset = rules.parse_rules(RULES.encode(), "rules.yaml")
    area = DrawnArea("hall", "mask", "bay", ((0, 0), (1, 0), (1, 1), (0, 1)))
    came = Trials(str(output)).attempt(
        area, ruleset, area.applied(ruleset), {}, days=30, find_newest=lambda: newest,
        is_wanted=lambda: True,
    )  # fmt: skip
    assert (came.trial.images, came.trial.lost) == (1, 1)
