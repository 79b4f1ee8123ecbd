"""Proposals in the console: what they show, and how they are applied and undone."""

from __future__ import annotations

import html
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.evaluation.rule_edits import apply_settings
from beam_pipeline.fleet.marking import user_name
from beam_pipeline.web.output import proposing
from beam_pipeline.web.output.audit import read_entries
from beam_pipeline.web.pages import proposals
from tests.beam_pipeline.evaluation.recounts import sent
from tests.beam_pipeline.web.marked_output import RULES, SHOWN, images, write_marked_output
from tests.beam_pipeline.web.serving import Browser, Served, served
from tests.search import search
from transforms.storage import stores
from transforms.storage.marks import MarkedThreat, write_mark

PAGE = "/cameras/hall/proposals"
MASK = "Ignore person in this place"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Served]:
    """The console of an output with marks, and a rule file that a test changes."""
    with console(tmp_path) as served_here:
        yield served_here


def console(folder: Path) -> AbstractContextManager[Served]:
    write_marked_output(folder / "out")
    (folder / "rules.yaml").write_text(RULES)
    return served(folder / "out", folder / "index", "--rules", folder / "rules.yaml")


def rules_path(here: Served) -> Path:
    path = here.prepared.console.rules_file.path
    assert path is not None
    return Path(path)


def output_of(here: Served) -> Path:
    return Path(here.prepared.console.output)


def shown(text: str) -> list[str]:
    """The proposals of a page, as plain text."""
    parts = text.split('<li class="panel proposal">')[1:]
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split()) for part in parts]


def form_of(text: str, words: str) -> dict[str, str]:
    """The form that applies a proposal."""
    (part,) = [one for one in text.split('<li class="panel proposal">')[1:] if words in one]
    names = ("token", "sha256", "proposal")
    found = {name: re.search(f'name="{name}" value="([0-9a-f]+)"', part) for name in names}
    return {name: match[1] for name, match in found.items() if match is not None}


def undo_form(text: str) -> dict[str, str]:
    (part,) = re.findall(r'<form method="post" action="/rules/restore".*?</form>', text, re.DOTALL)
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', part))


def apply(browser: Browser, words: str) -> requests.Response:
    return browser.post(PAGE, form_of(browser.get(PAGE).text, words))


def test_the_page_shows_each_proposal_with_a_backtest_that_a_recount_confirms(
    here: Served,
) -> None:
    page = here.browser().get(PAGE)
    assert page.status_code == 200
    found = shown(page.text)
    # The places differ, so a mask silences all false alerts and nothing else.
    assert found[0].startswith(
        f"{MASK} 4 of 4 false alerts gone 4 of 4 right ones kept 0 unmarked gone 0 new Of 4 right "
        "alerts 0 are lost, so up to 49% of all may be."
    )
    marks = {time: mark for time, _, _, mark in SHOWN}
    before = sent(images(SHOWN), RULES)

    def alerts(of: dict[str, tuple[set[str], str | None]], mark: str | None) -> set[str]:
        return {t for t, (labels, by) in of.items() if labels and by is None and marks[t] == mark}

    console = here.prepared.console
    assert console.proposals is not None
    kept = console.proposals.begin(console.proposals.state("hall")).result()
    assert len(found) == len(kept.findings.proposals) > 3
    for text, proposal in zip(found, kept.findings.proposals, strict=True):
        after = sent(images(SHOWN), apply_settings(RULES, proposal.changes))
        gone = len(alerts(before, "false") - alerts(after, "false"))
        assert f"{gone} of 4 false alerts gone" in text
        # Without a cooldown, a right alert is kept only by being sent.
        lost = len(alerts(before, "right") - alerts(after, "right"))
        assert (f"{lost} of 4 right alerts lost" if lost else "4 of 4 right ones kept") in text
        assert f"{len(alerts(before, None) - alerts(after, None))} unmarked gone" in text
        new = {t for t, (labels, by) in after.items() if labels and by is None}
        assert f"{len(new - {t for t, (labels, _) in before.items() if labels})} new" in text
    lossy = ["right alerts lost" in text for text in found]
    assert lossy == sorted(lossy)  # None that loses a right alert comes before one that does not.
    assert any(lossy)


def test_the_pictures_are_those_that_a_change_concerns(here: Served) -> None:
    browser = here.browser()
    text = browser.get(PAGE).text
    part = next(one for one in text.split('<li class="panel')[1:] if "score of 0.59" in one)
    lost, false, other = re.findall(r"<h3>(.*?)</h3>.*?(?=<h3>|<details>)", part, re.DOTALL)
    assert (lost, false) == ("Right alerts that would be lost", "False alerts that would be gone")
    assert other == "Unmarked alerts that would be gone"
    stems = re.findall(r'href="/cameras/hall/images/([^"]+)"', part)
    minutes = [*("09-30",), *("08-15", "08-10", "08-05", "08-00"), *("10-00",)]
    assert stems == [f"hall_2026-01-31T{minute}-00Z" for minute in minutes]
    for stem in stems:
        assert browser.get(f"/images/hall/{stem}").headers["content-type"] == "image/jpeg"
        assert browser.get(f"/cameras/hall/images/{stem}").status_code == 303  # To its alert.
    mask = next(one for one in text.split('<li class="panel')[1:] if MASK in one)
    assert '<polygon points="9.0,9.0 31.0,9.0 31.0,51.0 9.0,51.0 ">' in mask


def test_an_admin_applies_a_proposal_and_undoes_it(here: Served) -> None:
    browser = here.browser()
    answer = apply(browser, MASK)
    assert answer.status_code == 303
    assert answer.headers["location"] == PAGE
    changed = rules_path(here).read_text()
    added = "    mask:\n      marked-1: {polygon: [[0.090, 0.090], [0.310, 0.090], [0.310, 0.510], "
    assert added in changed
    assert "# by the door" in changed
    assert "# as measured" in changed
    (entry,) = read_entries(str(output_of(here)), 9)
    who = entry["by"], entry["role"], entry["action"]
    assert who == (user_name(), "admin", "change rules")
    assert entry["about"]["why"] == (
        "marks of hall: 4 of 4 false alerts gone, 4 of 4 right ones kept"
    )
    page = browser.get(PAGE).text
    assert "There is nothing to propose" in page
    assert "the rules now send no alert of hall that is marked false" in page
    assert "cameras.hall.mask.marked-1" in page
    assert "marked-1" in browser.get("/cameras/hall").text  # The camera's rules are the new ones.
    answer = browser.post("/rules/restore", undo_form(page))
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    assert rules_path(here).read_text() == RULES
    assert shown(browser.get(PAGE).text)[0].startswith(MASK)
    # And the undoing is undone, from the page of all changes.
    page = browser.get("/rules/changes").text
    assert page.count("<tr><th") == 3
    assert browser.post("/rules/restore", undo_form(page)).headers["location"] == "/rules/changes"
    assert rules_path(here).read_text() == changed
    assert len(read_entries(str(output_of(here)), 9)) == 3


def test_a_form_from_elsewhere_changes_nothing(here: Served) -> None:
    browser = here.browser()
    form = form_of(browser.get(PAGE).text, MASK)
    assert browser.post(PAGE, {**form, "token": "0" * 64}).status_code == 403
    elsewhere = {"Origin": "https://evil.example"}
    assert browser.post(PAGE, form, headers=elsewhere).status_code == 403
    assert rules_path(here).read_text() == RULES
    assert browser.post(PAGE, form).status_code == 303
    changed = rules_path(here).read_text()
    undo = undo_form(browser.get(PAGE).text)
    assert browser.post("/rules/restore", {**undo, "token": ""}).status_code == 403
    assert browser.post("/rules/restore", undo, headers=elsewhere).status_code == 403
    assert rules_path(here).read_text() == changed


def test_the_card_of_a_false_alert_leads_to_what_would_have_silenced_it(here: Served) -> None:
    cards = here.browser().get("/alerts?camera=hall").text.split('class="card"')[1:]
    for card in cards:
        leads_there = f'href="{PAGE}"' in card
        is_false = 'class="false" data-key="false" aria-pressed="true"' in card
        assert leads_there == is_false
    assert any(f'href="{PAGE}"' in card for card in cards)
    assert not all(f'href="{PAGE}"' in card for card in cards)


def test_each_version_is_shown_and_can_be_put_back(here: Served) -> None:
    browser = here.browser()
    apply(browser, MASK)
    rules_path(here).write_text(rules_path(here).read_text() + "# by hand\n")
    page = browser.get("/rules/changes").text
    assert "Undo the last change" not in page  # It would take the edit by hand away.
    (path,) = re.findall(r'href="(/rules/changes/[^"]+)"', page)
    version = browser.get(path).text
    assert "-# by hand" in version
    assert "-      marked-1" in version
    assert browser.post("/rules/restore", undo_form(version)).status_code == 303
    assert rules_path(here).read_text() == RULES
    history = stores.join(str(output_of(here)), "rules", "history")
    kept = [stores.read_bytes(f"{history}/{name}") for name in os.listdir(history)]
    assert any(b"# by hand" in data for data in kept)
    assert "The rule file says the same now" in browser.get(path).text
    assert browser.get("/rules/changes/..%2f..%2frules.yaml").status_code == 404
    assert browser.get("/rules/changes/20260131T000000000000Z_000000000000.yaml").status_code == 404


def test_a_difference_that_takes_long_keeps_no_other_page_waiting(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = here.browser()
    apply(browser, MASK)
    (path,) = re.findall(r'href="(/rules/changes/[^"]+)"', browser.get("/rules/changes").text)
    begun, ended = threading.Event(), threading.Event()

    def slow(*_: str) -> str:
        begun.set()
        return "" if ended.wait(20) else "nobody answered meanwhile"

    monkeypatch.setattr(here.prepared.console.rule_file, "difference", slow)
    with ThreadPoolExecutor(1) as threads:
        page = threads.submit(browser.get, path)
        assert begun.wait(20)
        assert here.browser().get("/healthz", timeout=10).status_code == 200
        ended.set()
        assert page.result().status_code == 200


def test_of_two_admins_the_second_is_told_and_overwrites_nothing(here: Served) -> None:
    first, second = here.browser(), here.browser()
    forms = [form_of(one.get(PAGE).text, MASK) for one in (first, second)]
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda of: of[0].post(PAGE, of[1]),
                                   zip((first, second), forms, strict=True)))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    assert "Nothing was written" in next(one.text for one in answers if one.status_code == 409)
    assert rules_path(here).read_text().count("marked-1") == 1
    assert len(read_entries(str(output_of(here)), 9)) == 1


def test_an_edit_by_hand_is_not_overwritten(here: Served) -> None:
    browser = here.browser()
    apply(browser, MASK)
    undo = undo_form(browser.get(PAGE).text)
    edited = rules_path(here).read_text() + "# by hand\n"
    rules_path(here).write_text(edited)
    answer = browser.post("/rules/restore", undo)
    assert answer.status_code == 409
    assert "was changed since the page was made" in html.unescape(answer.text)
    assert rules_path(here).read_text() == edited


def test_a_rule_file_that_is_broken_by_hand_is_named_by_its_line(here: Served) -> None:
    browser = here.browser()
    form = form_of(browser.get(PAGE).text, MASK)
    broken = RULES.replace("min_score: 0.50", "min_scor: 0.50")
    rules_path(here).write_text(broken)
    for answer in (browser.get(PAGE), browser.post(PAGE, form)):
        assert answer.status_code == 409
        assert "rules.yaml:9: " in answer.text
    assert browser.get("/rules/changes").status_code == 200
    assert rules_path(here).read_text() == broken
    rules_path(here).unlink()
    assert "no such file" in browser.get(PAGE).text


def test_where_the_file_cannot_be_written_the_diff_is_shown(here: Served) -> None:
    browser = here.browser()
    form = form_of(browser.get(PAGE).text, MASK)
    refusal = OSError(30, os.strerror(30))
    with mock.patch("beam_pipeline.inputs.local_files.tempfile.mkstemp", side_effect=refusal):
        answer = browser.post(PAGE, form)
    assert answer.status_code == 409
    text = html.unescape(answer.text)
    assert "can't be written from here (Read-only file system)" in text
    assert "+    mask:\n+      marked-1: {polygon" in text
    assert rules_path(here).read_text() == RULES
    assert read_entries(str(output_of(here)), 9) == []


def test_a_camera_without_marks_has_nothing_to_propose(here: Served) -> None:
    page = here.browser().get("/cameras/gate/proposals")
    assert page.status_code == 200
    assert "nobody has marked an alert of gate; mark those that are false" in page.text
    assert here.browser().get("/cameras/roof/proposals").status_code == 404


def test_without_a_rule_file_the_page_says_how_to_give_one(tmp_path: Path) -> None:
    write_marked_output(tmp_path / "out")
    with served(tmp_path / "out", tmp_path / "index") as without:
        browser = without.browser()
        for path in (PAGE, "/rules/changes"):
            assert "Start the console with --rules FILE" in browser.get(path).text
        form = {"token": browser.token(), "proposal": "0" * 16, "sha256": "0" * 64}
        assert browser.post(PAGE, form).status_code == 404


def test_a_page_does_not_wait_long_and_the_archive_is_read_once(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_archive(uri: str) -> proposing.Archive:
        opened.append(uri)
        return real(uri)

    real = proposing.open_archive
    monkeypatch.setattr(proposing, "open_archive", open_archive)
    monkeypatch.setattr(proposals, "_WAIT_SECONDS", 0.0)
    browser = here.browser()
    page = browser.get(PAGE)
    assert page.status_code == 200
    assert "are still being judged" in page.text
    assert "Look again" in page.text
    here.until(lambda: MASK in browser.get(PAGE).text)
    assert len(opened) == 1
    # A further mark makes it look again.
    write_mark(
        str(output_of(here)),
        id="hall",
        timestamp="2026-01-31T10:00:00Z",
        alert_id=proposing.rules.alert_id("hall", "2026-01-31T10:00:00Z", "alert"),
        mark="false",
        threats=[MarkedThreat("person", None)],
        by="carl",
    )
    here.until(lambda: "of 5</strong> false alerts gone" in browser.get(PAGE).text)
    assert len(opened) == 2


def test_too_many_cameras_at_once_are_told_to_wait(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposing, "_MOST_AT_WORK", 0)
    answer = here.browser().get(PAGE)
    assert answer.status_code == 503
    assert "Try again in a minute" in answer.text


def test_a_store_that_fails_is_told(here: Served) -> None:
    browser = here.browser()
    with mock.patch.object(proposing, "open_archive", side_effect=OSError(5, "I/O error")):
        answer = browser.get(PAGE)
        assert answer.status_code == 503
        assert "The archive can't be read now" in html.unescape(answer.text)
    form = form_of(browser.get(PAGE).text, MASK)
    with mock.patch.object(stores, "write_bytes", side_effect=OSError(5, "I/O error")):
        answer = browser.post(PAGE, form)
    assert answer.status_code == 503
    assert "was not changed" in answer.text
    assert rules_path(here).read_text() == RULES


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Browser, str]]:
    """A console whose rule file no form changes, a client, and its token."""
    with console(tmp_path_factory.mktemp("hostile")) as served_here:
        browser = served_here.browser()
        yield served_here, browser, browser.token()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
FIELDS = st.sampled_from(["proposal", "sha256", "version", "camera"]) | TEXT
VALUES = st.sampled_from(["0" * 16, "..", "rules.yaml", "hall"]) | TEXT


@pytest.mark.search
@search(60)
@given(
    st.dictionaries(FIELDS, VALUES, max_size=4),
    st.sampled_from([PAGE, "/rules/restore"]),
)
def test_no_made_up_form_changes_the_rules(
    unchanged: tuple[Served, Browser, str], form: dict[str, str], path: str
) -> None:
    here, browser, token = unchanged
    answer = browser.post(path, {**form, "token": token})
    assert answer.status_code in (400, 409)
    assert rules_path(here).read_text() == RULES
    assert read_entries(str(output_of(here)), 9) == []
