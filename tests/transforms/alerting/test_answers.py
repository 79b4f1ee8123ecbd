"""The pause that a service requests; test_target_clients.py has its other answers."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.alerting.answers import retry_after_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1),
        ("-7", 0),
        ("-0.5", 0),
        ("86401", 86400),
        ("9" * 400, 86400),
        ("9" * 5000, 86400),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("1e3", None),
        ("0x10", None),
        ("1,5", None),
        ("\u0661", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
    ],
)
def test_a_retry_after_header_is_parsed(header, seconds):
    assert retry_after_seconds(header) == seconds


@settings(max_examples=300)
@given(st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str))
def test_any_retry_after_header_is_ignored_or_at_most_a_day(header):
    seconds = retry_after_seconds(header)
    assert seconds is None or 0 <= seconds <= 86400


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_retry_after_date_is_in_gmt_wherever_the_machine_is(monkeypatch, zone, form):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        header = time.strftime(form, time.gmtime(time.time() + 100))
        assert retry_after_seconds(header) == pytest.approx(100, abs=3)
    finally:
        monkeypatch.undo()
        time.tzset()
