"""Links that mark an alert: each makes one mark of one alert, and no other text is such a link."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rules
from tests.search import search
from transforms.alerting.mark_links import (
    LinkKeyError,
    MarkLink,
    by_link,
    link_end,
    link_keys,
    message_links,
    sign,
    verified,
)

KEY, OTHER = "k" * 32, "o" * 40
ALERT = "e4c827d3011cb7bc20f5352923627fba"
LINK = MarkLink("hall", ALERT, "false", "mail (link)", 1_770_508_973)
UNTIL = datetime(2026, 2, 8, 0, 2, 53, tzinfo=timezone.utc)

links = st.builds(
    MarkLink,
    st.sampled_from(["hall", "gate-2", "a"]),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(["right", "false"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    st.integers(0, 2**40),
)
characters = st.one_of(
    st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=+/ %\n\0"),
    st.characters(),
)


def test_a_link_reads_as_its_documentation_says() -> None:
    payload, signature = sign(KEY, LINK).split(".")
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    assert json.loads(text) == [1_770_508_973, "false", ALERT, "hall", "mail (link)"]
    signed = b"beam-threats mark link 1\n" + payload.encode()
    assert signature == hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()


@pytest.mark.search
@search(1000)
@given(links, st.sampled_from([KEY, OTHER, "é" * 32]))
def test_each_link_is_what_was_signed_and_fits_an_address(link: MarkLink, key: str) -> None:
    token = sign(key, link)
    assert token == sign(key, link)
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert verified(token, (key,)) == verified(token, (OTHER, "x" * 32, key)) == link
    assert verified(token, ("x" * 32, "y" * 32)) is None
    assert verified(token, ()) is None


@pytest.mark.search
@search(2000)
@given(links, st.data())
def test_no_change_of_a_link_is_accepted(link: MarkLink, data: st.DataObject) -> None:
    token = sign(KEY, link)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(characters)
    changed = {
        "replaced": token[:place] + letter + token[place + 1 :],
        "inserted": token[:place] + letter + token[place:],
        "appended": token + letter,
        "removed": token[:place] + token[place + 1 :],
        "cut": token[:place],
        "upper": token[:place] + token[place:].upper(),
    }[data.draw(st.sampled_from(["replaced", "inserted", "appended", "removed", "cut", "upper"]))]
    assume(changed != token)
    assert verified(changed, (KEY, OTHER)) is None


def test_no_byte_of_a_link_can_be_another() -> None:
    token = sign(KEY, LINK)
    for place in range(len(token)):
        for code in range(128):
            changed = token[:place] + chr(code) + token[place + 1 :]
            assert (verified(changed, (KEY,)) is None) == (changed != token)


@pytest.mark.search
@search(1000)
@given(links, links)
def test_the_signature_of_one_link_makes_no_other(one: MarkLink, other: MarkLink) -> None:
    """So nobody marks another alert, marks as something else, in another name, or later."""
    assume(one != other)
    first, second = sign(KEY, one), sign(KEY, other)
    assert verified(f"{second.split('.')[0]}.{first.split('.')[1]}", (KEY,)) is None


@pytest.mark.search
@search(500)
@given(st.text(max_size=200))
def test_no_other_text_is_a_link(text: str) -> None:
    assert verified(text, (KEY,)) is None


@pytest.mark.parametrize(
    "values",
    [
        [0, "false", ALERT, "hall"],
        [0, "missed", ALERT, "hall", "x"],
        [0, "unsure", ALERT, "hall", "x"],
        [0, "false", ALERT.upper(), "hall", "x"],
        [0, "false", "../hall", "hall", "x"],
        [0, "false", ALERT, "../hall", "x"],
        [0, "false", ALERT, "hall", None],
        [0, "false", ALERT, None, "x"],
        [0.5, "false", ALERT, "hall", "x"],
        [True, "false", ALERT, "hall", "x"],
        [0, ["false"], ALERT, "hall", "x"],
        {"a": 1},
        7,
        None,
    ],
)
def test_what_another_release_has_signed_is_no_link(values: object) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    signed = b"beam-threats mark link 1\n" + payload.encode()
    signature = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
    assert verified(f"{payload}.{signature}", (KEY,)) is None


def test_a_link_ends_some_days_after_the_capture_time_whatever_the_clock_says() -> None:
    assert link_end("2026-02-01T00:02:53Z", 7, None) == UNTIL
    assert link_end("2026-02-01T00:02:53Z", 7, UNTIL) == UNTIL
    assert link_end("2026-02-01T00:02:53Z", 1, None) == UNTIL - timedelta(days=6)
    # A camera that has lost its clock: when its image arrived, if that is known.
    arrived = datetime(2026, 2, 1, 0, 2, 53, 999, tzinfo=timezone.utc)
    assert link_end("1970-01-01T00:05:00Z", 7, arrived) == UNTIL
    assert link_end("2021-01-01T00:05:00Z", 7, arrived) == UNTIL
    assert link_end("1970-01-01T00:05:00Z", 7, None) is None
    assert link_end("9999-12-31T00:05:00Z", 7, None) is None


def test_the_mark_of_a_link_is_in_a_name_that_no_user_has() -> None:
    assert by_link("mail") == "mail (link)"
    assert by_link("https://alerts.example.com#2") == "https://alerts.example.com#2 (link)"
    assert by_link(None) == by_link("") == by_link(" \n ") == "link"
    assert by_link("a\nb") == "ab (link)"
    assert by_link("x" * 200) == "x" * 93 + " (link)"


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (KEY, (KEY,)),
        (f" {KEY}\n", (KEY,)),
        (f"{KEY} {OTHER}", (KEY, OTHER)),
        (f"{KEY},{OTHER}", (KEY, OTHER)),
        (f"{KEY}\n{OTHER}\n", (KEY, OTHER)),
    ],
)
def test_a_variable_holds_one_key_or_several(value: str, keys: tuple[str, ...]) -> None:
    assert link_keys("${MARK_KEY}", {"MARK_KEY": value}) == keys


def test_a_short_key_is_refused_and_not_repeated() -> None:
    for value in ("short", f"{KEY} short", "x" * 31, ",", " , "):
        with pytest.raises(LinkKeyError, match="fewer than 32 characters") as caught:
            link_keys("${MARK_KEY}", {"MARK_KEY": value})
        assert "short" not in str(caught.value)
    with pytest.raises(rules.MissingVariableError):
        link_keys("${MARK_KEY}", {})


def test_a_new_key_signs_and_the_old_one_is_still_accepted() -> None:
    console = rules.ConsoleLinks("https://c.example", "${MARK_KEY}")

    def link(value: str) -> str:
        found = message_links(
            console, camera="hall", alert_id=ALERT, until=UNTIL, target="mail",
            environment={"MARK_KEY": value},
        )  # fmt: skip
        return found["false"].rpartition("/")[2]

    old, new = link(KEY), link(f"{OTHER} {KEY}")
    assert (verified(old, (KEY,)), verified(new, (KEY,))) == (LINK, None)
    assert verified(old, (OTHER, KEY)) == verified(new, (OTHER, KEY)) == LINK


def test_without_a_key_there_is_only_the_link_that_marks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def found(console: rules.ConsoleLinks, until: datetime | None = UNTIL) -> dict[str, str]:
        environment = {"SHORT": "secret", "PLACE": "https://c.example/"}
        return message_links(
            console, camera="hall", alert_id=ALERT, until=until, target=None,
            environment=environment,
        )  # fmt: skip

    with caplog.at_level(logging.WARNING):
        page = {"console": f"https://c.example/alerts/{ALERT}"}
        assert found(rules.ConsoleLinks("https://c.example")) == page
        assert found(rules.ConsoleLinks("https://c.example/", "${SHORT}"), None) == page
        assert caplog.messages == []
        for _ in range(2):
            assert found(rules.ConsoleLinks("${PLACE}", "${SHORT}")) == page
            assert found(rules.ConsoleLinks("${PLACE}", "${NO_KEY}")) == page
            assert found(rules.ConsoleLinks("${NO_PLACE}", "${SHORT}")) == {}
    assert caplog.messages == [
        "messages lack links to the console (a key of links has fewer than 32 characters; make one "
        "by: openssl rand -hex 32)",
        "messages lack links to the console (the environment variable NO_KEY is not set)",
        "messages lack links to the console (the environment variable NO_PLACE is not set)",
    ]
