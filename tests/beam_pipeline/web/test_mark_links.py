"""Links that mark without a log-in: only the button of their page marks, and only their alert."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import rules
from tests.beam_pipeline.web.serving import RULES, Served, served, users_file, write_small_output
from tests.search import search
from transforms.alerting.mark_links import MarkLink, sign
from transforms.storage.marks import Mark, read_marks, standing

OLD = "o" * 32
SIGNING = "n" * 32
HALL = rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert")
GATE = rules.alert_id("gate", "2026-01-31T11:00:00Z", "alert")
LATER = 4_000_000_000
EXAMPLES = itertools.count()
LINKED = RULES + 'console: {url: "https://console.example.com", key: "${MARK_KEY}"}\n'


def link(
    mark: str = "false", alert_id: str = HALL, camera: str = "hall", until: int = LATER,
    by: str = "mail (link)", key: str = SIGNING,
) -> str:  # fmt: skip
    """The path of a link."""
    return f"/m/{sign(key, MarkLink(camera, alert_id, mark, by, until))}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("MARK_KEY", f"{SIGNING} {OLD}")
    write_small_output(tmp_path / "out")
    (tmp_path / "rules.yaml").write_text(LINKED)
    words = ("--rules", tmp_path / "rules.yaml", "--users", users_file(tmp_path / "users.json"))
    with served(tmp_path / "out", tmp_path / "index", *words) as here:
        yield here


def marks(here: Served) -> list[Mark]:
    return read_marks(here.prepared.console.output)[0]


def audit(here: Served) -> list[dict[str, object]]:
    files = sorted(Path(here.prepared.console.output).glob("audit/*/*.json"))
    return [json.loads(path.read_bytes()) for path in files]


def test_opening_a_link_marks_nothing_and_its_button_marks_once(here: Served) -> None:
    browser, path = here.browser(), link()
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        for headers in ({}, {"Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}):
            answer = browser.session.request(
                method, here.url + path, headers=headers, timeout=20, allow_redirects=False
            )
            assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
    page = browser.get(path).text
    assert "<h1>Is the alert false?</h1>" in page
    assert "<bdi>person 0.90</bdi> at hall" in page
    assert "2026-01-31 10:00:00" in page
    assert re.findall(r'<form method="(\w+)">', page) == ["post"]
    assert marks(here) == audit(here) == []
    for _ in range(2):  # A second tap changes nothing.
        answer = browser.post(path, {})
        assert (answer.status_code, answer.headers["location"]) == (303, path)
    (mark,) = marks(here)
    assert (mark.alert_id, mark.mark, mark.label, mark.by, mark.note) == (
        HALL, "false", None, "mail (link)", "",
    )  # fmt: skip
    (entry,) = audit(here)
    assert {name: entry[name] for name in ("by", "role", "action")} == {
        "by": "mail (link)", "role": "link", "action": "mark",
    }  # fmt: skip
    page = browser.get(path).text
    assert "<h1>Marked as false</h1>" in page
    assert "<form" not in page
    assert 'href="/login?next=%2Fcameras%2Fhall%2Fproposals"' in page
    assert browser.post(link("right"), {}).status_code == 303
    assert f'href="/login?next=%2Falerts%2F{HALL}"' in browser.get(link("right")).text


def test_the_other_link_of_the_message_corrects_a_mark(here: Served) -> None:
    browser = here.browser()
    for mark in ("false", "right", "false"):
        assert browser.post(link(mark), {}).status_code == 303
    assert [one.mark for one in marks(here)] == ["false", "right", "false"]
    assert [one.mark for one in standing(marks(here))] == ["false"]
    # The mark of a person is another one.
    assert here.logged_in("operator").mark("right", "hall", HALL).status_code == 303
    assert "<h1>Marked as false</h1>" in browser.get(link()).text
    stand = {(one.by, one.mark) for one in standing(marks(here))}
    assert stand == {("mail (link)", "false"), ("operator", "right")}


def test_whoever_is_logged_in_is_led_to_the_alert_and_what_would_silence_it(here: Served) -> None:
    browser = here.logged_in("operator")
    assert browser.post(link(), {}).status_code == 303
    page = browser.get(link()).text
    assert 'href="/cameras/hall/proposals"' in page
    assert f'href="/alerts/{HALL}"' in page
    assert browser.get("/cameras/hall/proposals").status_code == 200
    assert marks(here)[0].by == "mail (link)"


BAD: dict[str, tuple[Callable[[], str], int, str]] = {
    "ended": (lambda: link(until=int(time.time()) - 1), 410, "This link has ended."),
    "forged": (lambda: link(key="x" * 32), 403, "This link is damaged"),
    "cut": (lambda: link()[:-1], 403, "This link is damaged"),
    "longer": (lambda: link() + "0", 403, "This link is damaged"),
    "no link": (lambda: "/m/x", 403, "This link is damaged"),
    "of another alert": (
        lambda: f"{link(alert_id=GATE, camera='gate').split('.')[0]}.{link().split('.')[1]}",
        403,
        "This link is damaged",
    ),
}


def test_a_link_that_does_not_work_says_why_and_marks_nothing(here: Served) -> None:
    browser, admin = here.browser(), here.logged_in("admin")
    for kind, (make, status, says) in BAD.items():
        path = make()
        for answer in (browser.get(path), browser.post(path, {}), admin.get(path)):
            assert answer.status_code == status, kind
            assert says in answer.text
        assert browser.session.head(here.url + path, timeout=20).status_code == status
    assert marks(here) == audit(here) == []


def test_an_alert_that_is_gone_or_another_camera_s_is_not_marked(here: Served) -> None:
    browser = here.browser()
    for path in (link(alert_id="0" * 32), link(camera="gate")):
        answer = browser.post(path, {})
        assert answer.status_code == 404
        assert "deleted, or the message was only a test" in answer.text
        assert str(here.prepared.console.output) not in answer.text
    assert marks(here) == audit(here) == []


def test_the_page_of_another_site_can_not_send_the_form(here: Served) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert here.browser().post(link(), {}, headers=headers).status_code == 403
    assert marks(here) == []
    headers = {"Origin": here.url, "Sec-Fetch-Site": "same-origin"}
    assert here.browser().post(link(), {}, headers=headers).status_code == 303


def test_a_store_that_fails_refuses_the_mark(here: Served) -> None:
    output = Path(here.prepared.console.output)
    output.rename(output.with_name("away"))
    answer = here.browser().post(link(), {})
    assert answer.status_code in (404, 503)
    output.with_name("away").rename(output)
    assert here.browser().post(link(), {}).status_code == 303


def test_the_keys_are_those_of_the_rule_file_now(
    here: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    browser = here.browser()
    assert browser.get(link(key=OLD)).status_code == 200
    monkeypatch.setenv("MARK_KEY", SIGNING)
    assert browser.get(link(key=OLD)).status_code == 403
    assert browser.get(link()).status_code == 200
    for value in ("short", ""):
        monkeypatch.setenv("MARK_KEY", value)
        answer = browser.post(link(), {})
        assert answer.status_code == 404
        assert "This console takes no links" in answer.text
    monkeypatch.setenv("MARK_KEY", SIGNING)
    (tmp_path / "rules.yaml").write_text(RULES)
    here.until(lambda: browser.get(link()).status_code == 404)
    assert marks(here) == []


def test_no_key_or_link_is_logged_or_written(
    here: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = here.browser()
    for path in (link(), link(key="x" * 32), link(until=5), link(alert_id="0" * 32)):
        browser.get(path), browser.post(path, {})
    page = browser.get(link()).text
    files = Path(here.prepared.console.output).parent.rglob("*")
    texts = [path.read_bytes().decode("latin-1") for path in files if path.is_file()]
    # The server's log of requests is off; caplog gives it a handler, so it seems to be on.
    others = ("urllib3.connectionpool", "uvicorn.access")
    own = [record.getMessage() for record in caplog.records if record.name not in others]
    for text in (*texts, *own, page):
        assert SIGNING not in text
        assert link().split(".")[1] not in text
    assert marks(here) != []


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("links")
    write_small_output(folder / "out")
    (folder / "rules.yaml").write_text(LINKED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARK_KEY", SIGNING)
        with served(folder / "out", folder / "index", "--rules", folder / "rules.yaml") as here:
            yield here


@pytest.mark.search
@search(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["get", "post", "post", "stolen", "damaged", "ended"]),
            st.sampled_from([("hall", HALL), ("gate", GATE)]),
            st.sampled_from(["right", "false"]),
            st.sampled_from(["mail", "chat"]),
        ),
        max_size=8,
    )
)
def test_the_marks_are_those_of_the_buttons_that_were_pressed(
    searched: Served, steps: list[tuple[str, tuple[str, str], str, str]]
) -> None:
    """Against a table: who said what last of which alert."""
    example = next(EXAMPLES)
    session, expected = requests.Session(), {}
    for what, (camera, alert_id), mark, target in steps:
        by = f"{target} {example} (link)"
        token = sign(SIGNING, MarkLink(camera, alert_id, mark, by, 5 if what == "ended" else LATER))
        if what == "stolen":  # The signature of a link of the other alert.
            other, of = (GATE, "gate") if alert_id == HALL else (HALL, "hall")
            foreign = sign(SIGNING, MarkLink(of, other, mark, by, LATER))
            token = f"{token.split('.')[0]}.{foreign.split('.')[1]}"
        if what == "damaged":
            token = token.replace(token[5], "A" if token[5] != "A" else "B", 1)
        method = "GET" if what == "get" else "POST"
        url = f"{searched.url}/m/{token}"
        status = session.request(method, url, timeout=20, allow_redirects=False).status_code
        assert status == {"get": 200, "post": 303, "ended": 410}.get(what, 403)
        if what == "post":
            expected[alert_id, by] = mark
    stand = standing(read_marks(searched.prepared.console.output)[0])
    found = {(one.alert_id, one.by): one.mark for one in stand if f" {example} " in one.by}
    assert found == expected


def test_a_console_without_a_key_takes_no_links(tmp_path: Path) -> None:
    write_small_output(tmp_path / "out")
    with served(tmp_path / "out", tmp_path / "index") as here:
        answer = here.browser().get(link())
        assert answer.status_code == 404
        assert "names no key" in answer.text
