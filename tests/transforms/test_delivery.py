"""Retries, the breaker, and who waits for whom."""

import hashlib
import itertools
import json
import threading
import time
from email.utils import formatdate

import pytest

from rules import parse_rules
from tests.transforms.results import judged
from tests.transforms.web_service import status
from transforms.alerts import alert_for
from transforms.couriers import TimeLimits, check_url, retry_after_seconds, target_name, url_courier
from transforms.delivery import RetryPolicy, TargetSender
from transforms.messages import bare
from transforms.send_alerts import SendAlerts

NO_TARGETS = parse_rules("version: 1\ndefaults: {objects: {person: }}\n", "rules.yaml")
QUICK = RetryPolicy(
    attempts=3,
    first_pause_seconds=0.01,
    longest_pause_seconds=5,
    give_up_after=1000,
    try_again_seconds=60,
    limits=TimeLimits(connect_seconds=1, read_seconds=0.3, in_all_seconds=5),
)


def policy(**changes):
    return RetryPolicy(**{**vars(QUICK), **changes})


def an_alert(second=0, camera="hall"):
    image = judged(camera, f"2026-01-31T10:00:{second:02d}Z", [("person", "alert")])
    return alert_for(image, "/out", NO_TARGETS)


def sender_at(web, path="/hook", **changes):
    return TargetSender(url_courier(web.url + path, "ALERT_TOKEN", QUICK.limits), policy(**changes))


def send(sender, second=0):
    sent = sender.send(lambda: bare(an_alert(second).body))
    return sent.outcome, sent.detail


def gaps(web):
    """Seconds between one request and the next."""
    times = [request.at for request in web.requests]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture
def dead(web):
    """An address at which nothing listens any more."""
    web.stop()
    return web


# One service.


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_delivery(web, code):
    web.answers = [status(code)]
    assert send(sender_at(web)) == ("delivered", "")


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_longer_pauses(web, code):
    web.answers = [status(code), status(code), status(200)]
    assert send(sender_at(web, first_pause_seconds=0.1)) == ("delivered", "")
    first, second = gaps(web)
    assert 0.07 < first < 2
    assert 0.14 < second < 3
    assert len({request.headers["Idempotency-Key"] for request in web.requests}) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_after_the_last_attempt_the_alert_has_failed(web, attempts):
    web.answers = [status(503)]
    assert send(sender_at(web, attempts=attempts)) == ("unavailable", "HTTP status 503")
    assert len(web.requests) == attempts


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 403, 404, 410, 422])
def test_a_refusal_or_redirect_is_final(web, code):
    web.answers = [status(code, location=f"{web.url}/elsewhere")]
    assert send(sender_at(web)) == ("refused", f"HTTP status {code}")
    assert [request.path for request in web.requests] == ["/hook"]


def test_a_retry_after_in_seconds_is_heeded(web):
    web.answers = [status(429, retry_after="1"), status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    (gap,) = gaps(web)
    assert 1 <= gap < 4


def test_a_retry_after_as_a_date_is_heeded(web):
    due = time.time() + 2

    def busy(handler, request):
        status(503, retry_after=formatdate(due, usegmt=True))(handler, request)

    web.answers = [busy, status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    assert time.time() > int(due)  # The date has whole seconds.
    assert 0.5 < gaps(web)[0] < 5


@pytest.mark.parametrize("asked", ["6", "100000", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_the_longest_pause_ends_it(web, asked):
    web.answers = [status(429, retry_after=asked), status(200)]
    assert send(sender_at(web)) == ("unavailable", "HTTP status 429")
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("7", 7),
        ("-7", 0),
        ("9" * 400, float("inf")),
        ("9" * 5000, None),
        ("soon", None),
        ("1.5", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
    ],
)
def test_what_a_retry_after_header_asks_for(header, seconds):
    assert retry_after_seconds(header) == seconds


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


def test_a_service_that_hangs_is_not_waited_for(web):
    web.answers = [lambda handler, request: web.ended.wait(20)]
    started = time.monotonic()
    assert send(sender_at(web)) == ("unavailable", "no answer in time")
    assert time.monotonic() - started < 5
    assert len(web.requests) == 3


def test_a_connection_that_closes_is_tried_again(web):
    def close(handler, request):
        handler.close_connection = True

    web.answers = [close, status(200)]
    assert send(sender_at(web)) == ("delivered", "")
    web.answers = [close]
    outcome, detail = send(sender_at(web))
    assert outcome == "unavailable"
    assert detail.startswith("no connection (")


def test_a_refused_connection_has_failed_after_the_attempts(dead):
    assert send(sender_at(dead)) == ("unavailable", "no connection (ConnectionError)")


# A service that is dead.


def test_a_dead_service_is_given_up_and_costs_nothing_more(web):
    web.answers = [status(503)]
    service = sender_at(web, give_up_after=3, attempts=2)
    outcomes = [send(service, second) for second in range(10)]
    assert outcomes[:3] == [("unavailable", "HTTP status 503")] * 3
    assert (
        outcomes[3:]
        == [("unavailable", "not tried: the target has failed several alerts in a row")] * 7
    )
    assert len(web.requests) == 3 * 2


def test_a_service_given_up_is_tried_again_later(web):
    web.answers = [status(503)]
    service = sender_at(web, give_up_after=2, attempts=1, try_again_seconds=0.4)
    for second in range(4):
        send(service, second)
    assert len(web.requests) == 2
    time.sleep(0.5)
    for second in range(4):  # One is tried; it fails, and the others wait again.
        send(service, second)
    assert len(web.requests) == 3
    time.sleep(0.5)
    web.answers = [status(200)]
    assert [send(service, second)[0] for second in range(4)] == ["delivered"] * 4
    assert len(web.requests) == 7


@pytest.mark.parametrize("answer", [200, 400])
def test_a_service_that_answers_in_between_is_not_given_up(web, answer):
    service = sender_at(web, give_up_after=2, attempts=1)
    for second in range(8):
        web.answers = [status(503 if second % 2 else answer)]
        send(service, second)
    assert len(web.requests) == 8


def test_one_service_is_sent_alerts_from_many_threads(web):
    service = sender_at(web)
    outcomes = []
    threads = [
        threading.Thread(target=lambda at=second: outcomes.append(send(service, at)))
        for second in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [("delivered", "")] * 20
    assert len({json.loads(request.body)["alert_id"] for request in web.requests}) == 20


# Addresses.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://alerts.example.com", "https://alerts.example.com"),
        ("https://user:s3cret@alerts.example.com/t0ken?key=s3cret", "https://alerts.example.com"),
        ("http://127.0.0.1:8080/s3cret", "http://127.0.0.1:8080"),
    ],
)
def test_a_service_s_name_holds_no_secret(url, shown):
    assert target_name(url) == f"{shown}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def test_two_addresses_at_one_host_have_two_names():
    assert target_name("https://a.example/one") != target_name("https://a.example/two")


@pytest.mark.parametrize(
    "url",
    ["", "alerts.example.com", "ftp://a.example/s3cret", "https://", "http://:80/s3cret",
     "http://a.example:port/s3cret", "http://a.example:99999/s3cret", "http://[::1/s3cret",
     "http://a.example:0/s3cret", "file:///s3cret"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="not an address") as refused:
        check_url(url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="not an address"):
        SendAlerts("/out", NO_TARGETS, urls=[url])


@pytest.mark.parametrize(
    "url", ["http://a.example", "https://u:p@a.example:8443/x?y#z", "http://[::1]:80/"]
)
def test_an_address_is_taken(url):
    check_url(url)
