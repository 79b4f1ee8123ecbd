"""The console as a real server on the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import rules
from beam_pipeline import cli
from beam_pipeline.web.pages.console import Live
from tests.beam_pipeline.conftest import refused
from tests.beam_pipeline.fleets import PICTURE, SHA256, write_fleet
from tests.beam_pipeline.web.serving import (
    RULES,
    Served,
    add_alert,
    served,
    small_images,
    users_file,
    write_small_output,
)
from tests.search import search
from tests.stores.servers import free_port
from tests.transforms.archives import seen, write_output
from transforms.alerting.alerts import alert_for
from transforms.alerting.messages import compose
from transforms.storage import stores
from transforms.storage.marks import read_marks, standing
from transforms.storage.packed_output import period_name, write_file
from transforms.storage.packed_rows import PackedRow

ROOT = Path(__file__).parents[3]
SECRET = "a secret beside the output"
HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
QUIET = "hall_2026-01-31T12-30-00Z"
OF_IMAGES = (
    *(f"/alerts/{HALL}", f"/images/hall/{QUIET}", f"/cameras/hall/images/{QUIET}"),
    *("/cameras/hall/images", "/cameras/hall"),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console of a small output, beside which lies a secret."""
    folder = tmp_path_factory.mktemp("console")
    write_small_output(folder / "out", invalid=[("not_jpeg", "hall_20260131T100100Z.jpg", "a PNG")])
    (folder / "rules.yaml").write_text(RULES + "cameras: {roof: {objects: {dog: {}}}}\n")
    for name in ("secret.json", "secret.jpg", "secret"):
        (folder / name).write_text(SECRET)
    options = ("--rules", folder / "rules.yaml")
    with served(folder / "out", folder / "index", *options) as here:
        yield here


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_small_output(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console of a small output, in which tests leave marks."""
    folder = tmp_path_factory.mktemp("marked")
    write_small_output(folder / "out")
    with served(folder / "out", folder / "index") as here:
        yield here


# Pages


def test_the_first_page_shows_the_incidents_the_newest_first(small: Served) -> None:
    page = small.browser().get("/", allow_redirects=True)
    assert page.status_code == 200
    places = [page.text.index(f'id="i-{id}"') for id in (
        rules.alert_id("hall", "2026-01-31T12:00:00Z", "alert"),
        rules.alert_id("gate", "2026-01-31T11:00:00Z", "alert"),
        HALL,
    )]  # fmt: skip
    assert places == sorted(places)
    assert page.text.count('class="card"') == 3
    assert "<bdi>person 0.93</bdi>" in page.text  # Of the second image.
    assert "and 1 more image, until" in page.text
    assert "newest image comes first. Each label has its highest score" in page.text


@pytest.mark.parametrize(
    ("query", "cameras"),
    [
        ("camera=gate", ["gate"]),
        ("label=car", ["hall"]),
        ("severity=detection", []),
        ("mark=unmarked", ["hall", "gate", "hall"]),
        ("mark=false", []),
        ("since=2026-01-31T10:30&until=2026-01-31T11:30", ["gate"]),
        ("before=&camera=&label=&severity=&mark=nonsense", ["hall", "gate", "hall"]),
    ],
)
def test_the_alerts_are_filtered(small: Served, query: str, cameras: list[str]) -> None:
    for path in ("/alerts", "/alerts/list"):
        page = small.browser().get(f"{path}?{query}")
        assert page.status_code == 200
        shown = [part.split('"')[0] for part in page.text.split('alt="Image of ')[1:]]
        assert shown == cameras
    if not cameras:
        assert "No incident fits." in small.browser().get(f"/alerts?{query}").text


def test_a_time_that_is_none_is_named(small: Served) -> None:
    assert "soon is no time such as" in small.browser().get("/alerts?since=soon").text


def test_older_incidents_are_on_further_pages_and_none_is_lost(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    for number in range(60):
        add_alert(
            tmp_path / "out", f"camera-{number % 7}", f"2026-02-{1 + number % 20:02}T10:00:00Z"
        )
    with served(tmp_path / "out", tmp_path / "index") as here:
        browser, path, seen, pages = here.browser(), "/alerts", [], 0
        while path:
            text = browser.get(path).text
            seen += [part[:32] for part in text.split('id="i-')[1:]]
            pages += 1
            older = text.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
            path = older.replace("&amp;", "&") if 'rel="next"' in text else ""
        assert len(seen) == len(set(seen)) == here.prepared.console.index.numbers()["incidents"]
        assert pages == 3


def test_an_alert_shows_its_boxes_its_reasons_and_the_images_of_its_incident(small: Served) -> None:
    text = small.browser().get(f"/alerts/{HALL}").text
    assert "It calls for an alert." in text
    assert "a threat of severity alert, rule defaults.objects.person" in text
    # The car is rejected, with the reason in words and a box of its own.
    assert "no threat: score 0.7, minimum 0.8 (rule defaults.objects.car)" in text
    assert text.count('<g class="rejected"><rect x="10.0" y="20.0"') == 1
    assert "Show the 1 rejected detection in the image" in text
    assert text.count('alt="2026-01-31 10:0') == 2
    assert "not_sent" in text


def test_a_camera_shows_its_last_image_its_numbers_and_its_rules(small: Served) -> None:
    text = small.browser().get("/cameras/hall").text
    assert f'src="/images/hall/{QUIET}?size=full"' in text
    for line in ("images: 4", "with a threat: 3", "threats: 3", "alerts: 3", "invalid: 1"):
        assert f"<li>{line}</li>" in text
    assert "min_score 0.5 (defaults)" in text
    assert text.count('<rect class="all"') == 24
    # A camera that never sent an image is known by the rules.
    roof = small.browser().get("/cameras/roof").text
    assert "No image is known." in roof
    assert "\n  dog " in roof
    assert small.browser().get("/cameras/cellar").status_code == 404


def test_the_images_of_a_camera_lead_to_each_image(small: Served) -> None:
    text = small.browser().get("/cameras/hall/images").text
    assert text.count('href="/cameras/hall/images/hall_') == 4
    later = small.browser().get("/cameras/hall/images?from=2026-01-31T12:00").text
    assert later.count('href="/cameras/hall/images/hall_') == 2
    quiet = small.browser().get(f"/cameras/hall/images/{QUIET}")
    assert "No alert: nothing in it is a threat." in quiet.text
    assert "score 0.3, minimum 0.5" in quiet.text
    alerted = small.browser().get("/cameras/hall/images/hall_2026-01-31T10-00-00Z")
    assert (alerted.status_code, alerted.headers["location"]) == (303, f"/alerts/{HALL}")


def test_the_fleet_and_its_health_are_those_of_the_report(small: Served) -> None:
    fleet = small.browser().get("/fleet").text
    assert '<a href="/cameras/hall">hall</a>' in fleet
    assert '<dd data-total="images">5</dd>' in fleet
    assert "not_jpeg" in fleet
    chart = small.browser().get("/fleet/chart.svg")
    assert chart.headers["content-type"] == "image/svg+xml"
    assert chart.content.startswith(b"<?xml")
    health = small.browser().get("/health").text
    assert '<a href="/cameras/roof">roof</a>' in health
    assert "never sent an image" in health


def test_an_image_comes_scaled_and_only_if_it_is_the_one_of_the_record(
    output: Path, tmp_path: Path
) -> None:
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        image = browser.get(f"/images/hall/{QUIET}")
        assert image.headers["content-type"] == "image/jpeg"
        assert image.content.startswith(b"\xff\xd8")
        again = browser.get(
            f"/images/hall/{QUIET}", headers={"If-None-Match": image.headers["etag"]}
        )
        assert again.status_code == 304
        replaced = output / "validated" / "hall" / "hall_2026-01-31T12-00-00Z.jpg"
        replaced.write_bytes(replaced.read_bytes() + b"x")
        other = browser.get("/images/hall/hall_2026-01-31T12-00-00Z?size=full")
        assert (other.status_code, other.headers["content-type"]) == (404, "image/svg+xml")


def test_a_packed_output_shows_the_same(tmp_path: Path) -> None:
    output = tmp_path / "out"
    judged = write_fleet(output, small_images(), rule_text=RULES)
    day = datetime(2026, 1, 31, tzinfo=timezone.utc)
    rows = [PackedRow(one.image, one.to_json()["threat"]) for one in judged]
    period = period_name(day, day + timedelta(days=1))
    with served(output, tmp_path / "index") as here:
        before = {path: here.browser().get(path) for path in OF_IMAGES}
    write_file(stores.packed_folder(str(output)), period, rows)
    shutil.rmtree(output / "final")
    shutil.rmtree(output / "detections")
    with served(output, tmp_path / "index") as here:
        for path, answer in before.items():
            again = here.browser().get(path)
            assert again.status_code == answer.status_code == 200
            plain = [re.sub(rb'value="[0-9a-f]{64}"|data-version="\d+"', b"", one.content)
                     for one in (answer, again)]  # fmt: skip
            assert plain[0] == plain[1], path


# Following


def test_a_new_alert_wakes_an_open_page_and_a_deleted_one_goes(
    output: Path, tmp_path: Path
) -> None:
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        with browser.get("/live", stream=True) as events:
            states = (
                json.loads(line.removeprefix("data: "))
                for line in events.iter_lines(decode_unicode=True)
                if line.startswith("data: ")
            )
            first = next(states)
            assert first["stale"] is None
            alert_id = add_alert(output, "gate", "2026-01-31T13:00:00Z", "car")
            assert next(states)["version"] > first["version"]
        assert f'id="i-{alert_id}"' in browser.get("/alerts/list").text
        (output / "alerts" / "gate" / f"{alert_id}.json").unlink()
        here.until(lambda: f'id="i-{alert_id}"' not in browser.get("/alerts/list").text)


def test_a_changed_record_is_read_again_and_a_damaged_one_is_named(
    output: Path, tmp_path: Path
) -> None:
    record = output / "alerts" / "hall" / f"{HALL}.json"
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        value = json.loads(record.read_bytes())
        value["targets"] = [{"target": "guard", "outcome": "delivered", "detail": ""}]
        (record.parent / ".new").write_text(json.dumps(value))
        os.replace(record.parent / ".new", record)
        here.until(lambda: "guard</bdi>: delivered" in browser.get(f"/alerts/{HALL}").text)
        (record.parent / f"{'0' * 32}.json").write_text("{")
        here.until(lambda: f"alerts/hall/{'0' * 32}.json" in browser.get("/health").text)
        assert browser.get("/alerts").text.count('class="card"') == 3


def test_an_output_that_is_gone_makes_pages_stale_and_loses_nothing(
    output: Path, tmp_path: Path
) -> None:
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        before = browser.get("/alerts/list").text
        output.rename(tmp_path / "away")
        here.until(lambda: browser.get("/readyz").status_code == 503)
        page = browser.get("/alerts")
        assert page.status_code == 200
        assert "Out of date since 20" in page.text
        assert browser.get("/alerts/list").text == before
        failed = browser.mark("false", "hall", HALL)
        assert failed.status_code in (400, 503)
        assert "The mark was not saved" in failed.text
        # A mount point without its mount is no output without alerts.
        (output / "final").mkdir(parents=True)
        time.sleep(1.5)
        assert browser.get("/alerts/list").text == before
        shutil.rmtree(output)
        (tmp_path / "away").rename(output)
        here.until(lambda: browser.get("/readyz").status_code == 200)
        assert "Out of date since" not in browser.get("/alerts").text.replace("hidden><span>", "")
        assert browser.mark("false", "hall", HALL).status_code == 303


def test_a_look_that_hangs_makes_pages_stale_too(small: Served) -> None:
    follower = small.prepared.console.follower
    last = follower.status.last_success
    assert last is not None
    assert follower.stale_since(last + timedelta(seconds=30)) is None
    since = follower.stale_since(last + timedelta(minutes=10))
    assert since is not None
    assert since >= last


def test_many_open_pages_cost_no_more_looks_than_one(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(output, tmp_path / "index") as here:
        console = here.prepared.console
        renders: list[object] = []
        streams = [here.browser().get("/live", stream=True) for _ in range(60)]
        try:
            here.until(lambda: console.live.clients == 60)
            looks, began = console.follower.status.looks, time.monotonic()
            alert_id = add_alert(output, "gate", "2026-01-31T14:00:00Z")
            for stream in streams:
                lines = (x for x in stream.iter_lines(decode_unicode=True) if x.startswith("data"))
                next(lines), next(lines)
            seconds = time.monotonic() - began
            assert console.follower.status.looks - looks <= seconds + 2
            template = console.templates.get_template("templates/list.html")
            made = template.render

            def counted(**values: object) -> str:
                renders.append(values)
                return made(**values)

            monkeypatch.setattr(template, "render", counted)
            with ThreadPoolExecutor(10) as pool:
                texts = list(pool.map(lambda _: here.browser().get("/alerts/list").text, range(60)))
            assert all(f'id="i-{alert_id}"' in text for text in texts)
            assert len(renders) <= 10  # Those that asked before the first was made.
        finally:
            for stream in streams:
                stream.close()


def test_a_rule_file_that_breaks_is_named_with_its_line_and_the_last_rules_stay(
    output: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    with served(output, tmp_path / "index", "--rules", file) as here:
        browser = here.browser()
        file.write_text(RULES.replace("min_score: 0.8", "min_skore: 0.8"))
        here.until(lambda: "rules.yaml:3: " in browser.get("/alerts").text)
        text = browser.get("/cameras/hall").text
        assert "The rule file can't be used" in text
        assert "min_skore" in text
        assert "min_score 0.8 (defaults)" in text
        file.write_text(RULES.replace("0.8", "0.9"))
        here.until(lambda: "min_score 0.9 (defaults)" in browser.get("/cameras/hall").text)
        assert "can't be used" not in browser.get("/alerts").text


# Marks


def test_a_mark_is_written_with_an_audit_entry_and_shown_at_once(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "dora")
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        assert browser.mark("false", "hall", HALL).headers["location"] == "/alerts"
        shown = browser.get("/alerts/list?mark=false").text
        assert "false, by <bdi>dora</bdi>" in shown
        form = {"token": browser.token(), "say": "right", "camera": "hall", "what": HALL,
                "label": "person", "note": "two of them", "next": f"/alerts/{HALL}"}  # fmt: skip
        assert browser.post("/marks", form).headers["location"] == f"/alerts/{HALL}"
        (entry_of_day,) = (output / "audit").iterdir()
        entries = [json.loads(path.read_bytes()) for path in sorted(entry_of_day.iterdir())]
        assert [entry["by"] for entry in entries] == ["dora", "dora"]
        assert entries[1]["about"] == {
            "id": "hall", "timestamp": "2026-01-31T10:00:00Z", "alert_id": HALL, "mark": "right",
            "label": "person",
        }  # fmt: skip
        marks, problems = read_marks(str(output))
        assert problems == []
        assert [(m.mark, m.label, m.note, m.by) for m in marks] == [
            ("false", None, "", "dora"), ("right", "person", "two of them", "dora"),
        ]  # fmt: skip
        looks = here.prepared.console.follower.status.looks
        here.until(lambda: here.prepared.console.follower.status.looks >= looks + 2)
        assert here.prepared.console.index.numbers()["marks"] == 2
        assert "person</bdi>, by <bdi>dora</bdi>" in browser.get(f"/alerts/{HALL}").text
        audit = browser.get("/audit").text
        assert "dora" in audit
        assert HALL in audit


@pytest.mark.parametrize("error", [sqlite3.OperationalError("locked"), OSError("full")])
def test_a_mark_that_was_saved_is_answered_so_whatever_the_index_says(
    marked: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object) -> None:
        raise error

    output = marked.prepared.console.output
    monkeypatch.setattr(marked.prepared.console.index, "add_mark", failing)
    before = len(read_marks(output)[0])
    browser = marked.browser()
    assert browser.mark("false", "hall", HALL).status_code == 303
    assert len(read_marks(output)[0]) == before + 1
    numbers = marked.prepared.console.index.numbers
    marked.until(lambda: numbers()["marks"] == before + 1)


def test_an_index_that_is_deleted_while_the_console_runs_is_made_anew(
    output: Path, tmp_path: Path
) -> None:
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        assert browser.get("/alerts").text.count('class="card"') == 3
        for path in tmp_path.glob("index/*"):
            path.unlink()
        with ThreadPoolExecutor(8) as pool:
            pages = list(pool.map(lambda _: here.browser().get("/alerts"), range(24)))
        assert {page.status_code for page in pages} == {200}
        here.until(lambda: browser.get("/alerts").text.count('class="card"') == 3)
        assert browser.mark("false", "hall", HALL).status_code == 303
        here.until(lambda: browser.get("/readyz").status_code == 200)


def test_what_was_missed_is_marked_on_any_image(output: Path, tmp_path: Path) -> None:
    with served(output, tmp_path / "index") as here:
        browser = here.browser()
        form = {"token": browser.token(), "say": "missed", "camera": "hall",
                "what": f"{QUIET}.jpg", "label": "person", "bbox": "0.1,0.2,0.05,0.3"}  # fmt: skip
        assert browser.post("/marks", form).status_code == 303
        (mark,) = read_marks(str(output))[0]
        assert (mark.mark, mark.label, mark.bboxes) == (
            "missed",
            "person",
            ((0.1, 0.2, 0.05, 0.3),),
        )
        assert mark.alert_id == rules.alert_id("hall", "2026-01-31T12:30:00Z", "alert")
        assert "missed <bdi>person</bdi>" in browser.get(f"/cameras/hall/images/{QUIET}").text
        assert "Marked as missed" in browser.get("/cameras/hall").text
        # Without a box too; and the labels are those of the model.
        assert browser.post("/marks", {**form, "bbox": ""}).status_code == 303
        unknown = browser.post("/marks", {**form, "label": "perzon"})
        assert unknown.status_code == 400
        assert "the model gives no such label" in unknown.text


def test_people_who_mark_at_once_lose_no_mark(output: Path, tmp_path: Path) -> None:
    users = users_file(tmp_path / "users.json")
    with served(output, tmp_path / "index", "--users", users) as here:
        browsers = [here.logged_in(name) for name in ("operator", "admin")]
        tokens = [browser.token() for browser in browsers]

        def mark(number: int) -> int:
            who = number % 2
            form = {"token": tokens[who], "say": f"{('right', 'false')[who]} hall {HALL}"}
            return browsers[who].post("/marks", form).status_code

        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(mark, range(12))) == {303}
        marks, _ = read_marks(str(output))
        assert len(marks) == 12
        stand = {(one.by, one.mark) for one in standing(marks)}
        assert stand == {("operator", "right"), ("admin", "false")}
        assert len(list((output / "audit").rglob("*.json"))) == 12
        text = browsers[0].get(f"/alerts/{HALL}").text
        assert "right, by <bdi>operator</bdi>" in text
        assert "false, by <bdi>admin</bdi>" in text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 400),
        ({"say": "right"}, 400),
        ({"say": "wrong hall " + HALL}, 400),
        ({"say": "right ../hall " + HALL}, 400),
        ({"say": "right hall " + "0" * 32}, 400),
        ({"say": "missed hall " + QUIET + ".jpg"}, 400),
        ({"say": "right hall " + HALL, "label": "dog"}, 400),
        ({"say": "right hall " + HALL, "bbox": "0,0,1,1"}, 400),
        ({"say": "right hall " + HALL, "bbox": "x"}, 400),
        ({"say": "right hall " + HALL, "note": "x" * 1001}, 400),
        ({"say": "right hall " + HALL, "note": "x" * 70_000}, 413),
        ({"say": "right hall " + HALL, "token": "0" * 64}, 403),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_writes_no_mark(
    small: Served, form: dict[str, str], status: int
) -> None:
    browser = small.browser()
    answer = browser.post("/marks", {"token": browser.token(), **form}, headers={"X-Console": "1"})
    assert answer.status_code == status
    assert len(answer.json()["said"]) > 20
    assert read_marks(small.prepared.console.output) == ([], [])


# For machines


def test_health_and_metrics_are_for_machines(output: Path, tmp_path: Path) -> None:
    users = users_file(tmp_path / "users.json")
    with served(output, tmp_path / "index", "--users", users) as here:
        browser = here.browser()
        assert browser.get("/healthz").text == "ok\n"
        assert browser.get("/readyz").text == "ok\n"
        text = browser.get("/metrics").text
        assert "\nbeam_console_alerts 4\n" in text
        assert "\nbeam_console_incidents 3\n" in text
        assert 'beam_console_answers_total{status="200"} ' in text
        assert "hall" not in text
        for line in text.splitlines():
            assert line.startswith("#") or len(line.split(" ")) == 2


def test_the_metrics_are_counted_once_after_each_change(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(output, tmp_path / "index") as here:
        plainly, counted = here.prepared.console.index.numbers, []

        def numbers() -> dict[str, int]:
            counted.append(1)
            return plainly()

        monkeypatch.setattr(here.prepared.console.index, "numbers", numbers)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: here.browser().get("/metrics"), range(40)))
        assert len(counted) == 1
        add_alert(output, "gate", "2026-01-31T14:00:00Z")
        here.until(lambda: "\nbeam_console_alerts 5\n" in here.browser().get("/metrics").text)


def test_a_change_while_the_state_is_sent_is_not_missed() -> None:
    async def main() -> None:
        live = Live()
        live.attach()
        change = live.next_change
        live.publish()
        await asyncio.sleep(0.01)
        await asyncio.wait_for(live.wait(change), 2)

    asyncio.run(main())


# Hostile names


PARTS = st.sampled_from(
    ["..", ".", "%2e%2e", "%2F", "/", "\\", "%5C", "secret", "secret.json", "secret.jpg", "hall",
     "%00", "..%2f..%2fsecret", "etc", "passwd", "out", "final", QUIET, "?size=full", "é", "%ff"]
)  # fmt: skip


@pytest.mark.search
@search(120)
@given(
    st.sampled_from(["/images/", "/cameras/", "/alerts/", "/static/", "/cameras/hall/images/"]),
    st.lists(PARTS, min_size=1, max_size=7).map("".join) | st.text(max_size=40).map(quote),
)
def test_no_address_reaches_what_lies_beside_the_output(
    small: Served, base: str, rest: str
) -> None:
    import http.client

    place = small.url.removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=20)
    path = (base + rest).encode("ascii", "ignore").decode().replace(" ", "%20")
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", place)
    connection.endheaders()
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status in (200, 303, 304, 400, 404)
    assert SECRET.encode() not in data
    assert b"Traceback" not in data
    if answer.status == 200 and base == "/images/":
        assert path.split("?")[0] == f"/images/hall/{QUIET}"


def test_the_last_moment_of_the_calendar_is_an_image_as_any_other(tmp_path: Path) -> None:
    """A camera with a wrong clock names its images so."""
    last = "9999-12-31T23:59:59.999999Z"
    stem = "hall_9999-12-31T23-59-59.999999Z"
    output, rule_text = (
        tmp_path / "out",
        RULES.replace("defaults:", "defaults:\n  timezone: Pacific/Auckland"),
    )
    judged = write_fleet(output, small_images(), rule_text=rule_text)
    (late,) = write_output(output, [seen("hall", last, ("person", 0.9), sha256=SHA256)], rule_text)
    stores.write_bytes(stores.validated_uri(str(output), "hall", late.image.file), PICTURE)
    alert = alert_for(late, str(output), rules.parse_rules(rule_text, "rules"))
    assert alert is not None
    place = stores.alert_uri(str(output), "hall", alert.alert_id)
    stores.write_bytes(place, stores.json_bytes({**alert.body, "targets": []}))
    quiet = next(one.to_json()["threat"] for one in judged if not one.verdict.threats)
    rows = [PackedRow(seen("quiet", last, ("person", 0.3)), quiet)]
    write_file(stores.packed_folder(str(output)), None, rows)
    (tmp_path / "rules.yaml").write_text(rule_text)
    with served(output, tmp_path / "index", "--rules", tmp_path / "rules.yaml") as here:
        browser = here.browser()
        for path, status in (
            ("/alerts", 200),
            (f"/alerts/{alert.alert_id}", 200),
            ("/cameras/hall", 200),
            ("/cameras/hall/images", 200),
            (f"/cameras/hall/images/{stem}", 303),
            (f"/images/hall/{stem}", 200),
            (f"/images/gate/{stem.replace('hall', 'gate')}", 404),
            (f"/cameras/gate/images/{stem.replace('hall', 'gate')}", 200),
            (f"/cameras/quiet/images/{stem.replace('hall', 'quiet')}", 200),
            ("/fleet", 200),
            ("/health", 200),
        ):
            assert browser.get(path).status_code == status, path
        for camera, status in (("gate", 400), ("quiet", 303)):
            form = {"token": browser.token(), "say": "missed", "camera": camera,
                    "what": f"{stem.replace('hall', camera)}.jpg", "label": "car"}  # fmt: skip
            assert browser.post("/marks", form).status_code == status, camera
        assert len(read_marks(str(output))[0]) == 1


TEXTS = st.sampled_from(
    ["", "hall", HALL, "right", "missed", "person", "nan", "inf", "-1", "1e400", "2026-01-31T10:00",
     "9999-12-31T23:59", "0001-01-01", f"inf_{HALL}", f"nan_{HALL}", f"right hall {HALL}",
     f"missed hall {QUIET}.jpg", "0,0,1,1", "nan,0,1,1", "\x00", "\ud800"]
) | st.text(max_size=20)  # fmt: skip
FIELDS = ("camera", "label", "severity", "mark", "since", "until", "before", "from", "size")


@pytest.mark.search
@search(120)
@given(
    st.sampled_from(["/alerts", "/alerts/list", "/cameras/hall/images", f"/images/hall/{QUIET}"]),
    st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=4),
)
def test_no_query_makes_the_console_fail(small: Served, path: str, query: dict[str, str]) -> None:
    text = urlencode(query, errors="surrogatepass")
    assert small.browser().get(f"{path}?{text}").status_code in (200, 404)


@pytest.mark.search
@search(120)
@given(st.dictionaries(
    st.sampled_from(["say", "camera", "what", "label", "bbox", "note", "next"]), TEXTS, max_size=6
))  # fmt: skip
def test_no_form_makes_the_console_fail(marked: Served, form: dict[str, str]) -> None:
    browser = marked.browser()
    text = urlencode({"token": browser.token(), **form}, errors="surrogatepass")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = browser.session.post(
        f"{marked.url}/marks", text, headers=headers, timeout=20, allow_redirects=False
    )
    assert answer.status_code in (303, 400)
    if answer.status_code == 303:
        assert answer.headers["location"].startswith("/")
        assert not answer.headers["location"].startswith("//")


def test_a_store_that_hangs_is_waited_for_no_longer_than_some_seconds(
    marked: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app", "pages.marking"):
        monkeypatch.setattr(f"beam_pipeline.web.{module}.LONGEST_WAIT_SECONDS", 0.3)
    answered = threading.Event()
    plainly = stores.read_if_there

    def hanging(uri: str) -> bytes | None:
        answered.wait(20)
        return plainly(uri)

    monkeypatch.setattr(stores, "read_if_there", hanging)
    try:
        browser = marked.browser()
        slow = browser.mark("false", "hall", HALL)
        assert slow.status_code == 503
        assert "The mark may still be saved" in slow.text
        assert browser.get("/images/hall/hall_2026-01-31T10-02-00Z?size=full").status_code == 503
        assert browser.get("/alerts").status_code == 200
    finally:
        answered.set()


def test_a_damaged_audit_entry_hides_no_other(marked: Served) -> None:
    browser = marked.browser()
    assert browser.mark("unsure", "hall", HALL).status_code == 303
    (day,) = Path(marked.prepared.console.output, "audit").iterdir()
    for number, text in enumerate(("{", "[]", '{"at": 1}', '{"about": {"a": 1}}')):
        (day / f"99991231T000000000000Z_{number}.json").write_text(text)
    page = browser.get("/audit")
    assert page.status_code == 200
    assert HALL in page.text


def test_a_template_of_a_message_leads_to_the_page_of_the_alert(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "console.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    output = tmp_path / "out"
    (judged, *_) = write_fleet(output, small_images()[:1], rule_text=text)
    ruleset = rules.parse_rules(text, "rules.yaml")
    alert = alert_for(judged, str(output), ruleset)
    assert alert is not None
    message = compose(alert.body, ruleset)
    path = message.text.split("https://console.example.com")[1].split()[0]
    with served(output, tmp_path / "index") as here:
        assert "It calls for an alert." in here.browser().get(path).text


# The set-up


def test_a_wrong_set_up_is_one_line(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        line = refused(capsys, "serve", "--output", output, "--port", port)
    assert f"--port {port}: another program listens there" in line
    assert "is no output of a job" in refused(capsys, "serve", "--output", tmp_path)
    line = refused(capsys, "serve", "--output", output, "--bind", "0.0.0.0")
    assert "other machines reach this address, so give --users FILE" in line
    assert "no such file" in refused(capsys, "serve", "--output", output, "--rules", "none.yaml")
    assert "can't be read" in refused(capsys, "serve", "--output", output, "--users", "none.json")
    (tmp_path / "no-users.json").write_text("{}")
    line = refused(capsys, "serve", "--output", output, "--users", tmp_path / "no-users.json")
    assert "is no file of users" in line
    line = refused(capsys, "serve", "--output", output, "--trusted_header", "x y")
    assert "--trusted_header: give the name of a header" in line
    words = ("--trusted_header", "X-User", "--trusted_proxy", "proxy")
    line = refused(capsys, "serve", "--output", output, *words)
    assert "--trusted_proxy proxy: is no address or network" in line
    (tmp_path / "file").touch()
    assert "--index" in refused(capsys, "serve", "--output", output, "--index", tmp_path / "file")
    line = refused(capsys, "serve", "--output", output, "--port", "70000")
    assert "70000 is more than 65535" in line


def test_a_signal_ends_the_command_in_one_line(output: Path, tmp_path: Path) -> None:
    words = ["serve", "--output", str(output), "--port", "0", "--index", str(tmp_path / "index")]
    command = [sys.executable, "-m", "beam_pipeline", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"serving {output} at http://127.0.0.1:")
        url = line.split(" at ")[1].strip()
        assert requests.get(f"{url}healthz", timeout=20).text == "ok\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 143
    assert error == "serve: stopped\n"


def test_the_index_is_kept_for_the_next_start_and_can_be_deleted(
    output: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with served(output, tmp_path / "index") as here:
            assert here.prepared.console.index.numbers()["alerts"] == 4
    (file,) = tmp_path.glob("index/*.sqlite")
    shutil.rmtree(tmp_path / "index")
    with served(output, tmp_path / "index") as here:
        assert here.prepared.console.index.numbers()["alerts"] == 4
    assert file.exists()


def test_the_period_of_the_fleet_and_the_labels_of_the_model_are_options(
    output: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("person\ncar\nzebra finch\n")
    words = ("--report_period_hours", 1, "--labels", tmp_path / "labels.txt")
    with served(output, tmp_path / "index", *words) as here:
        browser = here.browser()
        assert '<dd data-total="images">2</dd>' in browser.get("/fleet").text
        assert "zebra finch" in browser.get(f"/cameras/hall/images/{QUIET}").text
        form = {"token": browser.token(), "say": "missed", "camera": "hall",
                "what": f"{QUIET}.jpg", "label": "zebra finch"}  # fmt: skip
        assert browser.post("/marks", form).status_code == 303


def test_the_poll_interval_is_an_option(output: Path, tmp_path: Path) -> None:
    with served(output, tmp_path / "index", "--poll_interval_seconds", 3600) as here:
        add_alert(output, "gate", "2026-01-31T14:00:00Z")
        time.sleep(1.5)
        assert here.prepared.console.index.numbers()["alerts"] == 4


def test_without_users_only_addresses_of_this_machine_are_answered(small: Served) -> None:
    """A page of another site could otherwise point its own name at this machine."""
    browser = small.browser()
    assert browser.get("/alerts", headers={"Host": "evil.example"}).status_code == 421
    port = small.url.rpartition(":")[2]
    assert browser.get("/alerts", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_serve_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    assert "--poll_interval_seconds" in capsys.readouterr().out
